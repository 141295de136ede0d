"""Protocols: those that come with the package, and those of a user."""

from __future__ import annotations

import pytest
import yaml

from stylegan_t.errors import SettingsError
from stylegan_t.evaluation.protocols import FOLDER, PROTOCOLS, load_protocol
from stylegan_t.models.judges import RESIZES
from stylegan_t.settings.protocol import OF_CLIPS
from tests.evaluation.judged import a_protocol, measure_of

OF_THE_PIPELINE = {"small_clip"}
"""Judges that ``fetch_encoders`` trains, and nobody can download."""


def test_the_protocols_are_those_of_the_issue():
    assert PROTOCOLS == ("coco256", "coco64", "quick", "shapes")


@pytest.mark.parametrize("px", [64, 256])
def test_coco_is_the_papers_protocol(px):
    protocol = load_protocol(f"coco{px}")
    assert (protocol.reference, protocol.image_px, protocol.num_images) == ("coco", px, 30_000)
    assert (protocol.captions, protocol.scale) == ("one_per_image", "cosine")
    inception = {m.resize for m in protocol.measures if m.judge == "inception" and "frechet" in m.metrics}
    assert inception == {"legacy_tensorflow", "clean"}
    clip = protocol.judges["vit_g_14"].model_dump()
    assert (clip["model"], clip["weights"]) == ("ViT-g-14", "laion2b_s12b_b42k")
    assert "clip_score" in next(m.metrics for m in protocol.measures if m.judge == "vit_g_14")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_judge_can_be_had_and_measures_what_its_kind_can(name):
    protocol = load_protocol(name)
    for measure in protocol.measures:
        if measure.judge in OF_THE_PIPELINE:
            assert measure.resize is None
            continue
        kind = protocol.judges[measure.judge].kind
        assert measure.resize in RESIZES.get(kind, (None,))
        if kind != "pretrained":
            assert not set(measure.metrics) & set(OF_CLIPS), f"{measure.judge} reads no captions"
    assert set(protocol.judges) <= {measure.judge for measure in protocol.measures}, "a judge that measures nothing"


def test_below_2048_pictures_quick_has_what_leads_in_the_first_place():
    for measure in load_protocol("quick").measures:
        first = measure.metrics.index("frechet") if "frechet" in measure.metrics else len(measure.metrics)
        assert set(measure.metrics[:first]) & {"kernel", "cmmd"}


def test_a_file_of_ones_own_is_read_from_where_one_is(tmp_path):
    values = a_protocol(reference="mine").model_dump()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    assert load_protocol("mine.yaml", tmp_path) == a_protocol(reference="mine")


def test_an_unknown_protocol_is_told_with_those_there_are(tmp_path):
    with pytest.raises(SettingsError, match="'coco': unknown; use coco256, coco64, quick, shapes, or the path"):
        load_protocol("coco", tmp_path)


def written(folder, **changes):
    values = yaml.safe_load((FOLDER / "quick.yaml").read_text()) | changes
    (folder / "mine.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if v != "left out"}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pictures": 3}, r"mine\.yaml: num_pictures: Extra inputs"),
        ({"scale": "left out"}, r"mine\.yaml: scale: Field required"),
        ({"scale": "times ten"}, r"mine\.yaml: scale: Input should be 'cosine', 'x100' or 'w2\.5'"),
        ({"best_of": None}, "best_of needs best_of.num_prompts"),
        ({"measures": [measure_of("a", "kernel"), measure_of("a", "frechet")]}, "a more than once"),
        ({"measures": [measure_of("a", "fid")]}, r"mine\.yaml: measures\.0\.metrics\.0: Input should be 'frechet'"),
        ({"judges": {"a": {"kind": "vgg"}}}, r"mine\.yaml: judges\.a: .*'inception'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        load_protocol("mine.yaml", written(tmp_path, **changes))


@pytest.mark.parametrize("text", ["judges: [", "\udcff"])
def test_a_file_that_is_no_yaml_is_one_line(tmp_path, text):
    (tmp_path / "mine.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match=r"mine\.yaml: not valid YAML") as error:
        load_protocol("mine.yaml", tmp_path)
    assert "\n" not in str(error.value)


def test_a_file_without_settings_is_told(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(SettingsError, match=r"mine\.yaml: all of it: Input should be a valid dictionary"):
        load_protocol("mine.yaml", tmp_path)

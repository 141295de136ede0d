"""``stylegan-t evaluate``: any pictures measured alone, with clear words where they cannot be."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file, save_file

from stylegan_t import measure
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.evaluation.panel import Panel
from stylegan_t.measure import Request
from stylegan_t.records import Evaluation
from tests.evaluation.judged import (
    CAPTIONS,
    INCEPTION_FILE,
    make_folders,
    random_pictures,
    save_inception,
    write_pictures,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_folders(tmp_path_factory.mktemp("world"))


def request(world: Path, work: Path, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "model": None, "images": world / "a", "against": world / "b", "protocol": str(world / "mine.yaml"),
        "captions": None, "judges": world / "judges", "weights": {}, "num_images": None, "psi": 1.0, "seed": 0,
        "batch_size": 8, "device": "cpu", "work": work,
    }  # fmt: skip
    return Request(**(values | changes))


def measured(*arguments: Any, **changes: Any) -> Evaluation:
    found = measure.measure(request(*arguments, **changes))
    assert found is not None
    return found


def few(world: Path) -> dict[str, Any]:
    """Pictures for a judge that takes its time."""
    return {"images": world / "few", "against": world / "few real"}


def value_of(found: Evaluation) -> dict[str, float | None]:
    return {each.name: each.value for each in found.measurements}


def test_a_folder_is_measured_by_every_judge_that_there_is(world, tmp_path):
    found = measured(world, tmp_path)
    assert (found.protocol, found.subject, found.count, found.reference_count) == (
        "mine.yaml",
        str(world / "a"),
        20,
        24,
    )
    assert (found.weights, found.psi, found.seeds) == ("none", None, None)
    assert found.made_on and found.made_on.endswith(f"torch {torch.__version__}") and found.seconds
    value = value_of(found)
    assert value["kd_small_clip_20_reals"] is not None
    assert value["cmmd_small_clip_20_reals"] is not None
    score = next(each for each in found.measurements if each.metric == "clip_score")
    assert score.absent == f"{world / 'a'}: the pictures have no captions"
    best = next(each for each in found.measurements if each.name == "clip_score_best_of_4_cosine_small_clip_3_reals")
    assert best.absent == "the best of several pictures of a prompt needs a --model"


def test_captions_come_from_a_file_in_the_order_of_the_names(world, tmp_path):
    (tmp_path / "captions.txt").write_text("".join(caption + "\n" for caption in CAPTIONS))
    from_file = measured(world, tmp_path, images=world / "b", captions=tmp_path / "captions.txt")
    beside = measured(world, tmp_path, images=world / "b")
    assert value_of(from_file) == value_of(beside)
    assert value_of(beside)["clip_score_cosine_small_clip_24_reals"] is not None
    assert value_of(beside)["cmmd_small_clip_24_reals"] == pytest.approx(0, abs=1e-6), "the real pictures themselves"


def test_a_model_paints_the_captions_of_the_real_pictures(world, tmp_path):
    found = measured(world, tmp_path, images=None, model=world / "model")
    assert (found.weights, found.psi, found.count, found.px) == ("ema", 1.0, 24, 16)
    assert found.seeds == "images 0 to 23 of 'evaluate 0', seed 0"
    assert value_of(found)["clip_score_best_of_4_cosine_small_clip_3_reals16"] is not None
    other = measured(world, tmp_path, images=None, model=world / "model", seed=1)
    assert value_of(other)["kd_small_clip_24_reals16"] != value_of(found)["kd_small_clip_24_reals16"]
    fewer = measured(world, tmp_path, images=None, model=world / "model", num_images=9, psi=0.5)
    assert (fewer.count, fewer.psi) == (9, 0.5)


def test_a_model_is_measured_at_its_own_side_where_that_is_smaller(world, tmp_path, caplog):
    """As the pipeline's ``evaluate`` does: enlarged pictures would be compared with finer ones."""
    values = yaml.safe_load((world / "mine.yaml").read_text())
    for px, expected in ((8, 8), (256, 16)):
        (tmp_path / "at.yaml").write_text(yaml.safe_dump(values | {"image_px": px}))
        protocol = str(tmp_path / "at.yaml")
        assert measured(world, tmp_path, images=None, model=world / "model", protocol=protocol).px == expected
    assert "enlarged" not in caplog.text
    found = measured(world, tmp_path, protocol=protocol)
    assert (found.px, found.fit) == (256, "centre square; smaller by the mean of the area, larger by Lanczos")
    assert f"{world / 'a'}: its first picture has a side of 32 px and is enlarged to 256 px" in caplog.text


def test_other_real_pictures_than_the_protocols_bear_another_name(world, tmp_path, caplog):
    values = yaml.safe_load((world / "mine.yaml").read_text())
    for count, name in ((24, "reals"), (25, "other")):
        (tmp_path / "of.yaml").write_text(yaml.safe_dump(values | {"reference_count": count}))
        found = measured(world, tmp_path, protocol=str(tmp_path / "of.yaml"))
        assert f"cmmd_small_clip_20_{name}" in value_of(found)
        assert found.reference == name
        assert ("24 pictures, and the protocol's are 25: the metrics' names say other" in caplog.text) == (count == 25)


def test_who_was_stopped_goes_on_with_what_was_seen(world, tmp_path, monkeypatch):
    whole = measured(world, tmp_path / "whole")
    look = Panel.look
    calls: list[int] = []

    def stopped(self, pictures, batch_size):
        if sum(calls) == 24:
            raise KeyboardInterrupt
        calls.append(len(pictures))
        return look(self, pictures, batch_size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Panel, "look", stopped)
        measured(world, tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(Panel, "look", lambda *arguments: calls.append(len(arguments[1])) or look(*arguments))
        again = measured(world, tmp_path / "work")
    assert sum(calls) == 24 + 20, "no picture was looked at twice: the real ones were seen before it was stopped"
    assert value_of(again) == value_of(whole)


def test_another_set_against_the_same_real_pictures_looks_at_the_new_ones_alone(world, tmp_path, monkeypatch):
    measured(world, tmp_path)
    write_pictures(tmp_path / "c", random_pictures(7, seed=5))
    looked: list[int] = []
    look = Panel.look
    monkeypatch.setattr(Panel, "look", lambda *arguments: looked.append(len(arguments[1])) or look(*arguments))
    measured(world, tmp_path, images=tmp_path / "c")
    assert looked == [7]


# ---- judges ---------------------------------------------------------------------------------------------------------


def test_a_local_weights_file_takes_the_place_of_the_folders_judge_and_the_others_stay(world, tmp_path):
    save_inception(tmp_path / "other", seed=7)
    weights = {"inception": tmp_path / "other" / INCEPTION_FILE}
    both = few(world) | {"protocol": str(world / "both.yaml")}
    found = measured(world, tmp_path / "work", weights=weights, **both)
    usual = measured(world, tmp_path / "work", **both)
    assert value_of(found)["kid4_reals_clean"] != value_of(usual)["kid4_reals_clean"]
    assert value_of(found)["cmmd_small_clip_4_reals"] == value_of(usual)["cmmd_small_clip_4_reals"]


def test_a_judge_by_name_is_never_a_file_that_was_once_given_for_it(world, tmp_path, monkeypatch):
    """What cannot be downloaded is absent; that is believed for an hour, and then it is tried again."""
    monkeypatch.chdir(tmp_path)
    weights = {"inception": world / "judges" / "inception" / INCEPTION_FILE}
    tried: list[str] = []

    def download(folder: str) -> str:
        tried.append(folder)
        raise OSError("no network")

    monkeypatch.setattr("stylegan_t.stages.pretrained.check_download_inception", download)
    own = few(world) | {"judges": None, "protocol": str(world / "inception.yaml")}
    given = measured(world, tmp_path / "work", weights=weights, **own)
    assert value_of(given)["kid4_reals_clean"] is not None
    why = r"no judge is there: inception_clean: .*cannot be downloaded \(no network\)"
    for times in (1, 2):
        for _ in range(2):
            with pytest.raises(DataError, match=why):
                measured(world, tmp_path / "work", **own)
        assert len(tried) == times
        note = tmp_path / "work" / "judges" / "inception" / "config.json"
        an_hour_ago = note.stat().st_mtime - measure.SECONDS_BETWEEN_TRIES - 1
        os.utime(note, (an_hour_ago, an_hour_ago))
    assert value_of(measured(world, tmp_path / "work", weights=weights, **own)) == value_of(given)


def test_a_judge_that_the_pipeline_has_not_is_fetched_and_the_pipelines_others_are_used(world, tmp_path, monkeypatch):
    """After a demo the workspace has a small CLIP alone, and photographs want Inception."""
    pipeline = tmp_path / "artifacts" / "fetch_encoders" / "judges"
    shutil.copytree(world / "judges" / "small_clip", pipeline / "small_clip")
    monkeypatch.chdir(tmp_path)
    file = world / "judges" / "inception" / INCEPTION_FILE
    fetched = lambda folder: str(shutil.copy(file, folder))
    monkeypatch.setattr("stylegan_t.stages.pretrained.check_download_inception", fetched)
    found = value_of(
        measured(world, tmp_path / "work", **few(world) | {"judges": None, "protocol": str(world / "both.yaml")})
    )
    assert found["kid4_reals_clean"] is not None
    assert found["cmmd_small_clip_4_reals"] is not None
    assert sorted(each.name for each in pipeline.iterdir()) == ["small_clip"], "DVC's folder is not touched"


def test_the_same_file_is_not_copied_again_and_another_one_is(world, tmp_path, monkeypatch):
    given = tmp_path / INCEPTION_FILE
    shutil.copyfile(world / "judges" / "inception" / INCEPTION_FILE, given)
    fetched: list[str] = []
    fetch = measure.fetch_judge
    monkeypatch.setattr(measure, "fetch_judge", lambda *arguments: fetched.append("") or fetch(*arguments))
    own = few(world) | {"protocol": str(world / "inception.yaml"), "weights": {"inception": given}}
    first = measured(world, tmp_path / "work", **own)
    measured(world, tmp_path / "work", **own)
    assert len(fetched) == 1
    save_inception(tmp_path, seed=7)
    other = measured(world, tmp_path / "work", **own)
    assert len(fetched) == 2
    assert value_of(first)["kid4_reals_clean"] != value_of(other)["kid4_reals_clean"]


def test_a_weights_file_that_is_no_such_network_is_named(world, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no network at all")
    with pytest.raises(DataError, match=r"--weights inception=.*bad\.pt: .*not clean-fid's Inception"):
        measured(
            world, tmp_path / "work", protocol=str(world / "inception.yaml"), weights={"inception": tmp_path / "bad.pt"}
        )


# ---- errors in words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": None}, SettingsError, "give --model DIR or --images DIR, one of them"),
        ({"model": Path("model")}, SettingsError, "give --model DIR or --images DIR, one of them"),
        ({"psi": 3.0, "images": None, "model": Path("model")}, SettingsError, "psi 3: 0"),
        ({"psi": 0.5}, SettingsError, "--psi: of a model's pictures"),
        ({"num_images": 9}, SettingsError, "--num-images: of a model's pictures"),
        ({"protocol": "coco"}, SettingsError, "'coco': unknown; use coco256, coco64, quick, shapes"),
        (
            {"weights": {"vgg": Path("vgg.pt")}},
            SettingsError,
            "--weights vgg=…: the protocol names no such judge; use inc",
        ),
        (
            {"weights": {"inception": Path("x.pt")}},
            SettingsError,
            r"--weights inception.weights = 'x\.pt': no such file",
        ),
        ({"images": Path("nowhere")}, DataError, "nowhere: no such folder"),
        ({"against": Path("nowhere")}, DataError, "nowhere: no such folder"),
        ({"judges": Path("nowhere")}, DataError, "nowhere: no such folder of judges"),
        ({"captions": Path("nowhere.txt")}, SettingsError, r"nowhere\.txt: cannot read"),
        ({"images": None, "model": Path("nowhere")}, DataError, "nowhere"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_before_anything_is_seen(world, tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as told:
        measure.measure(request(world, tmp_path / "work", **changes))
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "work").glob("*/*.safetensors"))


@pytest.mark.parametrize("which", ["images", "against"])
def test_a_single_picture_is_no_set(world, tmp_path, which):
    write_pictures(tmp_path / "one", random_pictures(1))
    with pytest.raises(DataError, match="one: 1 picture; a set of at least 2"):
        measured(world, tmp_path / "work", **{which: tmp_path / "one"})


def test_a_file_of_captions_with_another_number_of_lines_is_told(world, tmp_path):
    (tmp_path / "captions.txt").write_text("a cat\na dog\n")
    with pytest.raises(SettingsError, match=r"2 captions for 20 pictures in .*a; write one a line"):
        measured(world, tmp_path, captions=tmp_path / "captions.txt")


def test_a_damaged_picture_is_named(world, tmp_path):
    broken = Path(shutil.copytree(world / "a", tmp_path / "broken"))
    (broken / "00003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"00003\.png: not a readable picture"):
        measured(world, tmp_path / "work", images=broken)


def test_a_model_that_paints_no_numbers_is_named_with_the_prompt(world, tmp_path):
    broken = Path(shutil.copytree(world / "model", tmp_path / "broken"))
    weights = load_file(broken / "generator.safetensors")
    weights["mapping.w_avg"] = torch.full_like(weights["mapping.w_avg"], float("nan"))
    save_file(weights, broken / "generator.safetensors")
    with pytest.raises(DataError, match=r"broken: the picture of 'a picture of \d+ things' at psi 0\.5 holds NaN"):
        measured(world, tmp_path / "work", images=None, model=broken, psi=0.5)


def test_real_pictures_without_captions_need_a_file_of_prompts(world, tmp_path):
    model = {"images": None, "model": world / "model", "against": world / "a"}
    with pytest.raises(SettingsError, match="no captions to paint; give --captions FILE"):
        measured(world, tmp_path / "work", **model)
    (tmp_path / "captions.txt").write_text("a cat\na dog\na fish\n")
    assert measured(world, tmp_path / "work", captions=tmp_path / "captions.txt", **model).count == 3


def test_where_no_judge_is_there_every_reason_is_told(world, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no judge is there: small_clip: no judge 'small_clip' in none/"):
        measured(world, tmp_path / "work", judges=tmp_path / "none")


@pytest.mark.parametrize("given", ["inception", "=file.pt", "inception="])
def test_weights_are_pairs_of_name_and_file(given):
    assert measure.parse_weights(["a=b=c.pt"]) == {"a": Path("b=c.pt")}
    with pytest.raises(SettingsError, match="write NAME=FILE"):
        measure.parse_weights([given])


def test_what_was_seen_is_kept_in_the_workspace_or_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert measure.default_work() == Path("/somewhere/stylegan-t")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert measure.default_work() == Path.home() / ".cache" / "stylegan-t"
    (tmp_path / "params.yaml").touch()
    assert measure.default_work() == Path(".state/evaluate_by_hand")


def test_the_table_has_what_leads_first_flags_and_reasons(world, tmp_path):
    found = measured(world, tmp_path)
    first = found.measurements[0].model_copy(update={"in_training": True})
    found = found.model_copy(update={"subject": "run[bold]", "measurements": [first, *found.measurements[1:]]})
    console = Console(width=200, record=True, file=io.StringIO())
    measure.show(found, console)
    text = console.export_text()
    assert "run[bold], protocol mine.yaml, 20 pictures" in text
    assert "its network took part in the training" in text
    assert text.index("cmmd_small_clip_20_reals") < text.index("fd_small_clip_20_reals"), "few pictures"
    assert "20 pictures are few for it" in text
    names = ("clip_score_cosine", "clip_score_of_wrong_captions_cosine", "retrieval_1_of_32")
    assert f"absent: {', '.join(f'{name}_small_clip_20_reals' for name in names)}: " in text

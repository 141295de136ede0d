"""Every setting of the evaluation, and of a protocol, has the effect that its description promises."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import yaml

from stylegan_t.data.shards import Shards
from stylegan_t.errors import SettingsError
from stylegan_t.evaluation import oracle_metrics
from stylegan_t.evaluation.pictures import captions_sha256, choose_captions
from stylegan_t.models.generator import Generator
from stylegan_t.models.judges import ClipFeatures
from stylegan_t.records import Neighbours, SampleSheet, read_record
from stylegan_t.settings.evaluation import Evaluate, ReferenceStatistics
from stylegan_t.settings.protocol import BestOf, Protocol
from stylegan_t.stages import evaluate, reference_statistics
from tests.evaluation.outputs import copy_of, evaluations, metrics, output, table
from tests.evaluation.world import few, heldout_samples, make_world, micro_config, small_exams
from tests.settings_fields import leaves

COPIES = {"num_samples": 12, "num_shown": 4, "num_neighbours": 3, "max_training_images": 25}
CHANGED: dict[str, Any] = {
    "protocol": "mine.yaml",
    "against": "elsewhere",
    "num_images": 36,
    "num_psi_images": 24,
    "psi": [0.75, 0.25, 0.0],
    "num_seeds": 2,
    "prompt_set": "prompts.txt",
    "num_prompts": 2,
    "num_oracle_prompts": 5,
    "copies": COPIES,
    "batch_size": 10,
}
"""Other values of all settings of the stage, than those of ``micro_config``."""


def test_no_setting_is_left_out():
    changed = {name for name in CHANGED if name != "copies"} | {f"copies.{name}" for name in COPIES}
    assert changed | {"stages"} == set(leaves(Evaluate))
    assert set(leaves(ReferenceStatistics)) == {"batch_size"}
    assert {*OF_PROTOCOL, "description", "judges"} == set(leaves(Protocol)), "the last for `stylegan-t evaluate` alone"
    assert set(OF_PROTOCOL["best_of"]) == set(leaves(BestOf))


@pytest.fixture(autouse=True, scope="module")
def quick():
    with small_exams():
        yield


def measured(workspace, values):
    """Run both stages; the workspace, with the sizes of passes and examinations that they made."""
    seen: dict[str, set[int]] = {"real": set(), "painted": set(), "read": set()}
    config = micro_config(**values).model_dump()
    config["reference_statistics"]["batch_size"] = values.get("batch_size", 64) - 3
    config = type(micro_config()).model_validate(config)

    def note(patch, owner, name: str, what: str, argument: int) -> None:
        function = getattr(owner, name)
        patch.setattr(owner, name, lambda *a, **k: (seen[what].add(len(a[argument])), function(*a, **k))[1])

    with pytest.MonkeyPatch.context() as patch:
        note(patch, ClipFeatures, "forward", "real", 1)
        reference_statistics.run(config, workspace, "cpu")
    with pytest.MonkeyPatch.context() as patch:
        note(patch, Generator, "forward", "painted", 1)
        note(patch, oracle_metrics, "accuracies", "read", 0)
        evaluate.run(config, workspace, "cpu")
    return workspace, seen


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return measured(make_world(tmp_path_factory.mktemp("usual")), {})


@pytest.fixture(scope="module")
def changed(usual, tmp_path_factory):
    workspace = copy_of(usual[0], tmp_path_factory.mktemp("changed"))
    folder = workspace.root / "elsewhere"
    folder.mkdir()
    others = heldout_samples(50, seed=5)
    for each in others:
        (folder / f"{each.key}.png").write_bytes(each.image)
    lines = [json.dumps({"file_name": f"{each.key}.png", "text": each.caption}) for each in others]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (workspace.root / "mine.yaml").write_text(yaml.safe_dump(few()))
    (workspace.root / "prompts.txt").write_text("a red star\na blue star\na green star\n")
    return measured(workspace, CHANGED)


def all_told(world) -> dict[str, Any]:
    """What the outputs tell of each setting."""
    workspace, seen = world
    sweep, stages = table(workspace, "psi_sweep.csv"), table(workspace, "stages.csv")
    nearest = read_record(output(workspace, "nearest.json"), Neighbours)
    sheet = read_record(output(workspace, "samples.json"), SampleSheet)
    assert nearest and sheet
    return {
        "protocol": {each.protocol for each in evaluations(workspace)},
        "against": metrics(workspace)["protocol"]["num_reals"],
        "num_images": {row["num_images"] for row in stages},
        "num_psi_images": {row["num_images"] for row in sweep},
        "psi": [float(row["psi"]) for row in sweep if row["stage"] == "train_generator"],
        "num_seeds": len(stages) / 3,
        "prompt_set": sheet.prompts[0],
        "num_prompts": len(sheet.prompts),
        "num_oracle_prompts": seen["read"],
        "copies": {
            "num_samples": nearest.num_samples,
            "num_shown": len(nearest.prompts),
            "num_neighbours": len(nearest.neighbours[0]),
            "max_training_images": nearest.num_training,
        },
        "batch_size": max(seen["painted"]),
        "batch_size of reals": max(seen["real"]),
    }


def test_every_setting_of_the_stages_has_its_effect(usual, changed):
    before, after = all_told(usual), all_told(changed)
    assert after == CHANGED | {
        "protocol": {"mine.yaml"},
        "against": 50,
        "num_images": {"36"},
        "num_psi_images": {"24"},
        "prompt_set": "a red star",
        "num_oracle_prompts": {5},
        "batch_size": 10,
        "batch_size of reals": 7,
    }
    same = [name for name in after if before[name] == after[name]]
    assert same == [], "no effect can be told of what was the same before"
    assert not [name for name in COPIES if before["copies"][name] == after["copies"][name]]


def test_only_the_stages_that_are_named_are_measured_and_the_last_of_them_is_the_final_one(usual, tmp_path):
    workspace = copy_of(usual[0], tmp_path)
    for later in ("finetune_text_encoder", "train_super_resolution"):
        shutil.rmtree(workspace.artifacts(later))
    config = micro_config(stages=["train_generator"])
    reference_statistics.run(config, workspace, "cpu")
    evaluate.run(config, workspace, "cpu")
    assert [row["stage"] for row in table(workspace, "stages.csv")] == ["train_generator"]
    now, before = (table(world, "stages.csv")[0] for world in (workspace, usual[0]))
    assert {name: now[name] for name in before if "best_of" not in name} == {
        name: value for name, value in before.items() if "best_of" not in name
    }, "only the final model paints several pictures of a prompt"
    found, whole = metrics(workspace), metrics(usual[0])
    assert found["stages"] == found["stage_two_against_one"] == {}
    first = {name: value for name, value in whole["stages"]["train_generator"].items() if "best_of" not in name}
    assert {name: found[name] for name in first} == first
    assert not (workspace.artifacts("evaluate") / "plots" / "text_encoder.png").exists()


def test_stages_out_of_order_are_refused():
    with pytest.raises(SettingsError, match=r"evaluate\.stages = .*in this order: train_generator, finetune_text"):
        micro_config(stages=["finetune_text_encoder", "train_generator"])


# ---- of a protocol -----------------------------------------------------------------------------------------------

MEASURES = [{"judge": "small_clip", "resize": None, "metrics": ["kernel", "clip_score", "best_of"]}]
OF_PROTOCOL: dict[str, Any] = {
    "reference": "drawn",
    "reference_count": 60,
    "image_px": 16,
    "num_images": 35,
    "captions": "one_per_image",
    "caption_seed": 3,
    "scale": "x100",
    "best_of": {"num_prompts": 3, "num_pictures": 3},
    "measures": MEASURES,
}
SMALL = {"num_images": None, "num_psi_images": 20}


@pytest.fixture(scope="module")
def other_protocol(usual, tmp_path_factory):
    workspace = copy_of(usual[0], tmp_path_factory.mktemp("protocol"))
    (workspace.root / "few.yaml").write_text(yaml.safe_dump(few(**OF_PROTOCOL)))
    workspace, _ = measured(workspace, SMALL)
    return workspace


def test_every_setting_of_a_protocol_has_its_effect(other_protocol):
    final = next(e for e in evaluations(other_protocol) if e.subject == "train_super_resolution")
    assert (final.reference, final.px, final.count) == ("drawn", 16, 35)
    value = {m.name: m for m in final.measurements}
    assert list(value) == [
        "kd_small_clip_35_drawn16", "clip_score_x100_small_clip_35_drawn16",
        "clip_score_of_wrong_captions_x100_small_clip_35_drawn16", "clip_score_best_of_3_x100_small_clip_3_drawn16",
    ]  # fmt: skip
    assert value["kd_small_clip_35_drawn16"].uncertainty == "jackknife over 35 pictures"
    score = value["clip_score_x100_small_clip_35_drawn16"].value
    assert score is not None and 1 < abs(score) <= 100


def test_the_captions_of_a_protocol_are_chosen_as_it_says(usual, other_protocol):
    said = [[sample.caption] for sample in Shards(usual[0].prepared / "heldout")]
    painted = [next(e.captions_sha256 for e in evaluations(each)) for each in (usual[0], other_protocol)]
    assert painted == [
        captions_sha256(choose_captions(said, "all", 40, seed=0)),
        captions_sha256(choose_captions(said, "one_per_image", 35, seed=3)),
    ]


@pytest.mark.parametrize(("protocol", "count"), [({"num_images": 33}, 33), ({"num_images": None}, 60)])
def test_without_a_number_in_the_settings_the_protocols_counts_and_without_one_there_all_captions(
    usual, tmp_path, protocol, count
):
    workspace = copy_of(usual[0], tmp_path)
    (workspace.root / "few.yaml").write_text(yaml.safe_dump(few(**protocol, measures=MEASURES)))
    evaluate.run(micro_config(**SMALL), workspace, "cpu")
    assert metrics(workspace)["protocol"]["num_images"] == count

"""The evaluation stage again, stopped, by several processes, on other data; and what it refuses."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from stylegan_t.data.images import decode_batch, to_signed
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError, InUse, SettingsError
from stylegan_t.evaluation import sets
from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.fakes import Painted
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import captions_sha256, choose_captions
from stylegan_t.evaluation.sets import Share
from stylegan_t.metrics.moments import Moments, frechet_distance
from stylegan_t.models.bundle import load_bundle
from stylegan_t.models.encoder_files import load_clip
from stylegan_t.models.judges import save_absent
from stylegan_t.randomness import image_seeds
from stylegan_t.records import Neighbours, SampleSheet, read_record
from stylegan_t.sampling import embed, sample
from stylegan_t.stages import evaluate, reference_statistics
from stylegan_t.stages.examination import Examination
from tests.evaluation.outputs import copy_of, evaluations, metrics, output, outputs
from tests.evaluation.world import (
    PROTOCOL,
    few,
    folder_config,
    heldout_samples,
    make_world,
    micro_config,
    pairs_config,
    save_tiny_clip,
    small_exams,
    write_prepared,
)
from tests.imports import ROOT

STAGES = ["train_generator", "finetune_text_encoder", "train_super_resolution"]
FD = "fd_small_clip_40_shapes32"


@pytest.fixture(autouse=True, scope="module")
def quick():
    """As in a small exam, and in small parts, so that a set has several."""
    with small_exams(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "PART", 16)
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    workspace = make_world(tmp_path_factory.mktemp("world"))
    reference_statistics.run(micro_config(), workspace, "cpu")
    evaluate.run(micro_config(), workspace, "cpu")
    return workspace


@pytest.fixture
def world(evaluated, tmp_path):
    """The same before the evaluation, for each test anew."""
    return copy_of(evaluated, tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """Numbers of the painted pictures that were read, a list for each call."""
    calls, read = [], Painted.read

    def noted(self, numbers):
        pictures = read(self, numbers)
        calls.append((self.name, self.psi, *numbers))
        return pictures

    monkeypatch.setattr(Painted, "read", noted)
    return calls


# ---- again, stopped, shared --------------------------------------------------------------------------------------


def test_another_run_writes_the_same_bytes_and_leaves_no_grid_of_an_earlier_one(evaluated):
    before = outputs(evaluated)
    assert {"metrics.json", "stages.csv", "psi_sweep.csv", "samples.json", "evaluations.jsonl"} < set(before)
    assert {"plots/text_encoder.png", "nearest.json", "nearest.webp"} < set(before)
    output(evaluated, "samples/psi_0.33.webp").write_bytes(b"of settings since changed")
    evaluate.run(micro_config(), evaluated, "cpu")
    assert outputs(evaluated) == before


def test_a_killed_run_goes_on_with_the_parts_that_it_finished_and_writes_the_same_bytes(
    evaluated, world, reads, monkeypatch
):
    evaluate.run(micro_config(), copy_of(evaluated, world.root / "unbroken"), "cpu")
    unbroken = list(reads)
    reads.clear()
    look, looks = sets.save_file, []

    def dies_in_the_fifth_part(rows, path):
        looks.append(path)
        if len(looks) == 5:
            raise KeyboardInterrupt
        look(rows, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sets, "save_file", dies_in_the_fifth_part)
        evaluate.run(micro_config(), world, "cpu")
    assert not world.artifacts("evaluate").exists()
    stopped = list(reads)
    reads.clear()
    evaluate.run(micro_config(), world, "cpu")
    kept = [call for call in stopped if call not in reads]
    assert len(kept) == 3, "parts of 16, 16 and 8 pictures; then captions, of which the second part was lost"
    assert kept + reads == unbroken
    assert outputs(world) == outputs(evaluated)
    assert not world.state("evaluate", "sets").exists(), "parts go when the output is there"


def test_two_processes_share_the_pictures_and_write_the_bytes_of_one(evaluated, world, reads, monkeypatch):
    met = []
    monkeypatch.setattr(Share, "wait_for_all", lambda share: met.append(share.rank))  # one after the other here
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    evaluate.run(micro_config(), world, "cpu")
    assert not world.artifacts("evaluate").exists()
    of_second = list(reads)
    reads.clear()
    monkeypatch.setenv("RANK", "0")
    evaluate.run(micro_config(), world, "cpu")
    assert {call[2] for call in of_second} == {16}, "of three parts the second"
    assert not set(of_second) & set(reads)
    assert outputs(world) == outputs(evaluated)
    assert met == [1, 0], "parts go only when every process is through"


def test_a_run_afresh_looks_at_everything_again(world, reads, monkeypatch):
    monkeypatch.setattr(Examination, "examine", interrupted)
    of_runs = []
    for afresh in (False, False, True):
        reads.clear()
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(micro_config(), world, "cpu", afresh=afresh)
        of_runs.append(list(reads))
    first, again, anew = of_runs
    assert (again, anew) == ([], first) and first


def interrupted(*arguments):
    raise KeyboardInterrupt


@contextmanager
def in_another_process(folder):
    """Another process is alone in the folder."""
    code = (
        "import sys; from pathlib import Path; from stylegan_t.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print(flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, **pipes) as process:
        assert process.stdout and process.stdout.readline()
        yield
        process.communicate(b"\n")


def test_two_at_once_in_one_workspace_are_refused(world):
    with in_another_process(world.state("evaluate")), pytest.raises(InUse, match=r"evaluate: process \d+ works in it"):
        evaluate.run(micro_config(), world, "cpu")


# ---- other data --------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_is_measured_without_the_oracle(evaluated, world):
    evaluate.run(folder_config(), world, "cpu")
    assert not [name for name in metrics(world) if "oracle" in name or "spread" in name]
    assert metrics(world)[FD] == metrics(evaluated)[FD]
    sheet = read_record(output(world, "samples.json"), SampleSheet)
    captions = [s.caption for s in Shards(world.prepared / "heldout")]
    assert sheet.prompts == list(dict.fromkeys(captions))[:3], "prompts of the data"


def test_pairs_of_figures_are_read_by_their_own_oracle(evaluated, world):
    evaluate.run(pairs_config(), world, "cpu")
    found = metrics(world)
    outcomes = [found[f"binding_{name}"] for name in ("correct", "swapped", "misplaced", "missing", "wrong")]
    assert sum(outcomes) == pytest.approx(1)
    assert found["binding_correct_of_data"] > 0.8
    assert found["stage_two_against_one"]["binding_correct_gain"] == 0


def test_models_are_measured_against_the_folder_that_the_settings_name(evaluated, world, monkeypatch):
    looked, at_meeting, look, meet = [], [], Panel.look, Evaluator.meet
    monkeypatch.setattr(Panel, "look", lambda *a: (looked.append(1), look(*a))[1])
    monkeypatch.setattr(Evaluator, "meet", lambda self: (at_meeting.append(len(looked)), meet(self))[1])
    others = heldout_samples(50, seed=5)
    folder = world.root / "elsewhere"
    folder.mkdir()
    for each in others:
        (folder / f"{each.key}.png").write_bytes(each.image)
    lines = [json.dumps({"file_name": f"{each.key}.png", "text": each.caption}) for each in others]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    config = micro_config(against="elsewhere")
    reference_statistics.run(config, world, "cpu")
    evaluate.run(config, world, "cpu")
    assert at_meeting[-1] == len(looked), "all is seen before the processes part, the held-out pictures too"
    assert metrics(world)["protocol"]["num_reals"] == 50
    final = next(e for e in evaluations(world) if e.subject == STAGES[2] and e.count == 40)
    captions = choose_captions([[each.caption] for each in others], "all", 40, seed=0)
    assert final.captions_sha256 == captions_sha256(captions)
    bundle, judge = load_bundle(world.artifacts(STAGES[2])), load_clip(world.judges / "small_clip")
    images = sample(bundle.generator, embed(bundle.text_encoder, captions), image_seeds(0, "evaluate 0", 0, 40))
    both = (judge.encode_image(to_signed(i)) for i in (images, decode_batch([each.image for each in others])))
    assert metrics(world)[FD] == pytest.approx(frechet_distance(*map(Moments.of, both)), rel=1e-3)


# ---- few and odd data, and what is refused -----------------------------------------------------------------------


def test_with_fewer_training_pictures_than_neighbours_the_sheet_has_fewer_columns(world):
    write_prepared(world.prepared / "train", heldout_samples(2, seed=1))
    copies = {"num_samples": 10, "num_shown": 2, "num_neighbours": 3, "max_training_images": 30}
    evaluate.run(micro_config(copies=copies), world, "cpu")
    found = read_record(output(world, "nearest.json"), Neighbours)
    assert [len(row) for row in found.neighbours] == [2, 2]
    with Image.open(output(world, found.sheet)) as sheet:
        assert sheet.size == (3 * found.tile_px, 2 * found.tile_px)


def test_no_judge_at_all_is_refused_with_every_reason(world):
    save_absent(world.judges / "small_clip", "never made")
    save_absent(world.judges / "player", "nor this")
    message = (
        r"no judge that the protocol asks for.*small_clip: never made; player: nor this; inception_clean: no network"
    )
    for stage in (reference_statistics, evaluate):
        with pytest.raises(DataError, match=message):
            stage.run(micro_config(), world, "cpu")
    assert not world.artifacts("evaluate").exists()


def test_without_a_distance_or_a_score_there_are_no_curves(world):
    measures = [{"judge": "small_clip", "resize": None, "metrics": ["clip_score"]}]
    (world.root / PROTOCOL).write_text(yaml.safe_dump(few(measures=measures)))
    evaluate.run(micro_config(), world, "cpu")
    assert not [name for name in outputs(world) if name.startswith(("plots/", "vega/"))]
    assert list(metrics(world)["stage_two_against_one"]) == ["clip_score_gain", "mean_accuracy_gain"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "coco"}, "protocol 'coco': unknown; use coco256, coco64, quick, shapes, or the path of a file"),
        ({"prompt_set": "coco"}, r"evaluate\.prompt_set = 'coco'"),
    ],
)
def test_a_name_that_does_not_exist_stops_before_anything_is_written(world, changes, message):
    with pytest.raises(SettingsError, match=message):
        evaluate.run(micro_config(**changes), world, "cpu")
    assert not world.artifacts("evaluate").exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"num_psi_images": 50}, "num_psi_images = 50"), ({"copies": {"num_samples": 60}}, "copies.num_samples = 60")],
)
def test_more_pictures_than_the_protocol_paints_are_refused_with_both_counts_and_the_cure(world, changes, key):
    (world.root / PROTOCOL).write_text(yaml.safe_dump(few(num_images=45)))
    changes = {"copies": COPIES | changes.get("copies", {})} | {k: v for k, v in changes.items() if k != "copies"}
    message = (
        rf"evaluate\.{key}: the protocol few\.yaml paints 45 pictures here; use fewer, or set evaluate\.num_images"
    )
    with pytest.raises(DataError, match=message):
        evaluate.run(micro_config(num_images=None, **changes), world, "cpu")


COPIES = {"num_samples": 10, "num_shown": 2, "num_neighbours": 2, "max_training_images": 30}


def test_statistics_of_another_judge_are_refused(world):
    save_tiny_clip(world.judges / "small_clip", seed=9)
    with pytest.raises(DataError, match="made from another judge small_clip; run"):
        evaluate.run(micro_config(), world, "cpu")


def test_statistics_of_other_pictures_are_refused(world):
    write_prepared(world.prepared / "heldout", heldout_samples(50))
    with pytest.raises(DataError, match="made from another reals; run"):
        evaluate.run(micro_config(), world, "cpu")


def test_a_bundle_with_a_missing_tensor_is_named(world):
    with changed_weights(world, STAGES[1]) as weights:
        del weights["synthesis.input.weight"]
    with pytest.raises(DataError, match=r"finetune_text_encoder.*synthesis\.input\.weight missing"):
        evaluate.run(micro_config(), world, "cpu")


def test_a_model_that_diverged_is_named_with_the_prompt(world):
    with changed_weights(world, STAGES[2]) as weights:
        weights["synthesis.input.weight"][:] = float("nan")
    with pytest.raises(DataError, match=r"train_super_resolution: the picture of '.+' at psi 1 holds NaN"):
        evaluate.run(micro_config(), world, "cpu")


@contextmanager
def changed_weights(workspace, stage):
    file = workspace.artifacts(stage) / "generator.safetensors"
    weights = load_file(file)
    yield weights
    save_file(weights, file)


def test_real_pictures_without_captions_are_refused(world):
    for number, each in enumerate(heldout_samples(10)):
        (world.root / f"{number}.png").write_bytes(each.image)
    with pytest.raises(DataError, match="no captions to paint; see data/README.md"):
        evaluate.run(micro_config(against="."), world, "cpu")

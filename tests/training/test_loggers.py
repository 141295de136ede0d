"""TensorBoard and Weights & Biases: they tell what the log tells, and their failures end nothing."""

import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from stylegan_t import records
from stylegan_t.records import LogRecord, RunRecord
from stylegan_t.sampling import grid
from stylegan_t.training import loggers
from stylegan_t.training.checkpoint import newest_state
from stylegan_t.training.live import LiveFolder
from stylegan_t.training.loggers import TensorBoard, WeightsAndBiases, scalars
from stylegan_t.training.loop import train
from tests.training.players import settings
from tests.training.test_live import begun, line, output, pictures, warnings
from tests.training.test_loop import make_run

NIMG = [16, 32, 48, 64, 80]


def events(live: Path) -> EventAccumulator:
    found = EventAccumulator(str(live / "tensorboard"), size_guidance={IMAGES: 0})
    return found.Reload()


def steps(found: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in found.Scalars(tag)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train(make_run(folder, settings())) == 80
    return folder


def test_tensorboard_tells_what_the_log_tells(trained):
    lines = records.read_lines(trained / "live" / records.LOG, LogRecord)
    found = events(trained / "live")
    assert set(found.Tags()["scalars"]) == set(scalars(lines[0]))
    assert {"training/d_real", "training/resolution", "speed/images_per_second"} <= set(scalars(lines[0]))
    for tag in scalars(lines[0]):
        assert steps(found, tag) == NIMG == [round(1000 * each.kimg) for each in lines]
        told = [event.value for event in found.Scalars(tag)]
        assert told == pytest.approx([scalars(each)[tag] for each in lines], rel=1e-6)


def test_tensorboard_shows_the_sample_grids(tmp_path):
    live = begun(tmp_path)
    live.show(pictures(200), 0.016)
    (image,) = events(tmp_path).Images("samples")
    expected = np.asarray(grid(pictures(200), columns=3))
    (tmp_path / "shown.png").write_bytes(image.encoded_image_string)
    assert image.step == 16
    assert np.array_equal(np.asarray(Image.open(tmp_path / "shown.png")), expected)


@pytest.mark.parametrize(("resumed_at", "kept"), [(0.2, [100, 200, 300]), (0.0, [100])])
def test_a_resumed_run_hides_what_it_tells_again(tmp_path, resumed_at, kept):
    first = begun(tmp_path)
    first.show(pictures(1), 0.0)
    for kimg in (0.1, 0.2, 0.3, 0.4):
        first.log(line(kimg))
        first.show(pictures(1), kimg)
    time.sleep(1.1 - time.time() % 1)  # TensorBoard reads files in the order of the second in their names
    second = begun(tmp_path, resumed_at)
    if not resumed_at:
        second.show(pictures(1), 0.0)
    second.log(line(resumed_at + 0.1, images_per_second=99.0))
    found = events(tmp_path)
    assert steps(found, "training/d_real") == kept
    assert [event.value for event in found.Scalars("speed/images_per_second")][-1] == 99.0
    assert [event.step for event in found.Images("samples")] == [0, *kept[:-1]]


def test_what_is_told_is_on_the_disk_before_the_run_ends(tmp_path):
    begun(tmp_path).log(line(0.1))
    assert steps(events(tmp_path), "training/d_real") == [100]


def test_event_files_are_no_part_of_the_outputs(tmp_path):
    live = begun(tmp_path / "live")
    live.log(line(0.1))
    assert list((tmp_path / "live" / "tensorboard").iterdir())
    assert not [name for name in output(live, tmp_path / "output") if "tensorboard" in name]


def test_without_the_package_there_is_no_tensorboard_and_no_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    live = begun(tmp_path)
    live.log(line(0.1))
    assert not (tmp_path / "tensorboard").exists()
    assert warnings(caplog) == []


@pytest.mark.parametrize("method", ["begin", "log", "show", "finish"])
def test_a_logger_that_fails_is_named_once_and_training_goes_on_to_the_same_end(
    trained, tmp_path, monkeypatch, caplog, method
):
    calls = []

    def broken(self, *arguments: object) -> None:
        calls.append(method)
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(TensorBoard, method, broken)
    assert train(make_run(tmp_path, settings())) == 80
    assert calls == [method]
    (said,) = warnings(caplog)
    assert "TensorBoard" in said
    assert "RuntimeError: the server is gone" in said
    assert output(LiveFolder(tmp_path / "live", [], []), tmp_path / "output") == output(
        LiveFolder(trained / "live", [], []), trained / f"output-{method}"
    )


def test_one_logger_fails_and_the_other_goes_on(tmp_path, monkeypatch, wandb):
    monkeypatch.setattr(TensorBoard, "log", lambda *_: 1 / 0)
    live = begun(tmp_path, wandb_project="shapes")
    live.log(line(0.1))
    live.log(line(0.2))
    assert [step for _, step in wandb.logged] == [100, 200]


def test_an_interruption_is_no_failure_of_a_logger(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    live = begun(tmp_path)
    monkeypatch.setattr(TensorBoard, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        live.log(line(0.1))


def test_a_disk_without_room_for_the_log_ends_no_training_but_one_without_room_for_the_state_does(
    tmp_path, monkeypatch, caplog
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as without_log:
        without_log.setattr(records, "append_line", full)
        assert train(make_run(tmp_path / "log", settings())) == 80
    assert newest_state(tmp_path / "log", at_most=80) == 80
    assert len(warnings(caplog)) == 1

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(make_run(tmp_path / "state", settings()))


# ---- Weights & Biases: a stand-in of the package --------------------------------------------------------------


@dataclass
class StandIn:
    """What ``wandb`` was asked to do."""

    begun: list[dict[str, Any]] = field(default_factory=list)
    logged: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    finished: int = 0

    def init(self, **arguments: Any) -> SimpleNamespace:
        self.begun.append(arguments)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch) -> StandIn:
    stand_in, module = StandIn(), ModuleType("wandb")
    names = {"init": stand_in.init, "Image": lambda picture: ("image", picture.size), "__spec__": True}
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return stand_in


def test_weights_and_biases_is_told_what_the_log_tells(tmp_path, wandb):
    live = begun(tmp_path, wandb_project="shapes")
    live.show(pictures(1), 0.0)
    live.log(line(0.1, clamped=0.25))
    live.finish()
    assert wandb.logged == [
        ({"samples": ("image", (3 * 64, 2 * 64))}, 0),
        (scalars(line(0.1, clamped=0.25)), 100),
    ]
    assert wandb.finished == 1
    (begin,) = wandb.begun
    assert (begin["project"], begin["dir"], begin["resume"]) == ("shapes", str(tmp_path), "allow")


def test_a_resumed_training_is_the_same_run_there_and_a_fresh_one_another(tmp_path, monkeypatch, wandb):
    begun(tmp_path, wandb_project="shapes")
    begun(tmp_path, 0.1, wandb_project="shapes")
    begin = records.read_record(tmp_path / records.RUN, RunRecord)
    assert begin is not None
    records.write_record(tmp_path / records.RUN, begin.model_copy(update={"started": "2026-01-01T00:00:00+00:00"}))
    begun(tmp_path, wandb_project="shapes")
    first, resumed, fresh = (each["id"] for each in wandb.begun)
    assert first == resumed != fresh
    assert not set(first) & set("/\\#?%:")  # the service refuses these


def test_without_a_project_weights_and_biases_is_left_alone(tmp_path, wandb):
    begun(tmp_path).log(line(0.1))
    assert wandb.begun == []


def test_a_project_without_the_package_is_said_and_training_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    live = begun(tmp_path, wandb_project="shapes")
    live.log(line(0.1))
    (said,) = warnings(caplog)
    assert WeightsAndBiases.name in said
    assert "pip install 'wandb" in said
    assert caplog.records[0].levelno == logging.WARNING
    assert len(records.read_lines(tmp_path / records.LOG, LogRecord)) == 1

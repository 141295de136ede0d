"""What is no longer finite stops the run and is named, or sends it back to the last state with lower rates."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import torch

from stylegan_t import records
from stylegan_t.data.loader import Batch
from stylegan_t.errors import NotSaved, TrainingDiverged
from stylegan_t.records import LogRecord, read_lines
from stylegan_t.settings.training import Guard
from stylegan_t.training import checkpoint, loop
from stylegan_t.training.distributed import World
from stylegan_t.training.loop import train
from stylegan_t.training.meters import Means
from tests.training.players import BATCH, fetch, make_players, settings
from tests.training.test_loop import make_run

ALONE = World(torch.device("cpu"))
BAD = 56
"""The step that breaks begins at so many images; growing to 16 px comes at 32, the state before at 48."""


def guarded(times: int):
    return settings(guard=Guard(max_rollbacks=times, rollback_lr_factor=0.25).model_dump())


def breaking(times: int):
    """Batches that are not finite, the first ``times`` times that the image numbered BAD comes by."""
    left = [times]

    def batches(nimg: int) -> Iterator[Batch]:
        for number, batch in enumerate(fetch(nimg)):
            if nimg + BATCH * number == BAD and left[0]:
                left[0] -= 1
                yield batch._replace(c=torch.full_like(batch.c, float("nan")))
            else:
                yield batch

    return batches


def test_it_stops_naming_the_step_the_terms_and_the_last_good_state(tmp_path):
    with pytest.raises(TrainingDiverged) as raised:
        train(make_run(tmp_path, settings(), fetch=breaking(1)))
    said = str(raised.value)
    assert "at 0.056 kimg" in said and "0.048 kimg is good" in said
    assert "d_real" in said and "g_grad_norm" in said
    assert raised.value.exit_code == 1


def test_a_gradient_that_is_not_finite_is_found_though_the_losses_are(tmp_path):
    players = make_players(settings())
    heads = list(players.discriminator.heads.parameters())
    heads[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingDiverged, match=r"at 0\.000 kimg: not finite: d_grad_norm"):
        train(make_run(tmp_path, settings(), players))


def test_the_state_before_it_is_whole_and_later_ones_are_not_written(tmp_path):
    with pytest.raises(TrainingDiverged):
        train(make_run(tmp_path, settings(), fetch=breaking(1)))
    assert sorted(path.name for path in tmp_path.glob("*.pt"))[-1] == "state-000000000048.pt"


def test_a_rollback_goes_back_and_on_with_lower_rates(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert train(make_run(tmp_path, guarded(1), fetch=breaking(1))) == 80
    assert "rollback 1 of 1" in caplog.text
    plain = tmp_path / "plain"
    train(make_run(plain, settings()))
    found, expected = (read_lines(folder / "live" / records.LOG, LogRecord) for folder in (tmp_path, plain))
    assert [line.kimg for line in found] == [line.kimg for line in expected]
    for line, other in zip(found, expected, strict=True):
        factor = 0.25 if line.kimg > 0.048 else 1.0
        assert line.terms["generator_lr"] == pytest.approx(factor * other.terms["generator_lr"])
        assert line.terms["discriminator_lr"] == pytest.approx(factor * other.terms["discriminator_lr"])


def test_no_more_rollbacks_than_allowed(tmp_path):
    with pytest.raises(TrainingDiverged, match="at 0.056 kimg"):
        train(make_run(tmp_path, guarded(2), fetch=breaking(3)))
    assert len(json.loads((tmp_path / "rollbacks.json").read_text())) == 2


def test_one_to_before_a_growing_step_takes_the_blocks_away_again(tmp_path):
    config = guarded(1).model_copy(update={"save_every_kimg": 1.0})  # the only state is that at 0 images, at 8 px
    run = make_run(tmp_path, config, fetch=breaking(1))
    assert train(run) == 80
    assert run.players.generator.resolution == 16
    sizes = [grid.resolution for grid in run.live._sheet_grids()]
    assert sizes == [8, 8, 16, 16, 16]


def test_a_resumed_run_remembers_its_rollbacks(tmp_path):
    with pytest.raises(TrainingDiverged):
        train(make_run(tmp_path, guarded(1), fetch=breaking(2)))
    run = make_run(tmp_path, guarded(2), fetch=breaking(0))
    assert train(run) == 80
    assert run.players.optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * 0.01 * (1 - 0.5 * 0.9))


def test_starting_afresh_forgets_states_and_rollbacks(tmp_path):
    with pytest.raises(TrainingDiverged):
        train(make_run(tmp_path, guarded(1), fetch=breaking(2)))
    run = make_run(tmp_path, guarded(1), make_players(settings()), resume="never")
    assert train(run) == 80
    plain = make_run(tmp_path / "plain", guarded(1))
    train(plain)
    expected = plain.players.generator.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in run.players.generator.state_dict().items())


def test_torchrun_s_further_starts_do_not_forget_what_the_first_one_saved(tmp_path):
    with pytest.raises(TrainingDiverged):
        train(make_run(tmp_path, settings(), resume="never", fetch=breaking(1)))
    train(make_run(tmp_path, settings(), resume="never", world=World(torch.device("cpu"), restarted=True)))
    run = records.read_record(tmp_path / "live" / records.RUN, records.RunRecord)
    assert run is not None and run.resumed == [0.048]


def test_a_first_state_that_cannot_be_written_is_not_said_to_be_whole(tmp_path, monkeypatch):
    def full(state, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(NotSaved, match=r"state-0+\.pt: the state could not be written \(No space left on device\)$"):
        train(make_run(tmp_path, settings()))


def test_a_state_that_must_be_there_and_is_not_is_an_error(tmp_path):
    with pytest.raises(loop.DataError, match=r"no state to go on from; --resume auto"):
        train(make_run(tmp_path, settings(), resume="must"))


def test_means_are_sums_over_steps_and_survive_a_save():
    means, values = Means(ALONE), [{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": -1.0}, {"a": 2.0, "b": 2.0}]
    for number, each in enumerate(values[:2]):
        means.add({name: torch.tensor(value) for name, value in each.items()}, 8 * number)
    resumed = Means(ALONE)
    resumed.load_state_dict(json.loads(json.dumps(means.state_dict())))
    for each in (means, resumed):
        each.add({name: torch.tensor(value) for name, value in values[2].items()}, 16)
        assert each.take() == {"a": 2.0, "b": 2.0}
    means.add({"a": torch.tensor(7.0), "b": torch.tensor(0.0)}, 24)
    assert means.take() == {"a": 7.0, "b": 0.0}


def test_the_first_step_that_was_not_finite_is_the_one_named():
    means = Means(ALONE)
    for nimg, (a, b) in enumerate([(1.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0), (1.0, 1.0)]):
        means.add({"a": torch.tensor(a), "b": torch.tensor(b)}, 1000 * nimg)
    with pytest.raises(TrainingDiverged, match=r"at 1\.000 kimg: not finite: b;"):
        means.check(None)

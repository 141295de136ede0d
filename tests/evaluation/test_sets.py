"""What judges saw lies in parts: made once, by anyone, and read one at a time."""

from __future__ import annotations

import subprocess
import sys
import weakref

import pytest
import torch

from stylegan_t.errors import DataError
from stylegan_t.evaluation import sets
from stylegan_t.evaluation.sets import MOST_FEATURES, PART, Seen, Share, part_path, see, spans, summary
from stylegan_t.metrics.moments import Moments
from stylegan_t.progress import Progress
from tests.imports import ROOT

CPU = torch.device("cpu")
MEET = "torch.distributed.run --standalone --nproc-per-node 2 --module tests.evaluation.meetings 10"


class Looking:
    """Features that tell the picture's number, and notes of what was looked at."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.spans: list[range] = []
        self.fail_at = fail_at

    def __call__(self, span: range) -> dict[str, torch.Tensor]:
        if self.fail_at is not None and self.fail_at in span:
            raise KeyboardInterrupt
        self.spans.append(span)
        number = torch.arange(span.start, span.stop).float()
        return {"judge": torch.stack([number, number.sin()], dim=1)}


def test_every_picture_is_in_one_part_and_rows_come_in_their_order(tmp_path):
    count = 2 * PART + 7
    assert [i for span in spans(count) for i in span] == list(range(count))
    seen = see(tmp_path, count, Looking(), Share())
    assert seen.rows("judge")[:, 0].tolist() == list(range(count))
    assert seen.rows("judge", PART + 3)[:, 0].tolist() == list(range(PART + 3))
    assert seen.rows("judge", 10 * count)[:, 0].tolist() == list(range(count))


def test_who_was_stopped_goes_on_with_the_parts_that_are_left(tmp_path):
    stopped = Looking(fail_at=PART)
    with pytest.raises(KeyboardInterrupt):
        see(tmp_path, 3 * PART, stopped, Share())
    again, never = Looking(), Looking()
    see(tmp_path, 3 * PART, again, Share())
    assert again.spans == spans(3 * PART)[1:]
    see(tmp_path, 3 * PART, never, Share())
    assert never.spans == []


def test_processes_share_the_parts_and_the_first_one_makes_what_others_left_out(tmp_path):
    first, second, alone = Looking(), Looking(), Looking()
    see(tmp_path, 4 * PART, first, Share(0, 2))
    see(tmp_path, 4 * PART, second, Share(1, 2))
    assert first.spans == spans(4 * PART)[::2]
    assert second.spans == spans(4 * PART)[1::2]
    part_path(tmp_path, 3).unlink()
    seen = see(tmp_path, 4 * PART, alone, Share())
    assert alone.spans == spans(4 * PART)[3:], "lost on its way, say"
    assert seen.rows("judge")[:, 0].tolist() == list(range(4 * PART))


def test_a_process_knows_its_share_from_torchrun(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Share.of_torchrun() == Share(0, 1, 0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Share.of_torchrun() == Share(5, 8, 1)


def test_progress_counts_every_picture_whoever_looked(tmp_path):
    progress = Progress("test", 10, shown=False)
    see(tmp_path, PART + 3, Looking(), Share(), progress)
    see(tmp_path, PART + 3, Looking(), Share(), progress)
    assert progress.done == 2 * (PART + 3)


def test_a_damaged_part_is_named_with_its_cure(tmp_path):
    seen = see(tmp_path, 3, Looking(), Share())
    part_path(tmp_path, 0).write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"00000\.safetensors: damaged .*delete it"):
        seen.rows("judge")


def test_a_summary_has_the_moments_of_all_and_the_features_of_the_first(tmp_path):
    seen = see(tmp_path, PART + 9, Looking(), Share())
    rows = seen.rows("judge")
    found = summary(seen, "judge", CPU)
    torch.testing.assert_close(found.streamed.moments.covariance, Moments.of(rows).covariance)
    assert torch.equal(found.features, rows)
    few = summary(seen, "judge", CPU, limit=20)
    assert torch.equal(few.features, rows[:20])
    assert few.streamed.moments.count == 20
    odd = summary(seen, "judge", CPU, every=(1, 2))
    assert torch.equal(odd.features, rows[1::2])
    assert odd.streamed.moments.count == len(rows[1::2])


def test_memory_does_not_grow_with_the_pictures(tmp_path, monkeypatch):
    """One part is held at a time, and of 20,000 pictures no more than 10,000 raw features stay."""
    held: list[weakref.ref] = []
    most = 0

    def counted(path):
        nonlocal most
        start = int(path.stem) * PART
        rows = torch.randn(PART, 4, generator=torch.Generator().manual_seed(start))
        held.append(weakref.ref(rows))
        most = max(most, sum(each() is not None for each in held))
        return {"judge": rows}

    monkeypatch.setattr(sets, "read_part", counted)
    found = summary(Seen(tmp_path, 20_000), "judge", CPU)
    assert len(held) == 40
    assert len(found.features) == MOST_FEATURES == 10_000
    assert found.streamed.moments.count == 20_000
    assert most <= 3
    assert sum(each() is not None for each in held) <= 1


def test_the_raw_features_that_stay_are_spread_evenly_over_the_set(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "MOST_FEATURES", 300)
    numbers = torch.arange(1200, dtype=torch.float32)[:, None]
    made = see(tmp_path, 1200, lambda span: {"judge": numbers[span.start : span.stop]}, Share())
    assert summary(made, "judge", CPU).features[:, 0].tolist() == list(range(0, 1200, 4))
    assert summary(made, "judge", CPU, limit=299).features[:, 0].tolist() == list(range(299))
    odd = summary(made, "judge", CPU, limit=900, every=(1, 2)).features[:, 0]
    assert len(odd) == 300
    assert odd[:4].tolist() == [1, 5, 7, 11]
    assert odd[-1] == 899


@pytest.mark.slow
def test_processes_can_meet_as_often_as_they_like():
    """torchrun's store still has the addresses of the meeting before."""
    done = subprocess.run([sys.executable, "-m", *MEET.split()], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

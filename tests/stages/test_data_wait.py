"""Training does not wait for its data."""

import statistics

import pytest

from stylegan_t.profile import profile_values
from stylegan_t.records import LIVE, LOG, LogRecord, read_lines
from stylegan_t.stages import train_generator
from tests.stages.training_world import config, make_world

SHARE = 0.05


@pytest.mark.slow
def test_at_tiny_at_most_a_twentieth_of_a_step_is_spent_waiting(tmp_path):
    """The networks beside the generator are smaller than tiny's, so that its share is smaller still."""
    tiny = profile_values("tiny")["train_generator"]
    tiny |= {"resolutions": [16], "grow_at_kimg": [], "total_kimg": 1.6, "log_every_kimg": 0.16}
    workspace = make_world(tmp_path)
    train_generator.run(config("train_generator", **tiny), workspace, "cpu")
    (log,) = (tmp_path / ".state" / "train_generator").glob(f"*/{LIVE}/{LOG}")
    waits = [line.speed.data_wait for line in read_lines(log, LogRecord) if line.speed]
    assert len(waits) == 10
    assert 0 < statistics.median(waits) <= SHARE

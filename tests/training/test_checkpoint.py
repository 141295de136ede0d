"""Resume state is whole or not used, and one that cannot be used is said."""

import logging
import re
import resource
import threading

import psutil
import pytest
import torch

from stylegan_t.errors import DataError, NotSaved
from stylegan_t.files import sha256
from stylegan_t.training import checkpoint
from stylegan_t.training.checkpoint import StateWriter, drop_states, load_state, newest_state

ANY = 10**9


def write(folder, *states: int, keep: int = 2) -> None:
    for nimg in states:
        with StateWriter(folder, keep) as writer:
            writer.save(nimg, {"nimg": nimg, "weights": torch.full((2,), float(nimg)), "nested": {"a": [1, None]}})


def kept(folder) -> list[int]:
    return [int(path.stem.removeprefix("state-")) for path in sorted(folder.glob("*.pt"))]


def test_the_newest_state_comes_back_as_it_was(tmp_path):
    write(tmp_path, 8, 16, 1024)
    assert newest_state(tmp_path, ANY) == 1024
    state = load_state(tmp_path, 1024)
    assert state["nimg"] == 1024 and state["nested"] == {"a": [1, None]}
    assert torch.equal(state["weights"], torch.full((2,), 1024.0))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_are_kept_as_asked_for_each_with_its_marker(tmp_path, keep):
    write(tmp_path, 8, 16, 24, 32, keep=keep)
    assert kept(tmp_path) == [8, 16, 24, 32][-keep:]
    assert len(list(tmp_path.iterdir())) == 2 * keep


def test_an_unfinished_one_does_not_count_as_kept(tmp_path):
    write(tmp_path, 8, 16)
    (tmp_path / "state-000000000020.pt").write_bytes(b"killed while writing this")
    write(tmp_path, 24, keep=2)
    assert kept(tmp_path) == [16, 20, 24]


def test_a_longer_runs_states_are_neither_used_nor_dropped(tmp_path):
    write(tmp_path, 64, 72, 8, 16, 24)
    assert newest_state(tmp_path, 40) == 24
    assert kept(tmp_path) == [16, 24, 64, 72]


def test_where_all_states_are_a_longer_runs_a_warning_says_why_none_counts(tmp_path, caplog):
    write(tmp_path, 64, 72)
    assert newest_state(tmp_path, 40) is None
    (record,) = caplog.records
    assert re.search(r"state-000000000064\.pt: beyond the end, 0\.04 kimg", record.getMessage())


def test_without_a_state_there_is_none(tmp_path):
    assert newest_state(tmp_path / "absent", ANY) is None


def cut(path):
    path.write_bytes(path.read_bytes()[:50])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forget_marker(path):
    path.with_suffix(".json").unlink()


def cut_marker(path):
    cut(path.with_suffix(".json"))


@pytest.mark.parametrize(
    ("damage", "word"),
    [(cut, "bytes instead of"), (flip_a_bit, "hash"), (forget_marker, "never finished"), (cut_marker, "damaged")],
)
def test_a_damaged_state_is_passed_over_with_a_warning(tmp_path, caplog, damage, word):
    write(tmp_path, 8, 16)
    damage(tmp_path / "state-000000000016.pt")
    with caplog.at_level(logging.WARNING):
        assert newest_state(tmp_path, ANY) == 8
    assert "state-000000000016" in caplog.text and word in caplog.text


def test_a_run_killed_while_writing_its_first_state_starts_afresh(tmp_path, caplog):
    write(tmp_path, 0)
    forget_marker(tmp_path / "state-000000000000.pt")
    assert newest_state(tmp_path, ANY) is None
    assert "never finished" in caplog.text


def test_damage_everywhere_is_an_error_with_its_cure(tmp_path):
    write(tmp_path, 8, 16)
    for path in tmp_path.glob("*.pt"):
        flip_a_bit(path)
    with pytest.raises(DataError, match=r"state-000000000016.*no state before it.*--resume never"):
        newest_state(tmp_path, ANY)


def test_saving_does_not_wait_for_the_disk_and_takes_the_numbers_of_that_moment(tmp_path, monkeypatch):
    disk_is_ready, write_to_disk = threading.Event(), torch.save

    def slow(state, file):
        assert disk_is_ready.wait(30)
        write_to_disk(state, file)

    monkeypatch.setattr(checkpoint.torch, "save", slow)
    weights = torch.ones(3)
    with StateWriter(tmp_path, 2) as writer:
        writer.save(8, {"weights": weights})
        weights += 1  # training goes on
        assert newest_state(tmp_path, ANY) is None
        disk_is_ready.set()
    assert torch.equal(load_state(tmp_path, 8)["weights"], torch.ones(3))


@pytest.fixture
def full_disk():
    """No file may grow beyond a MiB, so that the system refuses to write, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


LARGE = {"weights": torch.zeros(2**20)}
REFUSED = (
    r"state-000000000016\.pt: the state could not be written \(File too large\); the state at 0\.008 kimg is whole"
)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_named_with_the_file_and_the_state_that_is_left(tmp_path):
    with pytest.raises(NotSaved, match=REFUSED), StateWriter(tmp_path, 2) as writer:
        writer.save(8, {})
        writer.save(16, LARGE)
    assert newest_state(tmp_path, ANY) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-000000000008.json", "state-000000000008.pt"]


@pytest.mark.usefixtures("full_disk")
def test_no_state_is_called_whole_that_is_not_there(tmp_path):
    for _ in range(2):  # the second time, as after going back to 0 images, an older file of that name is given up
        with pytest.raises(NotSaved, match=r"too large\)$"), StateWriter(tmp_path, 2) as writer:
            writer.save(0, {})
            writer.save(0, LARGE)
    assert newest_state(tmp_path, ANY) is None


@pytest.mark.usefixtures("full_disk")
def test_a_write_that_failed_is_known_before_the_next_one(tmp_path):
    with StateWriter(tmp_path, 2) as writer:
        writer.check()  # nothing was written yet
        writer.save(8, {})
        writer.save(16, LARGE)
        with pytest.raises(NotSaved, match=REFUSED):
            while True:  # as a training does at every step
                writer.check()


def test_a_state_that_the_disk_cannot_read_any_more_is_passed_over(tmp_path, caplog, monkeypatch):
    write(tmp_path, 8, 16)

    def dying(path):
        if path.name == "state-000000000016.pt":
            raise OSError(5, "Input/output error")
        return sha256(path)

    monkeypatch.setattr(checkpoint, "sha256", dying)
    assert newest_state(tmp_path, ANY) == 8
    assert "state-000000000016.pt: cannot be read (Input/output error)" in caplog.text


def test_a_large_state_is_not_held_in_memory_before_it_is_used(tmp_path):
    numbers = 2**26
    with StateWriter(tmp_path, 1) as writer:
        writer.save(8, {"weights": torch.ones(numbers)})
    before = psutil.Process().memory_info().rss
    state = load_state(tmp_path, 8)
    assert psutil.Process().memory_info().rss - before < numbers  # a quarter of its bytes
    assert state["weights"][-1] == 1


def test_two_processes_may_clear_the_same_leftovers_away(tmp_path, monkeypatch):
    leftover = tmp_path / ".state-000000000008.pt.123.tmp"
    monkeypatch.setattr(type(tmp_path), "glob", lambda folder, pattern: [leftover])  # the other one was faster
    with StateWriter(tmp_path, 2):
        pass


def test_leftovers_of_a_killed_writer_are_cleared_away(tmp_path):
    leftover = tmp_path / ".state-000000000008.pt.123.tmp"
    leftover.write_bytes(b"half")
    with StateWriter(tmp_path, 2):
        pass
    assert not leftover.exists()


def test_dropping_takes_the_markers_too(tmp_path):
    write(tmp_path, 8, 16)
    assert drop_states(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []

"""Resume state is whole or absent."""

import pytest
import torch

from stylegan_t.errors import DataError
from stylegan_t.training.checkpoint import KEPT, load_newest_state, save_state


def test_the_newest_of_the_kept_states_is_loaded(tmp_path):
    for nimg in (8, 16, 1024):
        save_state(tmp_path, nimg, {"nimg": nimg, "weights": torch.full((2,), float(nimg))})
    state = load_newest_state(tmp_path, 10**6)
    assert state is not None and state["nimg"] == 1024 and torch.equal(state["weights"], torch.full((2,), 1024.0))
    assert len(list(tmp_path.iterdir())) == KEPT


def test_a_longer_runs_states_are_neither_loaded_nor_dropped(tmp_path):
    for nimg in (64, 72, 8, 16, 24):
        save_state(tmp_path, nimg, {"nimg": nimg})
    state = load_newest_state(tmp_path, 40)
    assert state is not None and state["nimg"] == 24
    assert [int(path.stem.removeprefix("state-")) for path in sorted(tmp_path.iterdir())] == [16, 24, 64, 72]


def test_without_a_state_there_is_none(tmp_path):
    assert load_newest_state(tmp_path / "absent", 10**6) is None


def test_a_damaged_state_is_named_with_its_cure(tmp_path):
    save_state(tmp_path, 8, {"nimg": 8})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=f"{file.name}.*delete it"):
        load_newest_state(tmp_path, 10**6)

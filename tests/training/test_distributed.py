"""Several processes train as one would: through torchrun, over gloo."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from datetime import timedelta

import psutil
import pytest
import torch

from stylegan_t import records
from stylegan_t.errors import PeerLost, SettingsError
from stylegan_t.launch import launch as start_and_watch
from stylegan_t.records import LogRecord, RunRecord, read_lines
from stylegan_t.training import distributed
from stylegan_t.training.distributed import World, gather
from tests.training.processes import (
    WAIT_SECONDS,
    differing,
    distance,
    last_state,
    launch,
    process_of,
    start,
    wait_until,
    whole_states,
)

BATCH = 16
STEPS = 10
TEN_STEPS = {"batch_size": BATCH, "total_kimg": BATCH * STEPS / 1000, "save_every_kimg": 0.08, "keep_states": 9}
SHARDED = {
    "microbatch_size": None,
    "precision": "float32",
    "channels_last": False,
    "compile": False,
    "deterministic": False,
}
ROUNDING = 2e-5
"""After ten steps, as `distance`. Seen: up to 2e-6 of rounding, and 2e-4 where learning rates after a rollback were
wrong by a fifth; other mistakes make more."""


def test_shares_are_contiguous_disjoint_and_cover_the_batch():
    shares = [World(torch.device("cpu"), rank, 4).share(96) for rank in range(4)]
    assert [number for share in shares for number in share] == list(range(96))
    assert {len(share) for share in shares} == {24}


@pytest.mark.parametrize(("batch_size", "size", "cure"), [(24, 2, "use 16 or 32"), (8, 3, "use 24")])
def test_a_batch_that_does_not_split_into_whole_groups_is_refused(batch_size, size, cure):
    with pytest.raises(SettingsError, match=rf"batch_size = {batch_size} on {size} devices.*{cure}"):
        World(torch.device("cpu"), 0, size).share(batch_size)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["main first", "main last"])
def test_processes_started_anew_gather_under_a_name_of_their_own(order):
    """Whoever comes first finds what the dead wrote, and must not take it for news."""
    store = torch.distributed.HashStore()
    names = []
    for _ in range(3):
        found = {}
        meet = lambda rank, found=found: found.update({rank: gather(store, rank, 3)})
        threads = [threading.Thread(target=meet, args=[rank], daemon=True) for rank in order]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(10)
        assert found.keys() == {0, 1, 2}
        assert len(set(found.values())) == 1
        names.append(found[0])
    assert len(set(names)) == 3


def test_processes_that_do_not_come_are_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(seconds=0.2))
    with pytest.raises(PeerLost, match=r"did not come within 0:00:00\.2"), distributed._listening():
        gather(torch.distributed.HashStore(), 0, 2)


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (RuntimeError("Connection reset"), PeerLost("lost the other processes of this training (Connection reset)")),
        (RuntimeError("DataLoader worker (pid 3) is killed"), RuntimeError("DataLoader worker (pid 3) is killed")),
        (PeerLost("they did not come"), PeerLost("they did not come")),
    ],
    ids=["another process", "our own loader", "said already"],
)
def test_errors_while_processes_exchange_numbers_are_told_apart(error, heard):
    with pytest.raises(type(heard)) as raised, distributed._listening():
        raise error
    assert (type(raised.value), str(raised.value)) == (type(heard), str(heard))


def test_a_process_alone_gathers_at_once():
    assert gather(torch.distributed.HashStore(), 0, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Ten steps by one process; by two; by two with Adam's state spread."""
    root = tmp_path_factory.mktemp("worlds")
    jobs = {
        "one": {"settings": TEN_STEPS},
        "two": {"settings": TEN_STEPS},
        "sharded": {"settings": TEN_STEPS | {"compute": SHARDED | {"shard_optimizer": True}}},
    }
    jobs = {name: {"folder": str(root / name)} | job for name, job in jobs.items()}
    alone = start(jobs.pop("one"))
    alone.join(WAIT_SECONDS)
    assert alone.exitcode == 0
    together = launch(*jobs.values(), devices=2)
    _, said = together.communicate(timeout=WAIT_SECONDS)
    assert together.returncode == 0, said
    return root


def test_two_processes_make_the_same_weights_as_one(trained):
    one, two = last_state(trained / "one"), last_state(trained / "two")
    assert one["nimg"] == two["nimg"] == BATCH * STEPS
    assert distance(one, two) < ROUNDING


def test_they_log_the_same_numbers(trained):
    one, two = (read_lines(trained / name / "live" / records.LOG, LogRecord) for name in ("one", "two"))
    assert [line.kimg for line in one] == [line.kimg for line in two]
    for a, b in zip(one, two, strict=True):
        assert a.terms.keys() == b.terms.keys()
        assert a.terms == pytest.approx(b.terms, abs=1e-4, rel=1e-4)


def test_an_optimizer_spread_over_them_makes_the_same_to_the_bit(trained):
    assert differing(last_state(trained / "two"), last_state(trained / "sharded")) == []


@pytest.mark.parametrize("before", ["two", "sharded"])
def test_one_process_goes_on_from_the_state_of_two(trained, tmp_path, before):
    folder = tmp_path / "resumed"
    shutil.copytree(trained / before, folder)
    for path in sorted(folder.glob("state-*"))[4:]:  # back to 80 images
        path.unlink()
    assert whole_states(folder) == [0, 80]
    process = start({"folder": str(folder), "settings": TEN_STEPS, "resume": "must"})
    process.join(WAIT_SECONDS)
    assert process.exitcode == 0
    assert distance(last_state(trained / "one"), last_state(folder)) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize(("shard_optimizer", "newest"), [(False, "gone"), (True, "damaged")])
def test_two_processes_go_on_from_the_last_whole_state_of_one(trained, tmp_path, shard_optimizer, newest):
    folder = tmp_path / "resumed"
    shutil.copytree(trained / "one", folder)
    for path in sorted(folder.glob("state-*"))[4:]:  # back to 80 images
        path.unlink() if newest == "gone" else path.write_bytes(b"damaged")
    settings = TEN_STEPS | {"compute": SHARDED | {"shard_optimizer": shard_optimizer}}
    process = launch({"folder": str(folder), "settings": settings, "resume": "must"}, devices=2)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    assert distance(last_state(trained / "one"), last_state(folder)) < ROUNDING


BAD = 125
"""An image of the second process's share, after the state at 80 images."""


@pytest.mark.slow
def test_after_a_rollback_two_processes_spread_or_not_are_one(tmp_path):
    guard = {"max_rollbacks": 1, "rollback_lr_factor": 0.25}
    settings = TEN_STEPS | {"guard": guard}
    jobs = {
        "one": {"settings": settings},
        "two": {"settings": settings},
        "sharded": {"settings": settings | {"compute": SHARDED | {"shard_optimizer": True}}},
    }
    jobs = {name: {"folder": str(tmp_path / name), "bad": BAD} | job for name, job in jobs.items()}
    alone = start(jobs.pop("one"))
    together = launch(*jobs.values(), devices=2)
    _, said = together.communicate(timeout=WAIT_SECONDS)
    alone.join(WAIT_SECONDS)
    assert (alone.exitcode, together.returncode) == (0, 0), said
    assert said.count("rollback 1 of 1") == len(jobs)
    one, two, sharded = (last_state(tmp_path / name) for name in ("one", "two", "sharded"))
    assert one["nimg"] == BATCH * STEPS
    assert distance(one, two) < ROUNDING
    assert differing(two, sharded) == []


@pytest.mark.slow
def test_what_is_not_finite_is_named_though_it_is_another_process_s(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": TEN_STEPS, "bad": BAD}, devices=2)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1, said
    assert "diverged at 0.112 kimg: not finite: d_fake, d_real, " in said
    assert "the state at 0.080 kimg is good" in said
    assert said.count("diverged") == 1
    assert whole_states(tmp_path) == [0, 80]


ENDLESS = {"batch_size": BATCH, "total_kimg": 1000.0, "save_every_kimg": 500.0}


@pytest.mark.slow
def test_sigterm_to_the_launcher_stops_all_after_a_state(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS}, devices=2)
    wait_until(lambda: read_lines(tmp_path / "live" / records.LOG, LogRecord))
    os.kill(process.pid, signal.SIGUSR1)
    wait_until(lambda: len(whole_states(tmp_path)) == 2)
    before = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 75, said
    assert time.monotonic() - before < 20
    states = whole_states(tmp_path)
    assert len(states) == 2 and states[1] > 0
    assert "Traceback" not in said


@pytest.mark.slow
def test_however_often_the_launcher_is_asked_to_stop_it_saves_first(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS, "pause": 2.0}, devices=2)  # a slow step
    wait_until(lambda: records.read_record(tmp_path / "live" / records.RUN, RunRecord))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
        os.kill(process.pid, number)
        time.sleep(0.1)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 75, said
    assert len(whole_states(tmp_path)) == 2
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_wish_to_save_kills_no_process_that_has_just_started(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS}, devices=2)
    started = psutil.Process(process.pid)
    wait_until(lambda: len(started.children()) == 2)
    while not whole_states(tmp_path):
        assert process.poll() is None
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 75, said


def test_more_gpus_than_there_are_is_an_error_before_anything_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match="--devices 2: this machine has 1 GPUs"):
        start_and_watch(2, 16, [], on_gpus=True)


@pytest.mark.slow
def test_a_second_ctrl_c_to_the_launcher_ends_all_at_once(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS, "pause": 20.0}, devices=2)  # a step takes ages
    wait_until(lambda: whole_states(tmp_path))
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, "the first one waits for the step"
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert whole_states(tmp_path) == [0], "neither the step nor another state was waited for"


@pytest.mark.slow
def test_a_process_that_fails_ends_the_job_with_one_clear_line(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS, "fail_rank": 1}, devices=2)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 3, said
    assert said.splitlines()[-1] == "process 1 exited with 3 (a shard is gone), and the others were stopped"
    assert said.count("a shard is gone") == 1
    assert "Traceback" not in said and "gloo" not in said


@pytest.mark.slow
def test_an_error_of_all_processes_is_said_once(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS, "resume": "must"}, devices=2)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 3, said
    assert said.count("no state to go on from") == 1
    assert said.splitlines()[-1] == "process 0 exited with 3, and the others were stopped; see above"


@pytest.mark.slow
def test_a_process_that_was_killed_is_named_and_the_same_command_goes_on(tmp_path):
    process = launch({"folder": str(tmp_path), "settings": ENDLESS | {"save_every_kimg": 0.08}}, devices=2)
    wait_until(lambda: max(whole_states(tmp_path), default=0) > 0)
    process_of(process, rank=1).kill()
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1, said
    line = "process 1 was ended by SIGKILL, and the others were stopped; the same command goes on from the last state"
    assert said.splitlines()[-1] == line
    assert not re.search(r"Traceback|gloo|^[EW]\d{4} ", said, re.MULTILINE)
    reached = max(whole_states(tmp_path))
    again = launch({"folder": str(tmp_path), "settings": ENDLESS, "resume": "must"}, devices=2)
    wait_until(lambda: records.read_record(tmp_path / "live" / records.RUN, RunRecord).resumed == [reached / 1000])
    again.send_signal(signal.SIGTERM)
    _, said = again.communicate(timeout=WAIT_SECONDS)
    assert again.returncode == 75, said

"""Cleaning up removes what nothing needs, and refuses while anything is at work."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from prefect import flow

from flows import dvc
from flows.dvc.garbage import collect_garbage, temporary_copies
from flows.housekeeping import housekeeping, main
from flows.leftovers import clear_copies, clear_states, clear_temporary
from flows.server import prefect_server
from tests.flows import standin
from tests.imports import ROOT

WAITS = "echo $RANDOM > stage; touch {flag}; until [ -e {go} ]; do sleep 0.1; done"


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def run_dvc(folder, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def repository(folder, **stages):
    """With one commit and outputs of two settings: an older one that nothing names any more, and the present one."""
    standin.make(folder, {"a": 1}, **(stages or {"stage": {"cmd": "cat params.yaml > stage", "params": ["a"]}}))
    for number in () if stages else (1, 2):
        (folder / "params.yaml").write_text(f"a: {number}\n")
        run_dvc(folder, "repro")
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "first")
    return folder


def objects(folder) -> set[str]:
    return {path.read_text() for path in (folder / "files").glob("*/*/*") if path.is_file()}


def aged(path, days):
    for each in [path, *path.rglob("*")]:
        os.utime(each, (time.time() - days * 24 * 3600,) * 2)


def run_of(root, digest, days, stage="train_generator", lines=()):
    folder = root / ".state" / stage / digest
    (folder / "live").mkdir(parents=True)
    (folder / "state-000000000001.pt").write_bytes(b"1" * 1000)
    (folder / "live" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    aged(folder, days)
    return folder


def states(root) -> set[str]:
    return {path.name for path in root.glob(".state/*/*")}


@contextmanager
def process(*command, cwd, until):
    """A process that is at work once the file ``until`` is there; killed at the end unless it is over."""
    started = subprocess.Popen(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 60
        while not until.exists():
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield started
    finally:
        started.kill()
        started.wait()


def test_the_newest_runs_and_the_young_ones_keep_their_states(tmp_path):
    for number in range(5):
        run_of(tmp_path, f"run{number}", days=10 * number)
    found = clear_states(tmp_path, keep_runs=1, older_than_days=15, dry_run=False)
    assert states(tmp_path) == {"run0", "run1"}
    assert [each.path.rpartition("/")[2] for each in found] == ["run2", "run3", "run4"]
    assert all(each.size >= 1000 for each in found)


def test_a_dry_run_lists_and_removes_nothing(tmp_path):
    for number in range(3):
        run_of(tmp_path, f"run{number}", days=30 + number)
    assert len(clear_states(tmp_path, keep_runs=1, older_than_days=1, dry_run=True)) == 2
    assert len(states(tmp_path)) == 3


def test_the_run_that_made_the_present_outputs_stays_however_old(tmp_path):
    first, second = ({"kimg": kimg, "resolution": 16, "terms": {"d_real": kimg}, "speed": None} for kimg in (1.0, 2.0))
    run_of(tmp_path, "new", days=1)
    run_of(tmp_path, "made", days=60, lines=[first, {**second, "speed": {"seconds": 3.0}}])
    run_of(tmp_path, "other", days=60, lines=[first])
    (tmp_path / "artifacts" / "train_generator").mkdir(parents=True)
    lines = "".join(json.dumps(line) + "\n" for line in (first, second))
    (tmp_path / "artifacts" / "train_generator" / "log.jsonl").write_text(lines)
    clear_states(tmp_path, keep_runs=1, older_than_days=7, dry_run=False)
    assert states(tmp_path) == {"new", "made"}


def test_what_was_written_within_the_hour_stays_though_zero_days_are_asked_for(tmp_path):
    run_of(tmp_path, "newest", days=0)
    aged(run_of(tmp_path, "writing", days=20).joinpath("live"), 0.01)
    run_of(tmp_path, "old", days=1)
    clear_states(tmp_path, keep_runs=1, older_than_days=0, dry_run=False)
    assert states(tmp_path) == {"newest", "writing"}


@pytest.mark.parametrize("locked", ["run", "stage"])
def test_a_run_that_a_process_works_on_stays(tmp_path, locked):
    run_of(tmp_path, "newest", days=0)
    old = run_of(tmp_path, "old", days=30)
    lock = (old if locked == "run" else old.parent) / "lock"
    code = f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); from stylegan_t.files import alone_in; "
    code += f"from pathlib import Path; lock = alone_in(Path({str(lock.parent)!r})); lock.__enter__(); "
    code += "Path('ready').touch(); time.sleep(60)"
    with process(sys.executable, "-c", code, cwd=tmp_path, until=tmp_path / "ready"):
        aged(old, 30)
        assert clear_states(tmp_path, keep_runs=1, older_than_days=1, dry_run=False) == []
    assert len(clear_states(tmp_path, keep_runs=1, older_than_days=1, dry_run=False)) == 1


def test_temporary_files_of_dead_processes_go_and_nothing_inside_of_outputs(tmp_path):
    for name in (".params.yaml.999999999.tmp", f".table.csv.{os.getpid()}.tmp", "artifacts/evaluate/.x.999999999.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "artifacts" / ".train_generator.unfinished").mkdir()
    aged(tmp_path, 1)
    (tmp_path / ".young.csv.999999999.tmp").touch()
    found = {each.path for each in clear_temporary(tmp_path, dry_run=False)}
    assert found == {".params.yaml.999999999.tmp", "artifacts/.train_generator.unfinished"}
    assert not any((tmp_path / name).exists() for name in found)


def test_copies_of_dead_experiments_go_and_those_that_something_works_in_stay(tmp_path):
    for name in ("tmpdead", "standalone/tmpalive", "standalone/tmpyoung"):
        (tmp_path / ".dvc" / "tmp" / "exps" / name).mkdir(parents=True)
    alive = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpalive"
    with process("sh", "-c", "touch ready; sleep 60", cwd=alive, until=alive / "ready"):
        aged(alive, 1)
        aged(alive.parent.parent / "tmpdead", 1)
        clear_copies(tmp_path, temporary_copies(tmp_path), dry_run=False)
    assert {path.name for path in temporary_copies(tmp_path)} == {"tmpalive", "tmpyoung"}


def test_the_cache_keeps_what_is_named_and_loses_the_rest(tmp_path):
    folder = repository(tmp_path / "one")
    dry = collect_garbage(folder, dry_run=True)
    assert objects(folder / ".dvc" / "cache") == {"a: 1\n", "a: 2\n"}
    assert (dry.objects, dry.size) == (1, len("a: 1\n"))
    assert collect_garbage(folder) == dry
    assert objects(folder / ".dvc" / "cache") == {"a: 2\n"}


@pytest.mark.slow
def test_the_cache_keeps_what_branches_and_experiments_name(tmp_path):
    folder = repository(tmp_path / "one")
    git(folder, "switch", "--create", "other")
    run_dvc(folder, "exp", "run", "--temp", "--set-param", "a=3")
    (folder / "params.yaml").write_text("a: 5\n")
    run_dvc(folder, "repro")
    git(folder, "commit", "--all", "--message", "second")
    git(folder, "switch", "-")
    run_dvc(folder, "checkout")
    collect_garbage(folder)
    assert objects(folder / ".dvc" / "cache") == {f"a: {number}\n" for number in (2, 3, 5)}


@pytest.mark.slow
def test_the_remote_is_cleaned_only_where_that_is_asked_for(tmp_path):
    folder = repository(tmp_path / "one")
    run_dvc(folder, "remote", "add", "--default", "there", str(tmp_path / "there"))
    for number in (3, 2):
        (folder / "params.yaml").write_text(f"a: {number}\n")
        run_dvc(folder, "repro")
        run_dvc(folder, "push")
    assert collect_garbage(folder).remote_objects == 0
    assert objects(tmp_path / "there") == {"a: 2\n", "a: 3\n"}
    assert collect_garbage(folder, remote=True).remote_objects == 1
    assert objects(tmp_path / "there") == {"a: 2\n"}


def shared(tmp_path):
    """Two workspaces with one cache, the second with other contents."""
    one, two = tmp_path / "one", tmp_path / "two"
    for number, folder in enumerate((one, two)):
        standin.make(folder, {"a": 7 + number}, stage={"cmd": "cat params.yaml > stage", "params": ["a"]})
        run_dvc(folder, "cache", "dir", str(tmp_path / "cache"))
        run_dvc(folder, "repro")
        git(folder, "add", "--all")
        git(folder, "commit", "--message", "first")
    return one, two


def test_a_shared_cache_keeps_what_the_others_need(tmp_path):
    one, two = shared(tmp_path)
    assert collect_garbage(one, [two]).objects == 0
    with pytest.raises(ValueError, match="its cache is"):
        collect_garbage(one, [repository(tmp_path / "apart", stage={"cmd": "touch stage"})])


def waiting(folder, **facts):
    """A stage that is at work until the file ``go`` is there, and what says that it is."""
    flag, go = folder.parent / "flag", folder.parent / "go"
    return flag, go, {"cmd": WAITS.format(flag=flag, go=go), **facts}


REPRO = "import sys; from pathlib import Path; from flows import dvc\nwith dvc.working(Path.cwd()):\n"
REPRO += " dvc.repro(dvc.read_stages(Path.cwd())[0], Path.cwd(), print)"
AT_WORK = {
    "run": (sys.executable, "-c", REPRO),
    "dvc": (sys.executable, "-m", "dvc", "repro"),
    "experiment": (sys.executable, "-m", "dvc", "exp", "run", "--temp", "--set-param", "a=2"),
}


@pytest.mark.parametrize("command", AT_WORK)
def test_nothing_is_removed_while_something_is_at_work(tmp_path, command):
    flag, go, stage = waiting(tmp_path / "one", params=["a"])
    folder = repository(tmp_path / "one", stage=stage)
    with process(*AT_WORK[command], cwd=folder, until=flag) as running:
        with pytest.raises(dvc.InUse, match="clean up when it is done"):
            collect_garbage(folder)
        go.touch()
        assert running.wait(timeout=60) == 0
    collect_garbage(folder)


@pytest.mark.slow
def test_a_run_at_work_in_another_workspace_with_the_cache_refuses_us(tmp_path):
    one, two = shared(tmp_path)
    flag, go, stage = waiting(two)
    standin.make(two, stage=stage)
    with process(*AT_WORK["run"], cwd=two, until=flag) as running:
        with pytest.raises(dvc.InUse), dvc.collecting(one):
            pass
        go.touch()
        assert running.wait(timeout=60) == 0
    with dvc.collecting(one):
        assert collect_garbage(one, [two]).objects == 0
    assert len(objects(tmp_path / "cache")) == 3


@pytest.fixture(scope="module")
def server():
    with prefect_server() as url:
        yield url


@pytest.mark.slow
def test_the_flow_removes_all_kinds_and_tells_their_bytes(tmp_path, monkeypatch, server, capsys):
    folder = repository(tmp_path / "one")
    run_of(folder, "new", days=1)
    run_of(folder, "old", days=60)
    monkeypatch.chdir(folder)
    listed = housekeeping(keep_runs=1, dry_run=True)
    assert {each.what for each in listed} == {"state", "cache"}
    assert main(["--keep-runs", "1"]) == 0
    assert "old" in (said := capsys.readouterr().out)
    assert "freed" in said
    assert states(folder) == {"new"}
    assert objects(folder / ".dvc" / "cache") == {"a: 2\n"}
    assert housekeeping(keep_runs=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", AT_WORK)
def test_the_flow_refuses_in_a_line_and_the_run_comes_to_its_end(tmp_path, monkeypatch, server, capsys, command):
    flag, go, stage = waiting(tmp_path / "one", params=["a"])
    folder = repository(tmp_path / "one", stage=stage)
    run_of(folder, "new", days=1)
    run_of(folder, "old", days=60)
    monkeypatch.chdir(folder)
    with process(*AT_WORK[command], cwd=folder, until=flag) as running:
        assert main(["--keep-runs", "1"]) == dvc.IN_USE
        assert states(folder) == {"new", "old"}
        go.touch()
        assert running.wait(timeout=60) == 0
    assert "clean up when it is done" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cache_outside_is_left_alone_unless_those_who_share_it_are_named(tmp_path, monkeypatch, server):
    one, two = shared(tmp_path)
    monkeypatch.chdir(one)
    for number in (10, 9):
        (two / "params.yaml").write_text(f"a: {number}\n")
        run_dvc(two, "repro")
    assert housekeeping() == []
    assert len(objects(tmp_path / "cache")) == 4
    found = housekeeping(sharing=[str(two)])
    assert [each.what for each in found] == ["cache"]
    assert objects(tmp_path / "cache") == {"a: 7\n", "a: 8\n", "a: 9\n"}


@pytest.mark.slow
def test_clones_of_workers_are_cleaned_too_and_one_at_work_the_next_time(tmp_path, monkeypatch, server):
    folder = repository(tmp_path / "one")
    (folder / ".workspaces").mkdir()
    idle, busy = (repository(folder / ".workspaces" / name) for name in ("idle", "busy"))
    monkeypatch.chdir(folder)
    with dvc.working(busy):
        found = housekeeping()
    assert sorted(each.path for each in found) == [".workspaces/idle: 1 objects", "1 objects"]
    assert objects(idle / ".dvc" / "cache") == {"a: 2\n"}
    assert objects(busy / ".dvc" / "cache") == {"a: 1\n", "a: 2\n"}
    assert [each.path for each in housekeeping()] == [".workspaces/busy: 1 objects"]


@pytest.mark.slow
def test_the_remote_is_not_cleaned_while_a_run_over_many_machines_is_at_work(tmp_path, monkeypatch, server):
    @flow(name="spread", flow_run_name="nightly-7")
    def spread() -> int:
        return main(["--remote"])

    monkeypatch.chdir(repository(tmp_path / "one"))
    assert spread() == dvc.IN_USE
    assert "a: 1\n" in objects(tmp_path / "one" / ".dvc" / "cache")

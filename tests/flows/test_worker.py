"""What a worker is told, and that no two of a machine have the same GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows import git
from flows.failures import exit_code_in
from flows.machines import worker
from flows.machines.workspace import HOME, environment_of
from flows.processes import gpus
from flows.services import drain
from tests.flows import standin


@pytest.mark.parametrize(
    ("indices", "visible", "processes"), [(["3"], "3", "1"), (["0", "2"], "0,2", "2"), ([], "", "1")],
    ids=["one GPU", "two GPUs", "none"],
)  # fmt: skip
def test_a_run_sees_its_workers_gpus_and_trains_on_all_of_them(tmp_path, indices, visible, processes):
    told = worker.environment("name", indices, tmp_path, "origin")
    assert (told["CUDA_VISIBLE_DEVICES"], told["STYLEGAN_T_DEVICES"]) == (visible, processes)


def test_without_a_word_about_gpus_it_sees_what_the_machine_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert worker.environment("name", None, tmp_path, "origin")["CUDA_VISIBLE_DEVICES"] == "5"


def test_a_gpu_has_one_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    with gpus.claimed(["0", "1"]):
        with (
            pytest.raises(ValueError, match=r"another worker, or user, has GPU 1 .*one run per GPU"),
            gpus.claimed(["1"]),
        ):
            pass
        with gpus.claimed(["2"]):
            pass
    with gpus.claimed(["1"]):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pool", "gpu", "--gpus", "0,1"], "--gpus 0,1: expected none, 0, or 0+1; two workers are two commands"),
        (["--pool", "gpu", "--gpus", "0"], "set PREFECT_API_URL to the server"),
    ],
    ids=["two sets of GPUs", "no server"],
)
def test_a_mistake_is_one_line(arguments, message):
    command = [sys.executable, "-m", "flows.machines.worker", *arguments]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}


def test_commands_of_a_workspace_run_its_own_code(tmp_path):
    assert environment_of(tmp_path) == {}
    (tmp_path / "stylegan_t").mkdir()
    (tmp_path / "stylegan_t" / "__init__.py").write_text("")
    code = "import stylegan_t; print(stylegan_t.__file__)"
    environment = {**os.environ, **environment_of(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout


def test_a_git_repository_that_is_gone_for_a_while_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(git.time, "sleep", lambda seconds: origin.exists() or away.rename(origin))
    origin, away = tmp_path / "origin", tmp_path / "away"
    git.git(tmp_path, "init", "-q", "away")
    git.clone(str(origin), tmp_path / "clone")
    assert git.git(tmp_path / "clone", "remote", "get-url", "origin") == str(origin)


def test_a_revision_that_nobody_knows_says_to_push_it(tmp_path):
    git.git(tmp_path, "init", "-q", ".")
    with pytest.raises(
        git.GitFailed, match=re.escape("'v9' is no branch of the origin, no tag and no commit; push it first")
    ):
        git.resolve(tmp_path, "v9")


@pytest.mark.parametrize(
    ("text", "pool", "expected"),
    [("0+1", "gpu", ["0", "1"]), ("none", "gpu", []), (None, "gpu", ["5", "6"]), (None, "cpu", [])],
    ids=["some", "none", "gpu", "cpu"],
)
def test_without_a_word_a_gpu_worker_has_all_gpus_and_a_cpu_worker_none(monkeypatch, text, pool, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert worker.parse_gpus(text, pool) == expected


def test_passwords_in_addresses_are_not_told(tmp_path, monkeypatch):
    monkeypatch.setattr(git, "BACKOFF_SECONDS", 0.0)
    with pytest.raises(git.GitUnreachable) as failure:
        git.clone("http://me:hunter2@127.0.0.1:9/x.git", tmp_path / "clone")
    assert "hunter2" not in str(failure.value) and "//127.0.0.1:9/x.git" in str(failure.value)
    assert [path.name for path in tmp_path.iterdir()] == [".clone.lock"]


def test_a_lock_of_a_killed_git_stops_no_later_run(tmp_path):
    git.git(tmp_path, "init", "-q", "-b", "main", "origin")
    git.git(tmp_path / "origin", *git.NOBODY, "commit", "-q", "--allow-empty", "-m", "first")
    git.clone(str(tmp_path / "origin"), tmp_path / "clone")
    for name in ("index.lock", "config.lock", "refs/remotes/origin/main.lock"):
        (tmp_path / "clone" / ".git" / name).touch()
    assert git.check_out(tmp_path / "clone", "main") == git.git(tmp_path / "origin", "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Flow run encountered an exception: StageFailed: a: its command exited with 3", 3),
        ("StageFailed: a: not done after 5 s", 124),
        ("RemoteFailed: ./a: the remote lacks it (x)", 3),
        ("lost its worker 3 times", 1),
    ],
    ids=["command", "deadline", "remote", "lost"],
)
def test_what_a_stage_said_elsewhere_tells_its_exit_code(said, code):
    assert exit_code_in(said) == code


def test_runs_that_begin_at_once_make_one_clone(tmp_path):
    git.git(tmp_path, "init", "-q", "-b", "main", "origin")
    git.git(tmp_path / "origin", *git.NOBODY, "commit", "-q", "--allow-empty", "-m", "first")
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(git.clone, str(tmp_path / "origin"), tmp_path / "clone") for _ in range(8)]:
            done.result()
    assert git.git(tmp_path / "clone", "log", "--format=%s") == "first"


TAKES_ANOTHER = """
import subprocess, sys, time
while True:
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", "prefect.engine"])
    print(run.pid, flush=True)
    run.wait()
"""


def test_a_worker_that_is_told_to_end_takes_no_run_instead_of_those_that_end(tmp_path):
    guard = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    worker = [sys.executable, "-c", TAKES_ANOTHER, "prefect", "worker"]
    with subprocess.Popen([*guard, *worker], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout
        first = int(service.stdout.readline())
        drain([service.pid])
        assert service.wait(30) != 1 and service.stdout.read() == ""
    assert not standin.is_running(first)

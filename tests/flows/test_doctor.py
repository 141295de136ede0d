"""The doctor's checks, each on a machine or repository that has what it looks for."""

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from types import SimpleNamespace

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import dvc
from flows.doctor import machine
from flows.doctor.__main__ import CHECKS, main
from flows.doctor.finding import said_by
from flows.doctor.machine import disks, gpus, versions
from flows.doctor.orchestration import prefect
from flows.doctor.repository import locks, pipeline, remote, repository
from flows.server import prefect_server
from tests.flows import standin
from tests.imports import ROOT

PROJECT = """[project]
requires-python = "{python}"
dependencies = ["pydantic{pydantic}"]
[project.optional-dependencies]
train = ["no-such-package-a"]
flows = ["{flows}"]
wandb = ["no-such-package-c"]
"""
GPU = "0, NVIDIA H100 80GB HBM3, 1024, 81559, 570.86.15"


@pytest.fixture
def folder(tmp_path):
    return standin.make(tmp_path / "clone", {"a": 1}, stage={"cmd": "cp params.yaml stage", "params": ["a"]})


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program of this name before all others."""

    def put(name, script):
        (tmp_path / "bin").mkdir(exist_ok=True)
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return put


def states(findings) -> dict[str, str]:
    return {each.check: each.state for each in findings}


def project(folder, python=">=3.11", pydantic=">=2", flows="prefect>=3"):
    (folder / "pyproject.toml").write_text(PROJECT.format(python=python, pydantic=pydantic, flows=flows))
    return list(versions(folder))


def test_packages_in_their_ranges_are_fine_and_what_a_machine_may_lack_is_no_failure(tmp_path):
    assert states(project(tmp_path)) == {
        "python": "OK", "packages: core": "OK", "packages: train": "WARN", "packages: flows": "OK",
        "packages: wandb": "SKIP",
    }  # fmt: skip


def test_a_package_outside_of_its_range_fails_with_both_and_the_cure(tmp_path):
    (wrong,) = [each for each in project(tmp_path, flows="fastapi<0.1") if each.state == "FAIL"]
    assert f"fastapi {metadata.version('fastapi')} is outside of <0.1" in wrong.line
    assert ".[flows]" in wrong.cure


@pytest.mark.parametrize("wrong", [{"python": "<3"}, {"pydantic": "<2"}, {"flows": "no-such-package-b"}])
def test_what_everything_needs_fails(tmp_path, wrong):
    assert "FAIL" in states(project(tmp_path, **wrong)).values()


def test_the_ranges_of_this_project_hold_here():
    assert "FAIL" not in states(versions(ROOT)).values()


@pytest.mark.parametrize(("free", "state"), [(5e12, "OK"), (1e10, "WARN"), (1e9, "FAIL")])
def test_a_full_disk_is_told_before_it_is_full(folder, monkeypatch, free, state):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert set(states(disks(folder)).values()) == {state}


def smi(cuda):
    return f'case "$1" in --query*) echo "{GPU}";; *) echo "| CUDA Version: {cuda} |";; esac'


@pytest.mark.parametrize(
    ("cuda", "needed", "state"), [("13.1", 13, "OK"), ("12.8", 13, "FAIL"), ("12.8", 12, "OK"), ("12.8", None, "WARN")]
)
def test_a_driver_must_be_as_new_as_the_cuda_of_torch(tmp_path, program, monkeypatch, cuda, needed, state):
    program("nvidia-smi", smi(cuda))
    monkeypatch.setattr(machine, "_cuda_of_torch", lambda: needed)
    found = list(gpus(tmp_path))
    assert states(found) == {"gpu 0": "OK", "gpu driver": state}
    assert "1024 of 81559 MiB" in found[0].line


@pytest.mark.parametrize(
    ("needed", "cuda"),
    [(["nvidia-cudnn-cu13==9.2"], 13), (["nvidia-cuda-runtime-cu12==12.8"], 12), (["sympy"], None), (None, None)],
    ids=["13", "12", "cpu", "nothing"],
)
def test_torchs_cuda_is_read_from_what_it_needs(monkeypatch, needed, cuda):
    monkeypatch.setattr(machine.metadata, "requires", lambda name: needed)
    assert machine._cuda_of_torch() == cuda


def test_a_driver_that_does_not_answer_fails(tmp_path, program):
    program("nvidia-smi", "echo 'Failed to initialize NVML' >&2; exit 18")
    (found,) = gpus(tmp_path)
    assert (found.state, "NVML" in found.line) == ("FAIL", True)


def test_no_check_outlives_its_time(tmp_path):
    start = time.monotonic()
    code, said = said_by(["sh", "-c", "sleep 60 & echo $! > child; sleep 60"], tmp_path, 0.5)
    assert (code, said) == (None, "no answer after 0.5 s")
    assert time.monotonic() - start < 20
    child = int((tmp_path / "child").read_text())
    while standin.is_running(child):  # it has been killed, and goes in its own time
        assert time.monotonic() - start < 20
        time.sleep(0.05)


def test_a_wrong_option_of_a_stage_and_wrong_settings_fail_with_what_is_wrong(tmp_path):
    folder = standin.make(tmp_path / "clone", {"seed": 1}, stage={"cmd": "true", "meta": {"prefect": {"retry": 2}}})
    found = {each.check: each for each in pipeline(folder)}
    assert {each.state for each in found.values()} == {"FAIL"}
    assert "retry" in found["dvc.yaml"].line
    assert "params.yaml" in found["params.yaml"].line


def test_a_folder_without_a_pipeline_fails(tmp_path):
    assert states(pipeline(tmp_path)) == {"dvc.yaml": "FAIL", "params.yaml": "FAIL"}


def test_git_is_asked_whether_the_last_run_is_committed(folder):
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    assert states(repository(folder)) == {"git": "FAIL"}  # no commit
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], cwd=folder, check=True)
    assert states(repository(folder)) == {"git": "OK"}
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    assert states(repository(folder)) == {"git": "WARN"}
    subprocess.run([*git, "add", "dvc.lock"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-q", "-m", "second"], cwd=folder, check=True)
    assert states(repository(folder)) == {"git": "OK"}


def test_it_tells_who_has_the_workspace(folder):
    with dvc.working(folder):
        assert any(f"process {os.getpid()}" in each.line for each in locks(folder))
    assert [each.line for each in locks(folder)] == ["free", "none held"]


def test_a_torn_lock_of_dvc_is_told_with_its_cure_and_left_to_the_next_run(folder):
    lock = folder / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    (found,) = [each for each in locks(folder) if each.check == "dvc locks"]
    assert (found.state, "repairs" in found.cure) == ("WARN", True)
    assert lock.exists()


def test_a_command_of_dvc_at_work_is_named(folder):
    entry = {"pid": os.getpid(), "cmd": "dvc repro"}
    (folder / ".dvc" / "tmp").mkdir(exist_ok=True)
    (folder / ".dvc" / "tmp" / "rwlock").write_text(json.dumps({"write": {"stage": entry}, "read": {}}))
    assert any("dvc repro" in each.line for each in locks(folder))


def test_the_remote_is_asked(folder, tmp_path):
    assert states(remote(folder)) == {"remote": "SKIP"}
    add = [sys.executable, "-m", "dvc", "remote", "add", "--default", "there", str(tmp_path / "there")]
    subprocess.run(add, cwd=folder, check=True, capture_output=True)
    assert states(remote(folder)) == {"remote": "WARN"}
    (tmp_path / "there").mkdir()
    assert states(remote(folder)) == {"remote": "OK"}


def test_a_remote_that_cannot_be_reached_fails(folder):
    (folder / ".dvc" / "config").write_text("[core]\nremote = there\n['remote \"there\"']\nurl = nowhere://x\n")
    (found,) = remote(folder)
    assert found.state == "FAIL"


def test_without_a_server_nothing_is_asked(folder):
    with temporary_settings(restore_defaults=[PREFECT_API_URL]):
        assert states(prefect(folder)) == {"prefect": "SKIP"}


def test_a_server_that_is_gone_fails_at_once(folder):
    start = time.monotonic()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        (found,) = prefect(folder)
    assert (found.state, "127.0.0.1:9" in found.line) == ("FAIL", True)
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_a_pool_needs_to_be_there_and_to_have_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    meta = {"meta": {"prefect": {"pool": "gpu"}}}
    folder = standin.make(tmp_path / "clone", one={"cmd": "touch one"}, two={"cmd": "touch two"} | meta)
    with prefect_server(), get_client(sync_client=True) as client:
        assert states(prefect(folder)) == {"prefect": "OK", "pool cpu": "WARN", "pool gpu": "WARN"}
        for pool in ("cpu", "gpu"):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        assert states(prefect(folder))["pool cpu"] == "WARN"
        for worker, pool in (("a", "cpu"), ("b", "gpu")):
            client._client.post(f"/work_pools/{pool}/workers/heartbeat", json={"name": worker})
        assert states(prefect(folder)) == {
            "prefect": "OK", "pool cpu": "OK", "pool gpu": "OK", "prefect database": "WARN",
        }  # fmt: skip


def test_the_command_fails_where_a_check_does_and_goes_on_after_it(tmp_path, monkeypatch, capsys):
    def broken(root):
        raise ImportError("no dvc")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.doctor.__main__.CHECKS", (broken, *CHECKS[:1]))
    assert main(["--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [(each["check"], each["state"]) for each in said] == [("broken", "FAIL"), ("versions", "SKIP")]
    assert main([]) == 1
    assert ".[flows]" in capsys.readouterr().out


def test_stylegan_t_doctor_outside_of_a_clone_says_where_to_run_it(tmp_path):
    code, said = said_by([sys.executable, "-m", "stylegan_t.cli", "doctor"], tmp_path, 60)
    assert (code, "root of a clone" in said) == (2, True)


@pytest.mark.slow
def test_stylegan_t_doctor_makes_all_checks_of_this_repository():
    code, said = said_by([sys.executable, "-m", "stylegan_t.cli", "doctor", "--json"], ROOT, 120)
    found = {each["check"]: each["state"] for each in json.loads(said)}
    assert code == int("FAIL" in found.values())
    assert {"python": "OK", "dvc.yaml": "OK", "params.yaml": "OK"}.items() <= found.items()
    assert {"git", "workspace", "dvc locks", "remote", "prefect"} <= found.keys()

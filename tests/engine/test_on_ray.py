"""Parts on Ray: clusters as people start them, a node of which is killed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from stylegan_t.engine.run import run_parts
from stylegan_t.errors import SettingsError
from stylegan_t.settings.engine import ProcessEngine, RayEngine
from tests.engine.works import Write, begun, log, results
from tests.imports import ROOT

OURS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}


def nothing(part: int, facts: dict) -> None:
    """For those who do not care."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    while words not in (line := process.stdout.readline()):
        assert line, "it ended"


def end(process: subprocess.Popen) -> None:
    """Kill a process and all below it, as when a machine goes."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        each.kill()
    process.communicate()


# ---- without a cluster ----------------------------------------------------------------------------------------


def on_ray(address: str | None) -> RayEngine:
    return RayEngine(kind="ray", address=address, num_cpus=1, num_gpus=0)


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"Ray is missing; `pip install 'stylegan-t\[ray\]'`"):
        run_parts(Write(tmp_path), [0], on_ray(None), nothing)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_answers_is_named_at_once(tmp_path, scheme):
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(SettingsError, match=f"engine.address = '{address}': nobody answers there .*`ray start --head`"):
        run_parts(Write(tmp_path), [0], on_ray(address), nothing)


@pytest.mark.parametrize(("address", "reason"), [("auto", "Could not find any"), ("nonsense", "Invalid address")])
def test_an_address_that_means_no_cluster_is_named(tmp_path, monkeypatch, address, reason):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SettingsError, match=f"engine.address = '{address}': {reason}"):
        run_parts(Write(tmp_path), [0], on_ray(address), nothing)


# ---- with one: in processes of their own, since Ray leaves files open, which is an error in a test ---------------


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder with nothing but the tests' own work, so that our code can only come from where it is installed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, that hears Ctrl-C; nothing of it is left behind."""
    process = subprocess.Popen(
        arguments, cwd=folder, env={**os.environ, **OURS, "PYTHONPATH": str(folder)}, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no thread of ours forks)
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            end(process)


def drive(cwd: Path, address: str | None, **what: Any):
    engine = {"kind": "ray", "address": address, "num_cpus": what.pop("num_cpus", 1.0), "num_gpus": 0.0}
    return command(cwd, sys.executable, "-m", "tests.engine.drive", json.dumps({"engine": engine, **what}))


@dataclass
class Cluster:
    """A head that takes no parts and a node with one core.

    Attributes:
        folder: Where its processes, and those that use it, are started.
        address: Of the head.
        client: Of its server for those who are on no node.
    """

    folder: Path
    address: str
    client: str

    @contextmanager
    def node(self) -> Iterator[subprocess.Popen[str]]:
        """Another node with one core."""
        with command(self.folder, *RAY, "--address", self.address, "--num-cpus", "1") as process:
            wait_for_line(process, "Ray runtime started")
            yield process

    def run(self, parts: int, **what: Any) -> tuple[dict[int, dict], str]:
        """What is told of the parts, and what else is said."""
        with drive(self.folder, self.address, parts=parts, **what) as process:
            output, _ = process.communicate(timeout=120)
        lines = output.splitlines()
        told = dict(json.loads(line) for line in lines if line.startswith("[") and line.endswith("}]"))
        return told, "\n".join(line for line in lines if not line.startswith("["))


RAY = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--node-ip-address", "127.0.0.1"]


@pytest.fixture(scope="module")
def cluster(elsewhere) -> Iterator[Cluster]:
    port, client = free_port(), free_port()
    short = tempfile.mkdtemp(prefix="ray-")  # its sockets' names must be
    head = [*RAY, "--head", "--num-cpus", "0", "--port", str(port), "--ray-client-server-port", str(client)]
    cluster = Cluster(elsewhere, f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}")
    with command(elsewhere, *head, "--include-dashboard", "false", "--temp-dir", short) as process:
        wait_for_line(process, "Ray runtime started")
        with cluster.node():
            yield cluster
    shutil.rmtree(short)


@pytest.mark.slow
def test_a_killed_node_costs_its_part_in_hand_and_the_result_is_that_of_one_process(tmp_path, cluster):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    alone.mkdir()
    spread.mkdir()
    run_parts(Write(alone), range(12), ProcessEngine(kind="processes", num_workers=0), nothing)

    what = {"parts": 12, "folder": str(spread), "seconds": 1.0}
    with cluster.node() as second, drive(cluster.folder, cluster.address, **what) as process:
        for _ in range(4):
            wait_for_line(process, "square")
        lost = in_hand(spread, second)
        end(second)
        output, _ = process.communicate(timeout=120)
    assert results(spread) == results(alone), output
    assert begun(spread) == dict.fromkeys(range(12), 1) | {lost: 2}, output


def in_hand(folder: Path, node: subprocess.Popen) -> int:
    """A part that a node has begun and not ended, as soon as it has one."""
    while True:
        processes = {child.pid for child in psutil.Process(node.pid).children(recursive=True)}
        for part, process in log(folder):
            if process in processes and str(part) not in results(folder):
                return part


@pytest.mark.slow
def test_a_killed_worker_costs_its_part_in_hand(tmp_path, cluster):
    told, _ = cluster.run(3, folder=str(tmp_path), dies_once=[1])
    assert told == {part: {"square": part**2} for part in range(3)}
    assert begun(tmp_path) == {0: 1, 1: 2, 2: 1}


@pytest.mark.slow
def test_a_part_that_loses_its_worker_each_time_is_named(tmp_path, cluster):
    _, said = cluster.run(2, folder=str(tmp_path), dies=[1])
    assert "part 1 lost its worker or machine 3 times" in said and "(1)" in said
    assert begun(tmp_path)[1] == 3


@pytest.mark.slow
def test_an_error_of_the_work_comes_through_as_itself_in_one_line(tmp_path, cluster):
    assert cluster.run(2, folder=str(tmp_path), complains=[0])[1] == "part 0 is bad (3)"
    for what, line in (({"confuses": [0]}, "Unreadable: one two"), ({"grabs": [0]}, "Unwritable: ('three', ")):
        last = cluster.run(1, folder=str(tmp_path), **what)[1].splitlines()[-1]
        assert last.startswith(f"RuntimeError: tests.engine.works.{line}"), (
            "one that cannot be sent is told all the same"
        )


@pytest.mark.slow
def test_machines_run_the_code_that_was_sent_and_not_one_that_they_have(cluster):
    for address in (cluster.address, cluster.client):
        with drive(cluster.folder, address, parts=1) as process:
            output, _ = process.communicate(timeout=120)
        assert "py_modules_files" in Path(json.loads(output.splitlines()[0])[1]["code"]).parts, output


# ---- one that is started for the command ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_part_that_no_machine_can_take_is_refused_where_none_can_come(tmp_path, elsewhere):
    with drive(elsewhere, None, parts=1, folder=str(tmp_path), num_cpus=4096.0) as process:
        output, _ = process.communicate(timeout=120)
    assert "engine: a part takes num_cpus = 4096 and num_gpus = 0, which none of the cluster's 1 machines has" in output
    assert output.strip().endswith("(2)") and output.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("to", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)])
def test_a_stopped_command_ends_the_cluster_that_it_started_and_says_one_line(tmp_path, elsewhere, to, number):
    with drive(elsewhere, None, parts=99, folder=str(tmp_path), seconds=0.4) as process:
        wait_for_line(process, "square")
        family = psutil.Process(process.pid).children(recursive=True)
        to(process.pid, number)
        output, _ = process.communicate(timeout=60)
    assert [line for line in output.splitlines() if not line.startswith("[")] == [
        "drive: stopped; the same command goes on (75)"
    ]
    assert psutil.wait_procs(family, timeout=60)[1] == []

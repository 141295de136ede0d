"""A run over many machines: a real server, real workers, a real git repository and DVC remote."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import port_of_our_own, start_server, stop, url_at, wait_until_healthy
from tests.flows import cluster, services, standin
from tests.flows.cluster import Origin, finished, spread, worker

pytestmark = pytest.mark.slow

STAGES: dict = {
    "raw": {"cmd": "mkdir raw && seq 20 > raw/a && seq 9 > raw/b"},
    "left": {
        "cmd": "echo $CUDA_VISIBLE_DEVICES $STYLEGAN_T_DEVICES >> ../told; cat raw/a > left",
        "deps": ["raw/a"],
        "params": ["width"],
        "meta": {"prefect": {"pool": "gpu"}},
    },
    "right": {"cmd": "cat raw/b > right", "deps": ["raw/b"]},
    "both": {"cmd": "cat left right > both", "deps": ["left", "right"], "meta": {"prefect": {"pool": "gpu"}}},
}


class Server:
    """A real one with its services, that can be killed and started again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.start()

    def start(self) -> None:
        self.process = start_server(self._port)
        wait_until_healthy(url_at(self._port), self.process)

    def kill(self) -> None:
        """With SIGKILL, and all below it."""
        for each in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            each.kill()
        self.process.wait()
        self.process.stdin.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """And two pools without workers, in a home of its own: other tests make pools of these names too."""
    home = {"PREFECT_HOME": str(tmp_path_factory.mktemp("home"))}
    with pytest.MonkeyPatch.context() as patch, port_of_our_own(0) as port:
        for name, value in (cluster.QUICK | home | {"PREFECT_API_URL": url_at(port)}).items():
            patch.setenv(name, value)
        server = Server(port)
        with temporary_settings({PREFECT_API_URL: url_at(port)}):
            services.make_pools("cpu", "gpu")
            yield server
        stop(server.process)


def entries(folder) -> dict:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def test_two_workers_make_what_dvc_repro_makes(tmp_path, server):
    origin = Origin(tmp_path / "o", **STAGES)
    origin.publish()
    with worker(origin, "one", "cpu"), worker(origin, "two", "gpu", gpus="7+8"):
        code, output = finished(spread(origin))
        assert (code, standin.table(output)) == (0, dict.fromkeys(STAGES, "ran")), output
        (branch,) = origin.branches()
        alone = origin.clone("alone")
        cluster.dvc(alone, "repro")
        spread_out = origin.clone("spread-out", branch)
        assert entries(spread_out) == entries(alone)
        cluster.dvc(spread_out, "pull")
        for path in ("raw/a", "raw/b", "left", "right", "both"):
            assert (spread_out / path).read_bytes() == (alone / path).read_bytes()
        assert (tmp_path / "o" / "told").read_text().splitlines()[0] == "7,8 2", (
            "one training on the GPUs of its worker"
        )
        assert not (tmp_path / "o" / "one" / "left").exists(), "each stage on its pool"
        messages = cluster.git(spread_out, "log", "--format=%s", "origin/main..").splitlines()
        assert sorted(messages) == sorted(f"{name}: ran" for name in STAGES)

        code, output = finished(spread(origin, "--revision", branch))
        assert (code, standin.table(output)) == (0, dict.fromkeys(STAGES, "cached")), output
        assert cluster.git(origin.url, "rev-parse", origin.branches()[-1]) == cluster.git(
            origin.url, "rev-parse", branch
        )

        code, output = finished(spread(origin, "--revision", branch, "--set", "width=2"))
        outcomes = standin.table(output)
        assert code == 0 and outcomes["left"] == "ran", output
        assert outcomes == {"raw": "cached", "left": "ran", "right": "cached", "both": "cached"}


SLEEPER = (
    "trap 'kill $!; echo saved >> {0}/saved; exit 75' TERM; echo $$ >> {0}/begun; "
    "test -e {0}/go || {{ sleep 300 & wait; }}; touch {1}"
)
"""Begins, and is done only where it may go on; asked to stop, it saves and says that it can be resumed."""


def slow(tmp_path, name: str = "slow", **more) -> Origin:
    """A repository with a stage that takes until ``go`` is there."""
    stages = {"first": {"cmd": "touch first"}, name: {"cmd": SLEEPER.format(tmp_path, name), "deps": ["first"], **more}}
    origin = Origin(tmp_path / "o", **stages)
    origin.publish()
    return origin


def begun(tmp_path) -> list[int]:
    path = tmp_path / "begun"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def gone(pids: list[int]) -> bool:
    return not any(standin.is_running(pid) for pid in pids)


def test_a_lost_machine_costs_what_it_had_in_hand_and_another_one_goes_on(tmp_path, server):
    origin = slow(tmp_path)
    with worker(origin, "one") as one:
        process = spread(origin)
        cluster.wait_until(lambda: len(begun(tmp_path)) == 1, 90)
        one.vanish()
        (tmp_path / "go").touch()
        with worker(origin, "two"):
            code, output = finished(process)
    assert (code, standin.table(output)) == (0, {"first": "ran", "slow": "ran"}), output
    assert "lost its worker; another one goes on" in output
    states = sorted(run.state_name for run in cluster.runs_named("slow runs/"))[-2:]
    assert states == ["Completed", "Crashed"]
    assert gone(begun(tmp_path))


def test_a_killed_server_stops_nothing_and_the_run_ends_well_when_it_is_back(tmp_path, server):
    origin = slow(tmp_path)
    with worker(origin, "one"):
        process = spread(origin)
        cluster.wait_until(lambda: len(begun(tmp_path)) == 1, 90)
        server.kill()
        time.sleep(10)
        server.start()
        assert not gone(begun(tmp_path))
        (tmp_path / "go").touch()
        for pid in begun(tmp_path):  # it sleeps: as if it had come to its end now
            subprocess.run(["pkill", "-P", str(pid), "sleep"], check=True)
        code, output = finished(process)
    assert (code, standin.table(output)) == (0, {"first": "ran", "slow": "ran"}), output
    assert len(begun(tmp_path)) == 1


def test_a_cancelled_run_stops_what_workers_do_for_it_after_that_has_saved(tmp_path, server):
    origin = slow(tmp_path)
    with worker(origin, "one") as one:
        process = spread(origin)
        cluster.wait_until(lambda: len(begun(tmp_path)) == 1, 90)
        process.terminate()
        code, output = finished(process)
        assert code == 128 + 15, output
        cluster.wait_until(lambda: gone(begun(tmp_path)), 60)
        assert (tmp_path / "saved").exists()
        name = origin.branches()[-1]
        cluster.wait_until(lambda: cluster.runs_named(f"slow {name}")[0].state_name == "Cancelled", 60)

        (tmp_path / "go").touch()  # the next run goes on, on the same worker, with what was finished
        code, output = finished(spread(origin, "--revision", name))
        assert (code, standin.table(output)) == (0, {"first": "cached", "slow": "ran"}), output
        assert one.process.poll() is None


def test_a_stage_that_is_cancelled_fails_its_run(tmp_path, server):
    origin = slow(tmp_path)
    with worker(origin, "one"):
        process = spread(origin)
        cluster.wait_until(lambda: len(begun(tmp_path)) == 1, 90)
        (run,) = cluster.runs_named(f"slow {origin.branches()[-1]}")
        command = [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run.id)]
        subprocess.run(command, check=True, capture_output=True)
        code, output = finished(process)
        assert code == 1 and "slow: " in output.splitlines()[-1], output
        assert standin.table(output) == {"first": "ran", "slow": "failed"}
        cluster.wait_until(lambda: gone(begun(tmp_path)), 60)


def test_the_exit_code_of_a_stage_says_whether_it_is_tried_again_and_is_that_of_the_run(tmp_path, server):
    def failing(name: str, code: int) -> dict:
        options = {"retries": 1, "retry_delay_seconds": 0}
        return {"cmd": f"echo {name} >> {tmp_path}/attempts; exit {code}", "meta": {"prefect": options}}

    codes = {"data": 3, "settings": 2, "other": 1}
    stages = {name: failing(name, code) for name, code in codes.items()}
    stages |= {"after": {"cmd": "touch after", "deps": ["data"]}, "apart": {"cmd": "touch apart"}}
    origin = Origin(tmp_path / "o", **stages)
    origin.publish()
    with worker(origin, "one"):
        found, output = finished(spread(origin))
    assert found == 3, output
    assert output.splitlines()[-1] == "data: its command exited with 3"
    assert standin.table(output) == dict.fromkeys(codes, "failed") | {"after": "skipped", "apart": "ran"}
    attempts = (tmp_path / "attempts").read_text().split()
    assert {name: attempts.count(name) for name in codes} == {"data": 1, "settings": 1, "other": 2}


def test_a_killed_worker_saves_and_the_stage_goes_on_elsewhere(tmp_path, server):
    origin = slow(tmp_path)
    with worker(origin, "one") as one:
        process = spread(origin)
        cluster.wait_until(lambda: len(begun(tmp_path)) == 1, 90)
        one.process.terminate()
        assert one.process.wait(60) is not None
        assert gone(begun(tmp_path)) and (tmp_path / "saved").exists(), "the worker ends after what it does"
        (tmp_path / "go").touch()
        with worker(origin, "two"):
            code, output = finished(process)
    assert (code, standin.table(output)) == (0, {"first": "ran", "slow": "ran"}), output


def test_a_commit_that_names_no_remote_is_refused_before_anything_is_sent(tmp_path, server):
    origin = Origin(tmp_path / "o", stage={"cmd": "touch stage"})
    cluster.git(origin.author, "remote", "add", "origin", str(origin.url))
    origin.push("no remote")
    code, output = finished(spread(origin))
    assert code == 2 and "dvc remote add --default" in output.splitlines()[-1], output

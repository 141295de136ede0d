"""What a real Prefect server shows of a run: its progress, its metrics, its report."""

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.exceptions import PrefectHTTPStatusError

from flows.reports import progress
from flows.reports.progress import watching
from flows.reports.report import conclude
from flows.server import prefect_server
from tests.flows.live import STAGE, TOTAL, begin, live, log
from tests.imports import ROOT


@pytest.fixture(scope="module")
def server():
    with prefect_server() as url:
        yield url


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.05)


def artifacts(flow_run_name: str, key: str = "train-generator-progress") -> list:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
        runs = {run.id for run in client.read_flow_runs() if run.name == flow_run_name}
        return [each for each in found if each.flow_run_id in runs]


def train(root: Path, work) -> None:
    with watching(root, STAGE):
        work()


def run_in_a_flow(root: Path, name: str, work) -> None:
    """In a task of a flow run of this name."""
    as_task = task(train, cache_policy=None, persist_result=False)
    flow(lambda: as_task(root, work), name="training", flow_run_name=name)()


def test_one_artifact_follows_a_training_to_its_end(server, tmp_path):
    seen = []

    def work() -> None:
        begin(live(tmp_path))
        for kimg in (32.0, 64.0):
            log(live(tmp_path), kimg)
            wait_until(lambda kimg=kimg: any(each.data == 100 * kimg / TOTAL for each in artifacts("follows")))
            seen.extend(artifacts("follows"))
        log(live(tmp_path), TOTAL)
        begin(live(tmp_path), finished=True)

    run_in_a_flow(tmp_path, "follows", work)
    (last,) = artifacts("follows")
    assert {each.id for each in seen} == {last.id}
    assert [each.data for each in seen] == [25.0, 50.0]
    assert (last.type, last.data, last.description) == ("progress", 100.0, "128.0 of 128 kimg, 210 images/s, done")
    assert last.task_run_id is not None


def test_a_stage_without_live_records_has_no_artifact(server, tmp_path):
    run_in_a_flow(tmp_path, "silent", lambda: None)
    assert artifacts("silent") == []


def test_a_failing_training_fails_as_it_would_and_its_last_progress_is_shown(server, tmp_path):
    def work() -> None:
        begin(live(tmp_path))
        log(live(tmp_path), 64.0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_in_a_flow(tmp_path, "fails", work)
    assert [each.data for each in artifacts("fails")] == [50.0]


def test_a_server_that_does_not_answer_costs_one_warning_and_no_training(server, tmp_path, monkeypatch, caplog):
    tries = threading.Semaphore(0)

    def no_answer(*_, **__):
        tries.release()
        raise httpx.ConnectError("all connection attempts failed")

    def work() -> None:
        begin(live(tmp_path))
        for kimg in (1.0, 2.0, 3.0):
            log(live(tmp_path), kimg)
            assert tries.acquire(timeout=30)
        (tmp_path / "trained").touch()

    monkeypatch.setattr(progress, "get_client", no_answer)
    run_in_a_flow(tmp_path, "alone", work)
    assert (tmp_path / "trained").exists()
    said = [record.getMessage() for record in caplog.records if "cannot be shown" in record.getMessage()]
    assert said == [f"{STAGE}: its progress cannot be shown (all connection attempts failed)"]


def test_an_artifact_that_somebody_deleted_fails_no_training(server, tmp_path, monkeypatch):
    refused = threading.Event()
    send = progress._Artifact._send

    def noticing(self, state):
        try:
            send(self, state)
        except PrefectHTTPStatusError:
            refused.set()
            raise

    def work() -> None:
        begin(live(tmp_path))
        log(live(tmp_path), 1.0)
        wait_until(lambda: artifacts("deleted"))
        with get_client(sync_client=True) as client:
            client.delete_artifact(artifacts("deleted")[0].id)
        log(live(tmp_path), 2.0)
        assert refused.wait(30)

    monkeypatch.setattr(progress._Artifact, "_send", noticing)
    run_in_a_flow(tmp_path, "deleted", work)


def test_the_end_of_a_flow_shows_its_metrics_and_its_report_at_once(server, tmp_path):
    metrics = tmp_path / "artifacts" / "evaluate" / "metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"fd_small_clip_5k_shapes32": 0.002, "mean_accuracy": 0.9, "none_rate": 0.0}))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    seconds = []

    def end() -> None:
        results = [SimpleNamespace(stage="evaluate", outcome="ran", seconds=3.0)]
        start = time.monotonic()
        assert conclude(tmp_path, "concluded", results, "End to end").accepted
        seconds.append(time.monotonic() - start)

    flow(end, name="pipeline", flow_run_name="concluded")()
    (table,) = artifacts("concluded", "metrics")
    (report,) = artifacts("concluded", "report")
    assert table.type == "table"
    assert [row["metric"] for row in json.loads(table.data)] == ["fd_small_clip_5k_shapes32", "mean_accuracy"]
    assert report.type == "markdown"
    assert "| evaluate | ran | 3.0 |" in report.data
    assert "## Accepted" in report.data
    assert seconds[0] < 3


def wait_until(holds, seconds: float = 30) -> None:
    for _ in range(int(seconds / 0.05)):
        if holds():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen")

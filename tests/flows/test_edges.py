"""What Prefect shows as depending on what is what DVC says."""

from __future__ import annotations

import re

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.dvc import edges, read_stages
from flows.pipeline import SELECTIONS
from flows.server import prefect_server
from tests.flows import standin
from tests.imports import ROOT

DIAMOND: dict = {
    "last": {"cmd": "cat left right > last", "deps": ["left", "right"]},
    "left": {"cmd": "cp first/a left", "deps": ["first/a"]},
    "right": {"cmd": "cp first/b right", "deps": ["first/b"]},
    "first": {"cmd": "mkdir first; touch first/a first/b"},
    "apart": {"cmd": "touch apart"},
}


@pytest.mark.slow
def test_edges_of_the_flow_are_those_of_dvc(tmp_path):
    folder = standin.make(tmp_path, **DIAMOND)
    expected = {("first", "left"), ("first", "right"), ("left", "last"), ("right", "last")}
    assert edges(read_stages(folder)) == expected
    with temporary_settings(restore_defaults=[PREFECT_API_URL]), prefect_server(services=True) as url:
        for _ in ("all run", "all cached"):  # equal results are no edges
            code, output = standin.run(folder, PREFECT_API_URL=url)
            assert code == 0, output
            name = re.search(r"Beginning flow run '([\w-]+)'", output)[1]
            assert flow_edges(name) == expected


def flow_edges(flow_run: str) -> set[tuple[str, str]]:
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[flow_run])))
    names = {run.id: run.name for run in runs}
    assert sorted(names.values()) == sorted(DIAMOND)
    return {
        (names[each.id], run.name) for run in runs for inputs in run.task_inputs.values() for each in inputs
        if each.input_type == "task_run"
    }  # fmt: skip


def test_edges_of_our_pipeline_are_those_of_the_design():
    found = edges(read_stages(ROOT))
    chain = ["download", "fetch_encoders", "score", "filter", "reference_statistics", "evaluate"]
    training = ["filter", "train_generator", "finetune_text_encoder", "train_super_resolution", "evaluate"]
    assert {*zip(chain, chain[1:], strict=False), *zip(training, training[1:], strict=False)} <= found
    assert len(read_stages(ROOT)) == 9


def test_named_flows_are_selections_of_stages():
    selected = {name: [stage.name for stage in read_stages(ROOT, targets)] for name, targets in SELECTIONS.items()}
    data = ["download", "fetch_encoders", "score", "filter"]
    assert selected["prepare_data"] == [*data, "reference_statistics"]
    assert selected["train"] == [*data, "train_generator", "finetune_text_encoder", "train_super_resolution"]
    assert selected["evaluate"] == selected["end_to_end"] and len(selected["end_to_end"]) == 9

"""Entries of dvc.lock on their way from one machine to another."""

from __future__ import annotations

import json

from flows.dvc import plan, read_entry, write_entry
from tests.flows import cluster, standin

VALUES = {"small": 1e-06, "large": 1e20, "half": 0.5, "yes": True, "nothing": None, "text": "1e-06", "list": [1e-06, 2]}


def test_an_entry_that_came_by_json_is_as_dvc_wrote_it(tmp_path):
    folder = standin.make(tmp_path / "made", VALUES, stage={"cmd": "echo 1 > stage", "params": list(VALUES)})
    cluster.dvc(folder, "repro")
    written = (folder / "dvc.lock").read_bytes()
    sent = json.dumps(read_entry(folder, "stage"))
    (folder / "dvc.lock").unlink()
    write_entry(folder, "stage", json.loads(sent))
    assert (folder / "dvc.lock").read_bytes() == written
    assert [each.would for each in plan(folder)] == ["nothing"]

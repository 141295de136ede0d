"""Real pictures from a list of links, over http, through the filter into a training."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stylegan_t.config import load_config, parse_config
from stylegan_t.data.shards import Shards
from stylegan_t.records import LOG, LogRecord, read_lines
from stylegan_t.stages import download, fetch_encoders, filter, score, train_generator
from stylegan_t.stages.workspace import Workspace
from tests.imports import ROOT

EMOJI = ROOT.parent / "shared" / "data" / "emoji"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMOJI.is_dir(), reason="no folder of emoji beside the repository"),
]


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(EMOJI)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def url_list(path: Path, address: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (EMOJI / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["url"] = f"{address}/{row['file_name']}"
        row["key"] = Path(str(row["file_name"])).stem
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_all_emoji_arrive_and_what_the_filter_leaves_of_them_trains(tmp_path, address):
    rows = url_list(tmp_path / "emoji.jsonl", address)
    values = load_config(ROOT / "stylegan_t" / "profiles" / "micro.yaml").model_dump()
    values["evaluate"]["prompt_set"] = "heldout"
    values["download"]["source"] = {
        "kind": "urls", "paths": ["emoji.jsonl"], "format": None, "columns": None, "records": None,
        "url_column": "url", "caption_columns": ["text"], "key_column": "key", "sha256_column": None,
    }  # fmt: skip
    values["download"]["fetching"]["allowed_networks"] = ["127.0.0.1/32"]
    values["download"]["samples_per_shard"] = 500
    values["filter"] |= {"variant_pattern": "-1f3f[b-f]", "p_heldout": 0.1}
    values["train_generator"] |= {"total_kimg": 0.4, "grow_at_kimg": [0.2], "log_every_kimg": 0.1}
    config, workspace = parse_config(values, "emoji"), Workspace(tmp_path)

    download.run(config, workspace, "cpu")
    raw = Shards(workspace.raw)
    assert len(raw) == len(rows) == 3621
    assert sorted(raw.keys) == sorted(str(row["key"]) for row in rows)
    for number in (0, 1234, len(raw) - 1):
        assert raw[number].image == (EMOJI / "images" / f"{raw.keys[number]}.webp").read_bytes()
        assert raw[number].metadata["keywords"] == next(r for r in rows if r["key"] == raw.keys[number])["keywords"]

    fetch_encoders.run(config, workspace, "cpu")
    score.run(config, workspace, "cpu")
    filter.run(config, workspace, "cpu")
    report = json.loads((workspace.prepared / "report.json").read_text())
    assert report["total"] == len(rows) == report["kept"] + sum(report["dropped"].values())
    assert report["kept"] == 3439 and report["dropped"]["low_clip_score"] == 180, "the best 95 %"
    assert report["dropped"]["caption_too_short"] == 2, "ox and om"
    assert report["train"] + report["heldout"] == report["kept"]
    rejected = pq.read_table(workspace.prepared / "rejected.parquet")
    assert len(rejected) == len(rows) - report["kept"]

    train_generator.run(config, workspace, "cpu")
    log = read_lines(workspace.artifacts("train_generator") / LOG, LogRecord)
    assert log[-1].kimg == pytest.approx(0.4, abs=0.05)

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.data.download.reasons import NOT_DOWNLOADED, NOT_KEPT
from stylegan_t.data.raw import write_raw_shard
from stylegan_t.data.shards import Skipped
from stylegan_t.data.sources.lists import Layout
from stylegan_t.data.sources.urls import DECISIVE, Columns, Urls
from stylegan_t.errors import DataError
from tests.data.download.server import Server, always
from tests.data.download.world import AS_THEY_COME, jpeg, limits, storage
from tests.imports import ROOT
from tests.sources import all_of, lines, parts_of, put, serve

COLUMNS = Columns("url", ("caption",))
COMPLETE_OR_NOT = [("/0.jpg", "one"), ("/1.jpg", ""), ("/none.jpg", "two")]
"""Paths and captions of three rows, one of which becomes a sample."""


def urls(root: Path, *paths: str, layout: Layout = Layout(), columns: Columns = COLUMNS, rows: int = 100, **more: Any):  # noqa: B008
    return Urls(paths, layout, columns, more.pop("limits", limits()), more.pop("storage", AS_THEY_COME), rows, root)


def key_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:20]


@pytest.fixture
def server():
    with Server({f"/{n}.jpg": always(jpeg(n)) for n in range(6)}) as server:
        yield server


def test_pictures_come_with_their_captions_and_all_other_columns(tmp_path, server):
    rows = [
        {"url": server.url("/0.jpg"), "caption": " a  cat\n", "licence": "CC0", "score": 0.5, "tags": ["x", "ä"]},
        {"url": server.url("/1.jpg"), "caption": ["one", "", "two"], "licence": None},
    ]
    put(tmp_path, {"list.jsonl": lines(*rows)})
    (first, second), skipped = all_of(urls(tmp_path, "list.jsonl"), tmp_path / "work")
    assert not skipped
    assert (first.key, first.fields["jpg"], first.captions) == (key_of(rows[0]["url"]), jpeg(0), ["a cat"])
    assert first.metadata == {
        "url": rows[0]["url"], "licence": "CC0", "score": 0.5, "tags": ["x", "ä"], "width": 40, "height": 30,
        "original_width": 40, "original_height": 30, "sha256": hashlib.sha256(jpeg(0)).hexdigest(),
    }  # fmt: skip
    assert second.captions == ["one", "two"] and second.metadata["licence"] is None


@pytest.mark.parametrize("name", ["list.parquet", "list.csv", "list.csv.gz", "list.tsv", "list.jsonl", "list.jsonl.gz"])
def test_every_kind_of_list_gives_the_same_samples(tmp_path, server, name):
    rows = [{"url": server.url(f"/{n}.jpg"), "caption": f"number {n}", "note": f"n{n}"} for n in range(4)]
    reference, _ = all_of(urls(put(tmp_path / "a", {"list.jsonl": lines(*rows)}), "list.jsonl"), tmp_path / "work-a")
    if name == "list.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif "jsonl" in name:
        put(tmp_path, {name: gzip.compress(lines(*rows).encode()) if name.endswith("gz") else lines(*rows)})
    else:
        mark = "\t" if "tsv" in name else ","
        text = "\n".join(mark.join(map(str, row)) for row in [list(rows[0]), *(list(r.values()) for r in rows)])
        put(tmp_path, {name: gzip.compress(text.encode()) if name.endswith("gz") else text})
    assert all_of(urls(tmp_path, name), tmp_path / "work")[0] == reference


def test_rows_without_what_a_sample_needs_are_told_and_lose_nothing_else(tmp_path, server):
    good = {"url": server.url("/0.jpg"), "caption": "good"}
    rows = [
        {"caption": "no url"},
        {"url": "  ", "caption": "empty url"},
        {"url": "http://a/silent.jpg"},
        {"url": "http://a/blank.jpg", "caption": " \n"},
        {"url": "http://a/object.jpg", "caption": {"en": "a cat"}},
        good,
        {"url": server.url("/none.jpg"), "caption": "gone"},
    ]
    text = "{no json\n" + lines(*rows[:5]) + '{"url": "u", "caption": "caf\udce9"}\n' + lines(*rows[5:])
    (tmp_path / "list.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    (part,) = parts_of(urls(tmp_path, "list.jsonl"), tmp_path / "work")
    reasons = [pair.reason if isinstance(pair, Skipped) else "success" for pair in part]
    assert reasons == [
        "malformed_row", "missing_url", "missing_url", "missing_caption", "missing_caption", "malformed_row",
        "malformed_row", "success", "http_404",
    ]  # fmt: skip
    assert len({pair.key for pair in part}) == len(part)
    assert part[1] == Skipped(part[1].key, "missing_url", {}, ["no url"])
    assert part[3].key == key_of("http://a/silent.jpg") and part[3].metadata == {"url": "http://a/silent.jpg"}
    assert part[5].metadata == {"url": "http://a/object.jpg", "caption": {"en": "a cat"}}
    assert part[-1] == Skipped(part[-1].key, "http_404", {"url": server.url("/none.jpg")}, ["gone"])


@pytest.mark.parametrize("value", [None, 5, "a cat", ["x"], {"a": 1}])
def test_a_column_of_the_list_may_be_called_captions_and_hold_anything(tmp_path, server, value):
    rows = [{"url": server.url(path), "caption": text, "captions": value} for path, text in COMPLETE_OR_NOT]
    put(tmp_path, {"list.jsonl": lines(*rows)})
    pairs = urls(tmp_path, "list.jsonl")
    assert pairs.plan(tmp_path / "work") == 1
    write_raw_shard(tmp_path / "raw", 0, pairs.pairs(0, tmp_path / "work"))
    table = pq.read_table(tmp_path / "raw" / "00000.parquet").to_pylist()
    assert [(row["status"], row["caption"]) for row in table] == [
        ("missing_caption", None), ("success", "one"), ("http_404", "two"),
    ]  # fmt: skip
    assert all(json.loads(row["metadata"])["captions"] == value for row in table)


def test_columns_called_like_what_the_downloader_tells_are_kept_under_another_name(tmp_path, server):
    told = {"url": "page", "width": 4000, "height": 3000, "original_width": 1, "sha256": "orig", "list_width": 5}
    rows = [{"address": server.url(path), "caption": text, **told} for path, text in COMPLETE_OR_NOT]
    put(tmp_path, {"list.jsonl": lines(*rows)})
    ((silent, found, gone),) = parts_of(
        urls(tmp_path, "list.jsonl", columns=Columns("address", ("caption",))), tmp_path / "work"
    )
    digest = hashlib.sha256(jpeg(0)).hexdigest()
    assert found.metadata == {
        "url": server.url("/0.jpg"), "width": 40, "height": 30, "original_width": 40, "original_height": 30,
        "sha256": digest, "list_url": "page", "list_width": 5, "list_list_width": 4000, "list_height": 3000,
        "list_original_width": 1, "list_sha256": "orig",
    }  # fmt: skip
    for pair, path in ((silent, "/1.jpg"), (gone, "/none.jpg")):
        assert pair.metadata == told | {"url": server.url(path), "list_url": "page"}


def test_a_hash_that_differs_costs_its_row_and_one_that_is_no_hash_is_malformed(tmp_path, server):
    right = hashlib.sha256(jpeg(0)).hexdigest()
    rows = [
        {"url": server.url("/0.jpg"), "caption": "c", "sha": right.upper()},
        {"url": server.url("/1.jpg"), "caption": "c", "sha": right},
        {"url": server.url("/2.jpg"), "caption": "c", "sha": "md5:123"},
        {"url": server.url("/3.jpg"), "caption": "c", "sha": None},
    ]
    put(tmp_path, {"list.jsonl": lines(*rows)})
    samples, skipped = all_of(urls(tmp_path, "list.jsonl", columns=COLUMNS._replace(sha256="sha")), tmp_path / "work")
    assert [s.metadata["url"] for s in samples] == [rows[0]["url"], rows[3]["url"]]
    assert sorted(skipped.values()) == ["hash_mismatch", "malformed_row"]


def test_keys_follow_from_the_address_and_repeats_within_a_part_stay_apart(tmp_path, server):
    once, twice = server.url("/0.jpg"), server.url("/1.jpg")
    rows = [{"url": url, "caption": "c"} for url in (twice, once, twice)]
    put(tmp_path, {"a.jsonl": lines(*rows), "b.jsonl": lines(*rows[:2])})
    keys = [s.key for s in all_of(urls(tmp_path, "a.jsonl"), tmp_path / "one")[0]]
    assert keys == [key_of(twice), key_of(once), f"{key_of(twice)}-2"]
    again = [s.key for s in all_of(urls(tmp_path, "b.jsonl", "a.jsonl"), tmp_path / "two")[0]]
    assert set(keys) <= set(again), "another place in a list is no other key"


def test_keys_of_a_column_are_taken_where_there_are_some(tmp_path, server):
    rows = [{"url": server.url(f"/{n}.jpg"), "caption": "c", "id": name} for n, name in enumerate([7, "a/b.ä", None])]
    put(tmp_path, {"list.jsonl": lines(*rows)})
    samples, _ = all_of(urls(tmp_path, "list.jsonl", columns=COLUMNS._replace(key="id")), tmp_path / "work")
    assert [s.key for s in samples] == ["7", "a_b__", key_of(rows[2]["url"])]
    assert [s.metadata.get("original_key") for s in samples] == [None, "a/b.ä", None]
    assert "id" not in samples[0].metadata


def test_lists_are_read_as_one_and_parts_are_runs_of_their_rows(tmp_path, server):
    addresses = [server.url(f"/{n}.jpg") for n in range(5)]
    table = lambda numbers: "caption\turl\n" + "".join(f"c{n}\t{addresses[n]}\n" for n in numbers)
    put(tmp_path, {"lists/1.tsv": table([2, 3, 4]), "lists/0.tsv": table([0, 1])})
    parts = parts_of(urls(tmp_path, "lists/*.tsv", rows=2), tmp_path / "work")
    assert [[pair.key for pair in part] for part in parts] == [
        [key_of(address) for address in addresses[start : start + 2]] for start in (0, 2, 4)
    ]


def test_a_list_on_a_server_is_read_once(tmp_path, server):
    text = lines({"url": server.url("/0.jpg"), "caption": "c"}).encode()
    with serve(lambda _: text) as (address, asked):
        source = urls(tmp_path, f"{address}/list.jsonl")
        source.fingerprint()
        asked.clear()
        assert len(all_of(source, tmp_path / "work")[0]) == 1
        assert asked == ["/list.jsonl"]
        assert source.plan(tmp_path / "work") == 1 and asked == ["/list.jsonl"]


def test_what_was_fetched_is_not_fetched_again_until_it_is_forgotten(tmp_path, server):
    put(tmp_path, {"list.jsonl": lines(*({"url": server.url(f"/{n}.jpg"), "caption": "c"} for n in range(5)))})
    source, work = urls(tmp_path, "list.jsonl"), tmp_path / "work"
    first = parts_of(source, work)
    assert len(server.log) == 5
    source = pickle.loads(pickle.dumps(source))
    assert parts_of(source, work) == first and len(server.log) == 5
    source.forget(0, work)
    source.forget(0, work)
    assert parts_of(source, work) == first and len(server.log) == 10


def test_wrong_columns_are_named_with_those_that_there_are(tmp_path):
    put(tmp_path, {"cc3m.tsv": "a cat\thttp://a/1\n"})
    with pytest.raises(DataError, match=r"cc3m\.tsv: no column url, caption; there are a cat, http://a/1 .*columns"):
        urls(tmp_path, "cc3m.tsv").plan(tmp_path / "work")
    layout = Layout(header=("caption", "url"))
    assert urls(tmp_path, "cc3m.tsv", layout=layout).plan(tmp_path / "work") == 1


def test_the_fingerprint_follows_what_decides_the_data_and_nothing_else(tmp_path):
    put(tmp_path, {"a.csv": "url,caption\n", "b.csv": "url,caption\nu,c\n"})
    same = [
        urls(tmp_path, "a.csv"),
        urls(tmp_path, "a.csv", limits=limits(max_connections=3, total_seconds=9, max_attempts=9, num_decoders=2)),
    ]
    assert len({source.fingerprint() for source in same}) == 1
    others = [
        urls(tmp_path, "a.csv"),
        urls(tmp_path, "b.csv"),
        urls(tmp_path, "a.csv", columns=COLUMNS._replace(key="id")),
        urls(tmp_path, "a.csv", layout=Layout(header=("url", "caption"))),
        urls(tmp_path, "a.csv", storage=storage(min_side_px=9)),
        *(urls(tmp_path, "a.csv", limits=limits(**{name: _other(name)})) for name in DECISIVE),
    ]
    found = {source.fingerprint() for source in others}
    assert len(found) == len(others)
    put(tmp_path, {"a.csv": "url,caption\nu,d\n"})
    assert urls(tmp_path, "a.csv").fingerprint() not in found


def test_neither_a_date_nor_the_order_of_a_set_makes_another_download(tmp_path):
    put(tmp_path, {"a.csv": "url,caption\n"})
    sets = {"allowed_networks": ["10.0.0.0/8", "127.0.0.1/32"], "opt_outs": ["noai", "x"], "opt_out_agents": ["a", "b"]}
    before = urls(tmp_path, "a.csv", limits=limits(**sets)).fingerprint()
    os.utime(tmp_path / "a.csv", (1, 1))
    turned = {name: values[::-1] for name, values in sets.items()}
    assert urls(tmp_path, "a.csv", limits=limits(**turned)).fingerprint() == before


def _other(name: str) -> Any:
    value = getattr(limits(), name)
    return value + 1 if isinstance(value, int) else [*value, "other"]


def test_the_manifest_tells_the_lists_and_their_content(tmp_path):
    put(tmp_path, {"list.csv": "url,caption\nu,c\nv,d\n"})
    source = urls(tmp_path, "list.csv")
    source.plan(tmp_path / "work")
    facts = source.facts(tmp_path / "work")
    assert facts["lists"] == ["list.csv"] and facts["num_rows"] == 2 == source.num_candidates(tmp_path / "work")
    assert json.dumps(facts)


def test_the_data_card_explains_every_reason_of_the_downloader():
    card = (ROOT / "data" / "README.md").read_text()
    for reason, meaning in (NOT_DOWNLOADED | NOT_KEPT).items():
        assert f"| `{reason}` | {meaning} |" in card

"""The plan of docs/data_at_scale.md: its arithmetic, and that the page says what the rates give."""

from __future__ import annotations

import json
import re

import pytest
import typer

from benchmarks.scale import BEGIN, DOCS, END, RATES, Plan, Prices, Wanted, read_rates, replaced, sources, tables

SIMPLE = dict.fromkeys(read_rates(RATES, []), 1.0) | {
    "jpeg_512_bytes": 90.0, "jpeg_256_bytes": 40.0, "raw_beside_picture_bytes": 9.0, "index_bytes": 1.0,
    "prepared_beside_picture_bytes": 19.0, "score_bytes": 5.0, "sha256_bytes_per_second": 2.0,
    "download_per_second": 10.0, "score_per_second": 4.0, "filter_seconds_per_million": 1e6,
    "near_seconds_per_100k": 1e5,
    "jpeg_256_per_second": 2.0, "jpeg_512_per_second": 5.0,
}  # fmt: skip
WANTED = Wanted(pairs=1000, alive=0.5, kept=0.25, image_px=256, cores=2, source_bytes=7)


def test_bytes_are_pairs_times_what_a_pair_takes():
    plan = Plan(WANTED, SIMPLE)
    assert (WANTED.raw, WANTED.candidates) == (4000, 8000)
    assert plan.raw_bytes == 4000 * (90 + 9 + 1)
    assert plan.score_bytes == 4000 * 5
    assert plan.prepared_bytes("jpeg", 256) == 1000 * (40 + 19 + 1)
    assert plan.stored_bytes == 400_000 + 20_000 + 60_000
    assert plan.downloaded_bytes == 4000 * 7
    assert Plan(Wanted(pairs=1000, kept=0.25, source_bytes=7, raw_px=0), SIMPLE).raw_bytes == 4000 * (7 + 9 + 1)


def test_hours_are_things_over_rate():
    seconds = {work.stage.replace("`", ""): work.hours * 3600 for work in Plan(WANTED, SIMPLE).work}
    assert seconds == pytest.approx({
        "download: fetch, check, store": 800, "download: resize to 512 px": 800, "score": 1000,
        "filter: rules, same pixels": 4000, "filter: each pair's cell": 4000 * 4000 / 100_000,
        "filter: near-duplicates in cells": 4000, "filter: against held-out pairs": 1000 * 9 * 10**0.5,
        "filter: 256 px jpeg shards": 500,
        "data verify of the prepared shards": 1000 * (1 + 2 * 60 / 2), "DVC: MD5, GB": 480_000,
    })  # fmt: skip


def test_pictures_that_are_kept_as_they_came_are_not_resized():
    kept = Plan(Wanted(raw_px=0), SIMPLE)
    assert not any("resize" in work.stage for work in kept.work)


def test_scoring_goes_to_the_gpus_where_their_rate_is_given():
    plan = Plan(Wanted(pairs=1000, kept=0.25, gpus=4, gpu_score_per_second=100), SIMPLE)
    [score] = [work for work in plan.work if work.on == "GPU"]
    assert score.hours * 3600 == pytest.approx(40) and score.stage == "`score`"
    assert "on 4 GPUs" in tables(plan)


def test_costs_are_told_where_prices_are_given_only():
    wanted = Wanted(pairs=1e9, kept=1, source_bytes=1000, image_px=256)
    told = tables(Plan(wanted, SIMPLE, Prices(tb_moved=3.5)))
    assert "| moved in | 1 TB | 3.5 | 4 |" in told
    assert re.search(r"\| cores \| [\d,]+ hours \| not given \|  \|", told)


def test_a_rate_can_be_given_and_a_wrong_name_is_told():
    assert read_rates(RATES, ["index_bytes=1.5"])["index_bytes"] == 1.5
    with pytest.raises(typer.BadParameter, match="index: no such rate; one of: .*index_bytes"):
        read_rates(RATES, ["index=1"])


def test_every_rate_says_where_it_was_measured():
    for name, rate in json.loads(RATES.read_text()).items():
        assert set(rate) == {"value", "unit", "what", "from"}, name
        assert rate["value"] > 0 and "benchmarks/" in rate["from"], name


def test_the_page_says_what_the_rates_give():
    printed = f"{tables(Plan(Wanted(), read_rates(RATES, [])))}\n\nMeasured:\n\n{sources(RATES)}"
    text = DOCS.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert replaced(text, printed) == text, "`python benchmarks/scale.py --write` brings it up to date"

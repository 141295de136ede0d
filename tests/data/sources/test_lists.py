from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.data.sources.lists import LINES_OF_A_ROW, Layout, read_tables, rows_in
from stylegan_t.errors import DataError
from tests.sources import lines

ROWS: list[dict[str, Any]] = [
    {"url": "http://a/1", "caption": "a cat", "licence": "CC0"},
    {"url": "http://a/2", "caption": 'says "hi"\tä', "licence": ""},
]


def read(path: Path, *required: str, **layout: Any) -> list[dict[str, Any] | None]:
    return [row for table in read_tables(path, path.name, Layout(**layout), required) for row in rows_in(table)]


def written(path: Path, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_csv(rows: list[dict[str, Any]], **options: Any) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0], **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


TEXTS = {
    "csv": as_csv(ROWS),
    "tsv": as_csv(ROWS, delimiter="\t").replace("\tä", "\\tä"),
    "jsonl": lines(*ROWS),
    "ndjson": "\n".join(map(json.dumps, ROWS)) + "\n\n",
    "json": json.dumps(ROWS, indent=2),
    "parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson", "json", "parquet"])
def test_every_format_gives_the_same_rows_packed_or_not(tmp_path, suffix, packed):
    path = written(tmp_path / f"list.{suffix}{packed}", TEXTS[suffix])
    assert read(path, "url", "caption") == ROWS


@pytest.mark.parametrize("name", ["list.csv.gz", "list.csv.bz2", "list.csv.xz", "list.csv"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_the_first_bytes_tell_the_packing_whatever_the_name_says(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(TEXTS["csv"].encode()))
    assert read(tmp_path / name, "url", "caption") == ROWS


def test_the_name_need_not_tell_the_format(tmp_path):
    assert read(written(tmp_path / "list", TEXTS["csv"]), "url", kind="csv") == ROWS
    with pytest.raises(DataError, match=r"list: the name does not tell the format.*\.parquet, \.csv"):
        read(tmp_path / "list")


def test_a_tab_separated_field_is_taken_as_it_is_unless_it_is_quoted_as_a_whole(tmp_path):
    text = 'caption\turl\n"one" two\tu1\n"a ""big"" one"\tu2\n"open\tu3\n""\tu4\n'
    captions = ['"one" two', 'a "big" one', '"open', ""]
    assert [row["caption"] for row in read(written(tmp_path / "a.tsv", text)) if row] == captions


def test_columns_of_a_list_without_a_line_of_names_are_given(tmp_path):
    path = written(tmp_path / "cc3m.tsv.gz", "a very typical bus station\thttp://a/1\nsunset\thttp://a/2\r\n")
    assert read(path, "url", "caption", header=("caption", "url")) == [
        {"caption": "a very typical bus station", "url": "http://a/1"},
        {"caption": "sunset", "url": "http://a/2"},
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", b'url,caption\nu1,one\nonly one\nu2,"tw\no",three\nu3,caf\xe9\n\nu4,"fo\nur"\n'),
        ("a.tsv", b"url\tcaption\nu1\tone\nonly one\nu2\ttwo\tthree\nu3\tcaf\xe9\n\nu4\tfo\\nur\n"),
        (
            "a.jsonl",
            b'{"url": "u1", "caption": "one"}\n{"url": \n["u2"]\n{"url": "u3", "caption": "caf\xe9"}\n\n'
            b'{"url": "u4", "caption": "fo\\nur"}\n',
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_one_row_and_loses_no_other(tmp_path, name, text):
    rows = read(written(tmp_path / name, text), "url")
    assert [row and row["url"] for row in rows] == ["u1", None, None, None, "u4"]
    assert [row["caption"].replace("\\n", "\n") for row in rows if row] == ["one", "fo\nur"]


OPEN = '"5 inch display'


@pytest.mark.parametrize("last", ["plain", '"a quoted one"', '"quoted, with a comma"', '"qu""oted"', None])
@pytest.mark.parametrize("behind", [3, 200])
def test_a_quote_that_is_not_closed_costs_its_line_only(tmp_path, behind, last):
    captions = ["before", OPEN, *["plain"] * behind, *([last] if last else [])]
    text = "url,caption\n" + "".join(f"u{n},{caption}\n" for n, caption in enumerate(captions))
    rows = read(written(tmp_path / "a.csv", text), "url")
    assert [row and row["url"] for row in rows] == ["u0", None, *(f"u{n}" for n in range(2, len(captions)))]
    assert {row["caption"] for row in rows[2 : 2 + behind] if row} == {"plain"}


def test_a_quoted_caption_has_several_lines(tmp_path):
    rows = [{"url": f"u{n}", "caption": "\n".join(['a "line"'] * n)} for n in (1, 2, LINES_OF_A_ROW, 3)]
    assert read(written(tmp_path / "a.csv", as_csv(rows)), "url") == rows


def test_half_a_surrogate_pair_is_a_row_that_cannot_be_read(tmp_path):
    rows = read(written(tmp_path / "a.json", '[{"url": "u1"}, {"url": "\\ud83d"}, {"url": "u3"}]'), "url")
    assert [row and row["url"] for row in rows] == ["u1", None, "u3"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert read(written(tmp_path / "a.csv", "\ufeffurl,caption\nu,c\n"), "url")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_a_missing_column_is_named_with_those_that_there_are(tmp_path, suffix):
    with pytest.raises(DataError, match=rf"list\.{suffix}: no column URL, TEXT; there are url, caption, licence"):
        read(written(tmp_path / f"list.{suffix}", TEXTS[suffix]), "URL", "TEXT", "url")


def test_two_columns_of_one_name_are_named(tmp_path):
    with pytest.raises(DataError, match=r"two columns of one name \(url, url\)"):
        read(written(tmp_path / "a.csv", "url,url\na,b\n"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"PAR1 and no more"),
        ("a.csv.gz", gzip.compress(as_csv(ROWS * 9999).encode())[:-20]),
        ("a.json", b'[{"url": "u"}, {"url": '),
        ("a.json", b"<html>"),
        ("a.json", b'[{"url": "\\ud83d"}, {"url": '),
    ],
)
def test_a_damaged_list_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: not readable as (parquet|csv|json) \(.+\)"):
        read(tmp_path / name, "url")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json"])
def test_an_empty_list_has_no_rows(tmp_path, suffix):
    assert read(written(tmp_path / f"a.{suffix}", "[]" if suffix == "json" else ""), "url") == []


def test_a_list_inside_an_object_is_found_by_name(tmp_path):
    redcaps = {"info": {"version": 1}, "annotations": ROWS, "more": [1]}
    path = written(tmp_path / "a.json", json.dumps(redcaps))
    assert read(path, "url", records="annotations") == ROWS
    with pytest.raises(DataError, match=r"download\.source\.records: annotations, more"):
        read(path, "url")
    with pytest.raises(DataError, match="no list 'rows'; there are info, annotations, more"):
        read(path, "url", records="rows")
    with pytest.raises(DataError, match="'info' is no list"):
        read(path, "url", records="info")


def test_all_captions_of_a_coco_picture_come_together(tmp_path):
    coco = {
        "info": {}, "licenses": [{"id": 1}],
        "images": [{"id": 7, "coco_url": "http://c/7.jpg", "height": 480}, {"id": 9, "coco_url": "http://c/9.jpg"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "nine"},
            {"image_id": 7, "id": 2, "caption": "seven"},
            {"image_id": 9, "id": 3, "caption": "also nine"},
        ],
    }  # fmt: skip
    path = written(tmp_path / "captions_val2014.json", json.dumps(coco))
    assert read(path, "coco_url", "captions", kind="coco_captions") == [
        {"id": 7, "coco_url": "http://c/7.jpg", "height": 480, "captions": ["seven"]},
        {"id": 9, "coco_url": "http://c/9.jpg", "captions": ["nine", "also nine"]},
    ]


def test_what_is_not_like_coco_is_named(tmp_path):
    path = written(tmp_path / "a.json", '{"annotations": [{"image_id": 1}], "images": []}')
    with pytest.raises(DataError, match=r"a\.json: not readable as coco_captions .*not like COCO's: KeyError"):
        read(path, kind="coco_captions")


def test_values_of_parquet_columns_keep_their_types(tmp_path):
    rows = [{"url": "u", "similarity": 0.5, "tags": ["a", "b"], "size": {"w": 3}, "none": None}]
    assert read(written(tmp_path / "a.parquet", as_parquet(rows)), "url") == rows

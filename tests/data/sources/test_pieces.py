from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from stylegan_t.data.sources import pieces
from stylegan_t.data.sources.lists import tables_of
from stylegan_t.data.sources.pieces import content, cut, num_rows, read_piece


def tables(start: int, stop: int, rows_per_table: int, opened: list[int] | None = None) -> Iterator[pa.Table]:
    if opened is not None:
        opened.append(start)
    for first in range(start, stop, rows_per_table):
        yield pa.table({"n": list(range(first, min(first + rows_per_table, stop)))})


def read(folder: Path, count: int) -> list[list[int]]:
    return [[row["n"] for row in read_piece(folder, number) if row] for number in range(count)]


@pytest.mark.parametrize("rows_per_table", [1, 3, 7, 100])
@pytest.mark.parametrize("rows_per_piece", [1, 4, 10, 25, 99])
def test_all_lists_as_one_in_pieces_of_one_length_whatever_the_tables(tmp_path, rows_per_table, rows_per_piece):
    lists = [("a", lambda: tables(0, 13, rows_per_table)), ("b", lambda: tables(13, 25, rows_per_table))]
    count = cut(lists, tmp_path, rows_per_piece)
    expected = [list(range(n, min(n + rows_per_piece, 25))) for n in range(0, 25, rows_per_piece)]
    assert read(tmp_path, count) == expected and num_rows(tmp_path) == 25


def test_nothing_in_gives_no_piece(tmp_path):
    assert cut([("a", lambda: iter(()))], tmp_path, 4) == 0 == num_rows(tmp_path)


@pytest.mark.parametrize("killed_at", range(1, 9))
def test_a_killed_cut_goes_on_and_opens_no_list_again_that_is_in_pieces(tmp_path, killed_at):
    """Three lists of 10 rows in pieces of 4: killed before its n-th write."""
    opened: list[int] = []
    lists = [(str(n), partial(tables, n * 10, n * 10 + 10, 3, opened)) for n in range(3)]
    whole = cut(lists, tmp_path / "whole", 4)
    writes, write = 0, pieces._write

    def dies(*arguments: object) -> None:
        nonlocal writes
        writes += 1
        if writes == killed_at:
            raise KeyboardInterrupt
        write(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_write", dies)
        with pytest.raises(KeyboardInterrupt):
            cut(lists, tmp_path / "killed", 4)
    opened.clear()
    assert cut(lists, tmp_path / "killed", 4) == whole == 8
    in_pieces = (killed_at - 1) * 4
    assert opened == [start for start in (0, 10, 20) if start + 10 > in_pieces]
    assert read(tmp_path / "killed", 8) == read(tmp_path / "whole", 8)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_second_cut_reads_nothing(tmp_path):
    cut([("a", lambda: tables(0, 5, 5))], tmp_path, 2)
    assert cut([("a", lambda: 1 / 0)], tmp_path, 2) == 3  # type: ignore[return-value]


def test_lists_may_have_other_columns_beside(tmp_path):
    first, second = pa.table({"n": [1], "x": ["a"]}), pa.table({"n": [2], "y": [0.5]})
    assert cut([("a", lambda: iter([first])), ("b", lambda: iter([second]))], tmp_path, 2) == 1
    assert list(read_piece(tmp_path, 0)) == [{"n": 1, "x": "a", "y": None}, {"n": 2, "x": None, "y": 0.5}]


def test_lists_may_have_columns_of_other_types(tmp_path):
    values = [1, "1", ["a"], {"x": 0.5}, b"\xff", None]
    lists = [(str(n), lambda value=value: iter([pa.table({"n": [value]})])) for n, value in enumerate(values)]
    lists.append(("texts", lambda: tables_of(['{"n": "json"}', "{no json"])))
    assert cut(lists, tmp_path, len(values) + 2) == 1
    told = [row and row["n"] for row in read_piece(tmp_path, 0)]
    assert told == [1, "1", ["a"], {"x": 0.5}, "ff", None, "json", None]


@pytest.mark.parametrize("other", ["m", "n"], ids=["other columns", "other types"])
def test_a_piece_follows_from_its_own_rows_alone(tmp_path, other):
    """So that a killed cut, which goes on with rows from the middle of a list, gives the same bytes."""
    lists = [
        ("a", lambda: tables(0, 5, 5)),
        ("b", lambda: iter([pa.table({other: [str(n) for n in range(7)]})])),
    ]
    assert cut(lists, tmp_path / "whole", 4) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_summary", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cut(lists, tmp_path / "killed", 4)
    (tmp_path / "killed" / "00002.parquet").unlink()
    assert cut(lists, tmp_path / "killed", 4) == 3
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_the_content_follows_the_rows(tmp_path):
    for name, rows in (("one", [1, 2]), ("same", [1, 2]), ("other", [1, 3])):
        cut([("a", lambda rows=rows: iter([pa.table({"n": rows})]))], tmp_path / name, 1)
    assert content(tmp_path / "one") == content(tmp_path / "same") != content(tmp_path / "other")


def test_the_content_does_not_depend_on_the_tables_that_the_rows_came_in(tmp_path):
    rows = pa.table({"url": [f"http://example.com/{n * 7919 % 100_003}/{n}" for n in range(200_000)]})
    found = []
    for length in (200_000, 777):
        chunks = [rows[start : start + length] for start in range(0, len(rows), length)]
        cut([("a", lambda chunks=chunks: iter(chunks))], tmp_path / str(length), 200_000)
        found.append(content(tmp_path / str(length)))
    assert found[0] == found[1]

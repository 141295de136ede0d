from __future__ import annotations

import errno
import json
import os
import zlib

import pytest

from stylegan_t.data.download.ledger import HEADER, MARK, Facts, Finished, Ledger, forget
from stylegan_t.errors import DataError, NotSaved

ROWS = [
    Finished(Facts(3, "success", "ab" * 32, "jpg", 4, 5, 6, 7), b"a picture"),
    Finished(Facts(0, "http_404")),
    Finished(Facts(1, "success", "cd" * 32, "png", 1, 1, 1, 1), bytes(range(256))),
]


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "some" / "ledger") as ledger:
        for row in ROWS:
            ledger.add(row)
    return tmp_path / "some" / "ledger"


def content(path):
    with Ledger(path) as ledger:
        return [ledger[row] for row in range(10) if row in ledger]


def test_what_was_recorded_is_read_back_by_row(path):
    with Ledger(path) as ledger:
        assert [ledger[row.facts.row] for row in ROWS] == ROWS and len(ledger) == 3
        assert 2 not in ledger


def test_cut_off_anywhere_it_holds_all_rows_before_and_goes_on(path, tmp_path):
    whole = path.read_bytes()
    ends = []
    for count in range(len(ROWS) + 1):
        with Ledger(tmp_path / str(count)) as ledger:
            for row in ROWS[:count]:
                ledger.add(row)
        ends.append((tmp_path / str(count)).stat().st_size)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = ROWS[: sum(end <= size for end in ends[1:])]
        with Ledger(path) as ledger:
            assert [row for row in ROWS if row.facts.row in ledger] == kept
            for row in ROWS:
                ledger.add(row)
        assert path.read_bytes() == whole


def test_a_changed_byte_loses_its_row_and_no_other(path, caplog):
    whole, place = path.read_bytes(), 0
    for lost in ROWS:
        size = HEADER.size + len(json.dumps(lost.facts)) + len(lost.image)
        for changed in range(place, place + size):
            path.write_bytes(whole[:changed] + bytes([whole[changed] ^ 1]) + whole[changed + 1 :])
            caplog.clear()
            with Ledger(path) as ledger:
                assert [ledger[row.facts.row] for row in ROWS if row.facts.row in ledger] == [
                    row for row in ROWS if row is not lost
                ]
                ledger.add(lost)
            told = [record.getMessage() for record in caplog.records]
            skipped = f"{path}: skipped {size} bytes that are damaged; their rows are fetched again"
            assert told == ([] if lost is ROWS[-1] else [skipped]), "the last one may as well be torn"
            assert sorted(content(path)) == sorted(ROWS)
        place += size


def test_pictures_full_of_marks_do_not_make_it_slow(path, monkeypatch):
    false_start = HEADER.pack(MARK, 10, 50_000, 0)
    with Ledger(path) as ledger:
        ledger.add(Finished(Facts(5, "success", "", "jpg", 1, 1, 1, 1), false_start * 10_000))
        ledger.add(Finished(Facts(6, "http_404")))
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(false_start) - 1] ^= 1
    path.write_bytes(damaged)
    checksum, checked = zlib.crc32, []
    monkeypatch.setattr(zlib, "crc32", lambda data, *start: checked.append(len(data)) or checksum(data, *start))
    assert content(path) == [ROWS[1], ROWS[2], ROWS[0]]
    assert sum(checked) < 10 * len(damaged)


def test_a_row_keeps_what_was_recorded_first(path):
    with Ledger(path) as ledger:
        ledger.add(Finished(Facts(0, "success", "", "jpg", 1, 1, 1, 1), b"later"))
        assert ledger[0] == ROWS[1]


def test_another_file_is_no_ledger_and_stays_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("do not lose me")
    with pytest.raises(DataError, match=r"notes.txt: no ledger"):
        Ledger(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "do not lose me"


@pytest.mark.parametrize("written", [0, 10])
def test_a_full_disk_ends_the_download_and_leaves_whole_rows(path, monkeypatch, written):
    whole = path.read_bytes()

    def writev(file, parts):
        if not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(file, b"".join(parts)[:written])

    with Ledger(path) as ledger:
        monkeypatch.setattr(os, "writev", writev)
        with pytest.raises(NotSaved, match=r"ledger: cannot be written .*goes on"):
            ledger.add(Finished(Facts(7, "success", "", "jpg", 1, 1, 1, 1), bytes(100)))
        monkeypatch.undo()
        assert path.read_bytes() == whole
        ledger.add(Finished(Facts(8, "http_404")))
        assert ledger[8].facts.status == "http_404"


def test_a_forgotten_ledger_is_gone_and_may_be_forgotten_again(path):
    forget(path)
    forget(path)
    assert not path.exists()

from __future__ import annotations

import gzip
import os
import zipfile
from email.message import Message

import fsspec
import pytest

from stylegan_t.data.sources import remote
from stylegan_t.data.sources.remote import File, find, on_this_machine
from stylegan_t.errors import DataError, SettingsError, Unreachable
from tests.sources import put, serve


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.0)


def read(file: File, folder) -> bytes:
    with on_this_machine(file, folder) as path:
        return path.read_bytes()


def test_braces_and_globs_give_files_in_order(tmp_path):
    put(tmp_path, dict.fromkeys(("b/1.csv", "b/0.csv", "b/2.tsv", "0007.tar", "0008.tar", "0009.tar"), "x"))
    names = lambda *patterns: [str(f.path).removeprefix(f"{tmp_path}/") for f in find(patterns, tmp_path)]
    assert names("b/*.csv", "000{9..7}.tar") == ["b/0.csv", "b/1.csv", "0009.tar", "0008.tar", "0007.tar"]
    assert names(str(tmp_path / "b" / "?.{t,c}sv")) == ["b/2.tsv", "b/0.csv", "b/1.csv"]


@pytest.mark.parametrize("name", ["a*c.csv", "a[1].csv", "a?.csv", "{a,b}.csv", "{a.csv"])
def test_a_name_that_is_there_is_no_pattern(tmp_path, name):
    put(tmp_path, {name: "x", "abc.csv": "y", "a1.csv": "y"})
    assert [file.path for file in find([name], tmp_path)] == [str(tmp_path / name)]
    with serve(lambda path: b"x" if path == "/l.jsonl?sig=a%2Bb*c%5B1%5D" else 404) as (address, _):
        (file,) = find([f"{address}/l.jsonl?sig=a%2Bb*c[1]"], tmp_path)
        assert read(file, tmp_path) == b"x"


def test_patterns_start_at_a_root_of_any_name(tmp_path):
    for root in (tmp_path / "a[1]", tmp_path / "{b,c}", tmp_path / "d*"):
        put(root, {"l.csv": "x", "b/0.csv": "x", "b/1.csv": "x"})
        for pattern, names in {
            "l.csv": ["l.csv"],
            "b/*.csv": ["b/0.csv", "b/1.csv"],
            "b/{1,0}.csv": ["b/1.csv", "b/0.csv"],
        }.items():
            assert [file.path for file in find([pattern], root)] == [str(root / name) for name in names]


@pytest.mark.parametrize("other", [b"a page", 403])
def test_braces_on_the_web_are_a_pattern_though_a_server_answers_to_any_name_or_refuses_it(tmp_path, other):
    with serve(lambda path: b"x" if path in ("/0.tar", "/1.tar") else other) as (address, _):
        files = find([f"{address}/{{0..1}}.tar"], tmp_path)
        assert [read(file, tmp_path) for file in files] == [b"x", b"x"]


@pytest.mark.parametrize(
    ("pattern", "error", "match"),
    [
        ("*.csv", DataError, r"\*\.csv: no file has such a name"),
        ("{0..3.tar", SettingsError, "Unbalanced braces.*e.g. {00000..00099}"),
        ("nothing://a/b", SettingsError, "Protocol not known: nothing"),
    ],
)
def test_a_pattern_that_names_nothing_is_named(tmp_path, pattern, error, match):
    with pytest.raises(error, match=match):
        find([pattern], tmp_path)


def test_a_package_that_is_missing_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "url_to_fs", lambda *_, **__: (_ for _ in ()).throw(ImportError("Install s3fs")))
    with pytest.raises(SettingsError, match=r"s3://b/\*\.tar: Install s3fs; pip install 'stylegan-t\[s3\]'"):
        find(["s3://b/*.tar"], tmp_path)


def test_a_file_of_this_machine_is_read_where_it_lies(tmp_path):
    put(tmp_path, {"a.csv": "x"})
    with on_this_machine(*find(["a.csv"], tmp_path), tmp_path / "copies") as path:
        assert path == tmp_path / "a.csv"
    assert path.exists() and not (tmp_path / "copies").exists()
    with pytest.raises(DataError, match=r"b\.csv: no such file"), on_this_machine(*find(["b.csv"], tmp_path), tmp_path):
        pass


@pytest.mark.parametrize("path", ["/lists/a.csv", "/a.csv?token=1"])
def test_a_file_of_a_server_is_copied_for_as_long_as_it_is_read(tmp_path, path):
    with serve(lambda asked: b"rows" if asked == path else 404) as (address, _):
        (file,) = find([address + path], tmp_path)
        with on_this_machine(file, tmp_path / "copies") as copy:
            assert copy.name == "a.csv" and copy.read_bytes() == b"rows"
        assert not copy.exists() and str(file) == address + path
        with pytest.raises(DataError, match=r"/none\.csv: no such file"):
            read(*find([f"{address}/none.csv"], tmp_path), tmp_path)


@pytest.mark.parametrize("asks", [True, False], ids=["where it is asked for", "always"])
def test_a_server_may_pack_what_it_sends(tmp_path, asks):
    """The bytes that lie there are sent as they are; or the server calls them packed, and the client unpacks them."""

    def headers(asked: Message) -> dict[str, str]:
        packs = not asks or "gzip" in asked.get("Accept-Encoding", "")
        return {"Content-Encoding": "gzip"} if packs else {}

    packed = gzip.compress(b"rows")
    with serve(lambda _: packed, headers) as (address, _):
        assert read(*find([f"{address}/a.csv.gz"], tmp_path), tmp_path) == (packed if asks else b"rows")


def test_a_server_that_fails_is_asked_again_and_not_for_ever(tmp_path):
    failures = iter([500, 500, 500])
    with serve(lambda _: next(failures, b"rows")) as (address, asked):
        assert read(*find([f"{address}/a.csv"], tmp_path), tmp_path) == b"rows"
    with serve(lambda _: 500) as (address, asked):
        (file,) = find([f"{address}/a.csv"], tmp_path)
        with pytest.raises(Unreachable, match=r"/a\.csv: cannot be read \(500.*the same command goes on"):
            read(file, tmp_path)
        assert len(asked) <= 2 * remote.ATTEMPTS


def test_a_copy_that_is_too_short_is_no_copy(tmp_path, monkeypatch):
    fsspec.filesystem("memory").pipe_file("/short.csv", b"four")
    (file,) = find(["memory://short.csv"], tmp_path)
    assert read(file, tmp_path) == b"four"
    monkeypatch.setattr(type(file.fs), "info", lambda *_: {"size": 5, "name": "", "type": "file"})
    with pytest.raises(Unreachable, match=r"memory.*short\.csv: cannot be read \(4 bytes came of 5\)"):
        read(file, tmp_path)


def test_a_file_in_an_archive_on_a_server_is_one_address(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("annotations/captions.json", "[]")
    data = (tmp_path / "a.zip").read_bytes()
    with serve(lambda _: data) as (address, _):
        (file,) = find([f"simplecache::{address}/a.zip"], tmp_path)
        assert read(file, tmp_path / "copies") == data
    for inner in ("annotations/captions.json", "annotations/*.json"):
        (file,) = find([f"zip://{inner}::{tmp_path}/a.zip"], tmp_path)
        assert str(file) == f"zip://annotations/captions.json::{tmp_path}/a.zip"
        with on_this_machine(file, tmp_path / "copies") as copy:
            assert copy.name == "captions.json" and copy.read_bytes() == b"[]"


def test_an_archive_that_cannot_be_had_is_named(tmp_path):
    for answer, error, match in (
        (500, Unreachable, r"cannot be read \(500.*goes on"),
        (404, DataError, "no such file"),
    ):
        with serve(lambda _, answer=answer: answer) as (address, _):  # noqa: SIM117
            with pytest.raises(error, match=rf"zip://a\.csv::http.*/a\.zip: {match}"):
                find([f"zip://a.csv::{address}/a.zip"], tmp_path)
    put(tmp_path, {"a.zip": "<html>" * 99})
    with pytest.raises(DataError, match=r"zip://a\.csv::.*/a\.zip: File is not a zip file"):
        find([f"zip://a.csv::{tmp_path}/a.zip"], tmp_path)


def test_what_a_command_writes_is_a_file_and_its_failure_is_told(tmp_path):
    assert read(*find(["pipe:printf abc"], tmp_path), tmp_path) == b"abc"
    with pytest.raises(Unreachable, match=r"pipe:.*: cannot be read \(the command ended with 7: last line\)"):
        read(*find(["pipe:echo first >&2; echo last line >&2; exit 7"], tmp_path), tmp_path)


def test_the_identity_changes_with_the_content(tmp_path):
    put(tmp_path, {"a.csv": "one"})
    (file,) = find(["a.csv"], tmp_path)
    before = file.identity()
    assert file.identity() == before
    put(tmp_path, {"a.csv": "four"})
    assert file.identity() != before


def test_the_content_of_a_file_here_is_the_same_whenever_and_wherever_it_was_written(tmp_path):
    put(tmp_path, {"a.csv": "one", "other/a.csv": "one", "b/a.csv": "two"})
    same, other, changed = (file.content() for file in find(["a.csv", "other/a.csv", "b/a.csv"], tmp_path))
    os.utime(tmp_path / "a.csv", (1, 1))
    assert find(["a.csv"], tmp_path)[0].content() == same == other != changed
    put(tmp_path, {"a.csv": "six"})
    assert find(["a.csv"], tmp_path)[0].content() != same
    with pytest.raises(DataError, match=r"c\.csv: no such file"):
        find(["c.csv"], tmp_path)[0].content()


def test_what_lies_beside_a_tar_is_found_if_it_is_there(tmp_path):
    put(tmp_path, {"a.tar": "x", "a.parquet": "y", "b.tar.gz": "x", "b.parquet": "z"})
    beside = [file.sibling(".parquet") for file in find(["a.tar", "b.tar.gz"], tmp_path)]
    assert [file and file.path for file in beside] == [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    assert find(["a.tar"], tmp_path)[0].sibling(".index.parquet") is None
    assert find(["pipe:cat a.tar"], tmp_path)[0].sibling(".parquet") is None

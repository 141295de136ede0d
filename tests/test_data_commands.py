"""`stylegan-t data`: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from stylegan_t.data.index import index_path
from stylegan_t.data.shards import MANIFEST, Shards, pack, shard_name, write_manifest, write_shards
from stylegan_t.data_commands import app
from stylegan_t.errors import DataError, SettingsError
from tests.imports import ROOT
from tests.tars import picture, sample, write_tar


def run(*arguments: object) -> Result:
    """The command in this process; what it raises is in the result."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stylegan_t.cli", "data", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def ours(tmp_path) -> Path:
    samples = [pack(f"s{n}", "png", picture(n), [f"caption {n}"], {"n": n}) for n in range(5)]
    folder = tmp_path / "data" / "raw"
    write_manifest(folder, "raw", write_shards(folder, samples, 3))
    return folder


@pytest.fixture
def theirs(tmp_path) -> Path:
    for number in range(2):
        members = [m for n in range(3) for m in sample(f"{number}{n}", n)]
        write_tar(tmp_path / "web" / shard_name(number), members)
    return tmp_path / "web"


@pytest.mark.parametrize("name", [(), ("verify",), ("index",), ("stats",), ("peek",)])
def test_help_is_given_without_torch(name):
    code = f"import sys; from stylegan_t.cli import main; sys.argv = ['stylegan-t', 'data', *{name!r}, '--help']\n"
    code += "try: main()\nfinally: print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_verify_finds_nothing_wrong_and_exits_with_0(ours, theirs):
    done = command("verify", ours, theirs)
    size = sum(path.stat().st_size for folder in (ours, theirs) for path in folder.glob("*.tar"))
    assert (done.returncode, done.stdout) == (0, f"no problem: 11 samples in 4 shards, {size / 1000:.1f} kB\n")


def test_verify_prints_a_line_for_each_problem_and_a_summary_with_the_cure_and_exits_with_3(ours):
    shard = ours / shard_name(1)
    shard.write_bytes(shard.read_bytes().replace(b"caption 3", b"captain 3").replace(b"caption 4", b"captain 4"))
    done = command("verify", ours.parent)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        f"{shard}: s{n}.txt: damaged: its sha256 is not that of the index" for n in (3, 4)
    ]
    assert done.stderr.splitlines()[-1].startswith("2 problems: 5 samples in 2 shards, ")
    assert done.stderr.splitlines()[-1].endswith(
        "; make it anew with `dvc repro --force --single-item download` (or `stylegan-t run download`)"
    )


def test_verify_with_several_processes_finds_the_same(ours, theirs):
    (theirs / "bad.tar").write_bytes(b"<html>")
    one, two = run("verify", ours, theirs), run("verify", ours, theirs, "--workers", 2)
    assert isinstance(one.exception, DataError) and str(one.exception) == str(two.exception)
    assert one.stdout == two.stdout == f"{theirs / 'bad.tar'}: no tar: it begins with b'<html>'\n"


def test_a_quick_verify_decodes_nothing(theirs):
    shard = theirs / shard_name(0)
    shard.write_bytes(shard.read_bytes().replace(b"IHDR", b"XXXX"))
    assert run("verify", theirs, "--quick").stdout.startswith("no problem: 6 samples in 2 shards, ")
    assert len(run("verify", theirs).stdout.splitlines()) == 3


def test_index_makes_a_folder_of_tars_readable_at_random(theirs):
    assert run("index", theirs).stdout == "2 tars indexed\n"
    assert not (theirs / MANIFEST).exists()
    assert run("index", theirs, "--manifest", "--hash").stdout == "2 tars indexed\n"
    shards = Shards(theirs)
    assert shards[4].key == "11" and shards[4].fields["png"] == picture(1)
    shards.verify()


def test_index_names_the_tars_that_are_not_whole_and_indexes_the_others(theirs):
    shard = theirs / shard_name(0)
    shard.write_bytes(shard.read_bytes()[:4609])
    done = run("index", theirs, "--manifest")
    assert done.stdout.startswith(f"{shard}: truncated at byte 4609: 01.json should end at byte ")
    assert done.stdout.endswith("whole samples before that: 1\n")
    assert isinstance(done.exception, DataError) and "1 of 2 tars without an index" in str(done.exception)
    assert not (theirs / MANIFEST).exists() and not index_path(shard).exists()
    assert index_path(theirs / shard_name(1)).is_file()


@pytest.mark.parametrize(("name", "options"), [("", ["--manifest"]), ("00000.tar", []), ("stray.tar", ["--hash"])])
def test_index_leaves_our_own_shards_alone(ours, name, options):
    write_tar(ours / "stray.tar", sample("k"))
    before = {path: path.read_bytes() for path in ours.iterdir()}
    done = run("index", ours / name, *options)
    assert isinstance(done.exception, DataError) and "written by stage download" in str(done.exception)
    assert {path: path.read_bytes() for path in ours.iterdir()} == before


def test_index_leaves_manifests_of_others_alone(theirs):
    run("index", theirs, "--manifest")
    text = (theirs / MANIFEST).read_text().replace('"indexed"', '"theirs"')
    (theirs / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=f"{theirs / MANIFEST}: of kind 'theirs'; .* move it away"):
        raise run("index", theirs, "--manifest").exception or AssertionError("no error")
    assert (theirs / MANIFEST).read_text() == text


def test_a_manifest_is_of_a_whole_folder(theirs):
    with pytest.raises(SettingsError, match=f"--manifest: {theirs / shard_name(0)}: .*name {theirs}$"):
        raise run("index", theirs / shard_name(0), "--manifest").exception or AssertionError("no error")
    assert not (theirs / MANIFEST).exists() and not index_path(theirs / shard_name(0)).exists()


@pytest.mark.parametrize("options", [[], ["--manifest"], ["{theirs}/00002.tar"]])
def test_index_anew_follows_tars_that_came_and_went(theirs, options):
    options = [option.format(theirs=theirs) for option in options]
    run("index", theirs, "--manifest")
    (theirs / shard_name(0)).unlink()
    write_tar(theirs / shard_name(2), sample("20"))
    assert "00002.tar: not listed" in run("verify", theirs).stdout
    assert run("index", theirs, *options).stdout == "2 tars indexed\n"
    assert [each.key for each in Shards(theirs)] == ["10", "11", "12", "20"]
    for number in (1, 2):
        (theirs / shard_name(number)).unlink()
    with pytest.raises(DataError, match=rf"{theirs}: no file \*\.tar; .*remove its manifest\.json"):
        raise run("index", theirs).exception or AssertionError("no error")


@pytest.mark.parametrize("name", ["index", "stats"])
def test_several_processes_find_the_same(ours, theirs, name):
    (theirs / "bad.tar").write_bytes(b"<html>")
    places = [theirs] if name == "index" else [ours, theirs / shard_name(1)]
    one, two = run(name, *places), run(name, *places, "--workers", 2)
    assert one.stdout == two.stdout and str(one.exception) == str(two.exception)
    assert one.stdout.startswith(f"{theirs / 'bad.tar'}: no tar" if name == "index" else f"{ours} (raw): 5 samples")


def test_names_cannot_command_the_terminal(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("k\x1b[2J.txt", b"x"), ("l.\x1b[2j", b"x")])
    for done in (run("verify", path), run("stats", path)):
        assert "\x1b" not in done.stdout and "\\x1b[2" in done.stdout


def test_stats_are_told_to_people_and_to_programs(ours, theirs):
    (theirs / "00000_stats.json").write_text('{"status_dict": {"success": 3, "http_404": 1234}}')
    told, size = run("stats", ours, theirs).stdout, sum(len(picture(n)) for n in range(5))
    assert f"{ours} (raw): 5 samples in 2 shards, " in told and f"{theirs} (no manifest): 6 samples in 2" in told
    assert f"  .png: 5, {size} bytes, {size / 5:.0f} bytes each\n" in told
    assert "    width, px: 8 / 8 / 8\n    height, px: 6 / 6 / 6\n" in told
    assert "  candidates: http_404 1,234, success 3\n" in told
    facts = json.loads(run("stats", ours, theirs, "--json").stdout)
    assert [each["num_samples"] for each in facts] == [5, 6]
    assert facts[0]["members"]["png"] == {"count": 5, "bytes": size}


def test_peek_prints_samples_and_draws_a_sheet(ours, tmp_path):
    out = tmp_path / "sheets" / "sheet.webp"
    done = run("peek", ours, "--num", 2, "--start", 2, "--out", out)
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == [
        f"s{n}  (0000{n - 2}.tar; 8 × 6 px; .json 8 bytes, .png {len(picture(n))} bytes, .txt 9 bytes)" for n in (2, 3)
    ]
    with Image.open(out) as sheet:
        assert sheet.format == "WEBP" and sheet.width > 2 * 192
    assert run("peek", ours, "--key", "s4").stdout.startswith("s4  (00001.tar; ")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--key", "s1", "--start", "1"], SettingsError, "--start and --key both say where to begin"),
        (["--out", "sheet.gif"], SettingsError, r"--out sheet\.gif: pictures are written as \.png, \.jpg or \.webp"),
        (["--key", "nobody"], DataError, "no sample of the key 'nobody'"),
    ],
)
def test_peek_says_what_cannot_be(ours, arguments, error, message):
    with pytest.raises(error, match=message):
        raise run("peek", ours, *arguments).exception or AssertionError("no error")


def test_peek_says_what_a_sheet_cannot_hold_before_it_prints(tmp_path):
    path = write_tar(tmp_path / "a.tar", [member for n in range(497) for member in sample(f"{n:03}")])
    done = run("peek", path, "--num", 700, "--out", tmp_path / "sheet.webp")
    assert isinstance(done.exception, SettingsError) and done.stdout == ""
    assert str(done.exception).endswith(
        ": a .webp holds at most 496 pictures, these are 497; use .png or a lower --num"
    )
    assert run("peek", path, "--num", 496, "--out", tmp_path / "sheet.webp").exit_code == 0


@pytest.mark.parametrize("place", ["/proc/nowhere/sheet.png", "{ours}/manifest.json/sheet.png", "{folder}"])
def test_peek_says_in_a_line_where_no_sheet_can_be_before_it_prints(ours, tmp_path, place):
    (tmp_path / "folder.png").mkdir()
    out = place.format(ours=ours, folder=tmp_path / "folder.png")
    done = run("peek", ours, "--out", out)
    assert isinstance(done.exception, SettingsError) and done.stdout == ""
    assert str(done.exception).startswith(f"--out {out}: cannot be written (") and "\n" not in str(done.exception)


def test_peek_looks_at_one_folder(ours, theirs):
    with pytest.raises(SettingsError, match=f"holds several folders of shards; name one: {ours}, {theirs}"):
        raise run("peek", ours.parents[1]).exception or AssertionError("no error")


@pytest.mark.parametrize("name", ["verify", "index", "stats", "peek"])
def test_a_wrong_path_is_named_whatever_is_asked(tmp_path, name):
    with pytest.raises(DataError, match=f"^{tmp_path / 'nowhere'}: no such file or folder$"):
        raise run(name, tmp_path / "nowhere").exception or AssertionError("no error")

"""``stylegan-t data``: look at shards, ours or anybody's. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import atomic
from stylegan_t.progress import Progress

app = typer.Typer(no_args_is_help=True)

LOOKED_AT = {
    "width_px": "width, px",
    "height_px": "height, px",
    "picture_bytes": "picture, bytes",
    "captions": "captions a sample",
    "chars": "characters a caption",
    "words": "words a caption",
}
"""What is measured of the samples that are opened, as people read it."""

Paths = Annotated[list[Path], typer.Argument(help="tars, folders of them, or folders of such folders; local")]
Workers = Annotated[int, typer.Option(min=0, help="processes; 0 = this one")]


@app.callback()
def about() -> None:
    """Look at shards: those of this pipeline, or any webdataset tars (img2dataset's, NeMo Curator's, your own).

    Exit codes: 0 nothing is wrong, 3 something is.
    """


@app.command()
def verify(
    paths: Paths,
    quick: Annotated[bool, typer.Option("--quick", help="headers, sizes and counts only: reads no picture")] = False,
    workers: Workers = 0,
) -> None:
    """Check shards; what is wrong is printed, a line each.

    Ours (with a manifest.json): the files are there, as long as the manifest says, their indexes fit, and every byte
    has the sha256 that it was written with; a damaged sample is named. Others: each tar is whole, and each sample has
    one picture, which decodes, and a caption (.txt, or caption or text in its .json).
    """
    from stylegan_t.data.found import find_shards, printable
    from stylegan_t.data.manifest import cure
    from stylegan_t.data.verify import Verification, check_folder

    places = find_shards(paths)
    work = Verification([pair for place in places for pair in zip(place.shards, place.entries, strict=True)], quick)
    in_folders = [f"{place.folder}: {problem}" for place in places for problem in check_folder(place)]
    for line in in_folders:
        print(printable(line))

    def tell(number: int, facts: dict[str, Any]) -> None:
        for problem in facts["problems"]:
            print(printable(f"{work.shards[number][0]}: {problem}"), flush=True)

    checked = _each_shard("verify", work, len(work.shards), workers, tell)
    num_samples, num_bytes = (sum(facts[name] for facts in checked) for name in ("num_samples", "num_bytes"))
    what = f"{_count(num_samples, 'sample')} in {_count(len(checked), 'shard')}, {_size(num_bytes)}"
    if wrong := len(in_folders) + sum(len(facts["problems"]) for facts in checked):
        kinds = {place.manifest["kind"] if place.manifest else None for place in places}
        raise DataError(f"{_count(wrong, 'problem')}: {what}; {'; '.join(sorted({cure(kind) for kind in kinds}))}")
    print(f"no problem: {what}")


@app.command()
def index(
    paths: Paths,
    hashed: Annotated[bool, typer.Option("--hash", help="hash each member too; reads every byte")] = False,
    manifest: Annotated[
        bool, typer.Option("--manifest", help="also write manifest.json: what random access to a folder starts from")
    ] = False,
    workers: Workers = 0,
) -> None:
    """Write an index beside each tar that somebody else made, so that any sample is one read away.

    Reads headers only (unless --hash). A tar that is not whole gets none and is named, with its whole samples counted.
    A manifest.json that an earlier --manifest wrote is made anew, of the tars that lie there now.
    """
    from stylegan_t.data.found import INDEXED, find_tars, printable
    from stylegan_t.data.shards import write_manifest
    from stylegan_t.data.tars import Indexing

    if manifest and (tars := [path for path in paths if path.is_file()]):
        raise SettingsError(f"--manifest: {tars[0]}: a manifest is of a whole folder; name {tars[0].parent}")
    places = find_tars(paths)
    work = Indexing([shard for place in places for shard in place.shards], hashed)

    def tell(_: int, facts: dict[str, Any]) -> None:
        if facts["problem"]:
            print(printable(facts["problem"]), flush=True)

    entries = [facts["entry"] for facts in _each_shard("index", work, len(work.shards), workers, tell)]
    rest = iter(entries)
    for place in places:
        mine = list(islice(rest, len(place.shards)))
        if (manifest or place.manifest) and None not in mine:
            write_manifest(place.folder, INDEXED, mine)
    if failed := entries.count(None):
        total = _count(len(entries), "tar")
        raise DataError(f"{failed} of {total} without an index; put whole ones there, or take them away")
    print(f"{_count(len(entries), 'tar')} indexed")


@app.command()
def stats(
    paths: Paths,
    num: Annotated[
        int, typer.Option(min=0, help="samples to open for sizes of pictures and captions; 0 = all")
    ] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="print the numbers as JSON, a list of folders")] = False,
    workers: Workers = 0,
) -> None:
    """Tell what shards hold: samples, bytes by kind of file, pictures, captions, datasets, and what became none."""
    from stylegan_t.data.found import find_shards, printable
    from stylegan_t.data.statistics import Measuring, statistics, to_measure

    places = find_shards(paths)
    work = Measuring([pair for place in places for pair in to_measure(place, num)])
    measured = iter(facts["measured"] for facts in _each_shard("stats", work, len(work.shards), workers))
    found = [statistics(place, list(islice(measured, len(place.shards)))) for place in places]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for facts in found:
        print("\n".join(map(printable, _described(facts))))


@app.command()
def peek(
    path: Annotated[Path, typer.Argument(help="a tar, or a folder of them")],
    num: Annotated[int, typer.Option(min=1, help="samples to show")] = 16,
    start: Annotated[int, typer.Option(min=0, help="number of the first one")] = 0,
    key: Annotated[str | None, typer.Option(help="key of the first one, instead of its number")] = None,
    out: Annotated[Path | None, typer.Option(help="also put the pictures on one sheet: .png, .jpg or .webp")] = None,
) -> None:
    """Show some samples: key, size, captions, metadata and, with --out, the pictures."""
    from PIL import Image

    from stylegan_t.data.found import find_shards
    from stylegan_t.data.peek import contact_sheet, most_on_sheet
    from stylegan_t.data.peek import peek as look

    if key is not None and start:
        raise SettingsError("--start and --key both say where to begin; leave one out")
    kind = Image.registered_extensions().get(out.suffix.lower()) if out else None
    if out and kind not in ("PNG", "JPEG", "WEBP"):
        raise SettingsError(f"--out {out}: pictures are written as .png, .jpg or .webp")
    places = find_shards([path])
    if len(places) > 1:
        names = ", ".join(str(place.folder) for place in places)
        raise SettingsError(f"{path}: holds several folders of shards; name one: {names}")
    found = look(places[0], num, start=start, key=key)
    if out and kind:  # before anything is printed that an error would push out of sight
        if len(found) > (most := most_on_sheet(kind)):
            raise SettingsError(
                f"--out {out}: a {out.suffix.lower()} holds at most {most:,} pictures, these are {len(found):,}; "
                "use .png or a lower --num"
            )
        try:
            with atomic(out) as temporary:
                contact_sheet(found).save(temporary, kind)
        except OSError as error:
            why = error.strerror or str(error)
            raise SettingsError(f"--out {out}: cannot be written ({why}); name a file where you may write") from None
    print("\n".join(each.text for each in found))


def _each_shard(
    what: str,
    work: Callable[[int], dict[str, Any]],
    num_shards: int,
    workers: int,
    tell: Callable[[int, dict[str, Any]], None] = lambda number, facts: None,
) -> list[dict[str, Any]]:
    """The facts of each shard, in the order of the shards; ``tell`` gets them as they come, to print at once."""
    from stylegan_t.engine.run import run_parts
    from stylegan_t.settings.engine import ProcessEngine

    found: dict[int, dict[str, Any]] = {}
    with Progress(what, num_shards, unit="shards") as progress:

        def done(number: int, facts: dict[str, Any]) -> None:
            tell(number, facts)
            found[number] = facts
            progress.advance()

        run_parts(work, range(num_shards), ProcessEngine(kind="processes", num_workers=workers), done)
    return [found[number] for number in range(num_shards)]


def _described(facts: dict[str, Any]) -> list[str]:
    """A folder's statistics as lines for people."""
    num_samples, seen = facts["num_samples"], facts["looked_at"]
    kind = facts["kind"] or "no manifest"
    lines = [
        f"{facts['folder']} ({kind}): {_count(num_samples, 'sample')} in {_count(facts['num_shards'], 'shard')}, "
        f"{_size(facts['tar_bytes'])}"
    ]
    for ext, members in facts["members"].items():
        mean = members["bytes"] / members["count"]
        lines.append(f"  .{ext}: {members['count']:,}, {_size(members['bytes'])}, {mean:,.0f} bytes each")
    lines.append(f"  looked at {seen['num_samples']:,}, min / median / max:")
    for name, label in LOOKED_AT.items():
        if spread := seen[name]:
            lines.append(f"    {label}: {spread['min']:,} / {spread['median']:,.0f} / {spread['max']:,}")
    unreadable = {"not readable": seen["unreadable"]} if seen["unreadable"] else {}
    for label, counts in (
        ("pictures", seen["formats"] | unreadable), ("datasets", facts["datasets"]), ("candidates", facts["candidates"])
    ):  # fmt: skip
        if counts:
            lines.append(f"  {label}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _size(num_bytes: float) -> str:
    """Bytes in the largest decimal unit that leaves at least one."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"

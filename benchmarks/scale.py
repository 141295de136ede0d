"""What so many pairs take, on paper: ``python benchmarks/scale.py --help``.

The arithmetic of docs/data_at_scale.md, whose tables it prints and, with --write, puts there. It starts from the rates
in benchmarks/rates.json, which say where each was measured, and from assumptions and prices that are options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

RATES = Path(__file__).with_name("rates.json")
DOCS = Path(__file__).parents[1] / "docs" / "data_at_scale.md"
BEGIN, END = "<!-- what follows is printed by `python benchmarks/scale.py --write` -->", "<!-- here its output ends -->"
SIDES_PX, FORMATS, C_DIM = (64, 256, 512), ("jpeg", "webp"), 768
DAY, HOUR, TB = 86_400, 3_600, 1e12
P_HELDOUT, PROBES = 0.01, 8
"""Share of profiles lite and full; cells of held-out pairs that a pair looks into (stylegan_t/data/rules/cells.py)."""

app = typer.Typer(add_completion=False, help=__doc__)


@dataclass(frozen=True)
class Wanted:
    """What is planned. None of it was measured here.

    Attributes:
        pairs: To train on.
        alive: Share of the links in the list that still give a picture.
        kept: Share of the downloaded pairs that the rules keep.
        source_bytes: Mean size of a picture on the web.
        raw_px: Side at which raw pictures are stored, as JPEGs; 0 = as they came.
        image_px: Side of the prepared pictures.
        image_format: Of the prepared pictures.
        samples_per_shard: Pairs in a shard.
        cell_size: Pairs among which embeddings are compared, each with each.
        cores, gpus: Machines at hand.
        gpu_score_per_second: Pairs that one GPU scores in a second; None = scored on the cores.
        train_per_second: Pictures that the training shows in a second, over all GPUs.
    """

    pairs: float = 250e6
    alive: float = 0.7
    kept: float = 0.5
    source_bytes: float = 200e3
    raw_px: int = 512
    image_px: int = 512
    image_format: str = "jpeg"
    samples_per_shard: int = 10_000
    cell_size: int = 100_000
    cores: int = 256
    gpus: int = 8
    gpu_score_per_second: float | None = None
    train_per_second: float = 10_000

    @property
    def raw(self) -> float:
        return self.pairs / self.kept

    @property
    def candidates(self) -> float:
        return self.raw / self.alive


@dataclass(frozen=True)
class Work:
    """Something that is done to a number of things at a rate: by shards on all cores or GPUs, or in one process."""

    stage: str
    count: float
    per_second: float
    on: str = "core"

    @property
    def hours(self) -> float:
        """Of one core, or one GPU."""
        return self.count / self.per_second / HOUR


@dataclass(frozen=True)
class Prices:
    """What things cost, in any currency; None = not told. They are no claims of ours."""

    tb_month: float | None = None
    core_hour: float | None = None
    gpu_hour: float | None = None
    tb_moved: float | None = None


@dataclass(frozen=True)
class Plan:
    """The quantities that follow from what is wanted and from the measured rates."""

    wanted: Wanted
    rates: Mapping[str, float]
    prices: Prices = field(default_factory=Prices)

    def prepared_bytes(self, image_format: str, side: int) -> float:
        """Of all prepared shards with their indexes."""
        each = self.rates[f"{image_format}_{side}_bytes"] + self.rates["prepared_beside_picture_bytes"]
        return self.wanted.pairs * (each + self.rates["index_bytes"])

    @property
    def raw_bytes(self) -> float:
        w = self.wanted
        picture = self.rates[f"jpeg_{w.raw_px}_bytes"] if w.raw_px else w.source_bytes
        return self.wanted.raw * (picture + self.rates["raw_beside_picture_bytes"] + self.rates["index_bytes"])

    @property
    def score_bytes(self) -> float:
        return self.wanted.raw * self.rates["score_bytes"]

    @property
    def stored_bytes(self) -> float:
        """Raw, scores and prepared, once."""
        prepared = self.prepared_bytes(self.wanted.image_format, self.wanted.image_px)
        return self.raw_bytes + self.score_bytes + prepared

    @property
    def downloaded_bytes(self) -> float:
        return self.wanted.raw * self.wanted.source_bytes

    @property
    def work(self) -> list[Work]:
        """The stages up to the training, and a check of every byte."""
        w, rates = self.wanted, self.rates
        prepared = self.prepared_bytes(w.image_format, w.image_px) / w.pairs
        verify = 1 / rates["verify_per_second"] + 2 * prepared / rates["sha256_bytes_per_second"]
        resize = Work(f"`download`: resize to {w.raw_px} px", w.raw, rates.get(f"jpeg_{w.raw_px}_per_second", 1))
        if w.gpu_score_per_second:
            score = Work("`score`", w.raw, w.gpu_score_per_second, "GPU")
        else:
            score = Work("`score`", w.raw, rates["score_per_second"])
        cosines, near, heldout = rates["cosines_per_second"], rates["near_seconds_per_100k"], P_HELDOUT * w.pairs
        prepare = rates[f"{w.image_format}_{w.image_px}_per_second"]
        return [
            Work("`download`: fetch, check, store", w.candidates, rates["download_per_second"]),
            *([resize] if w.raw_px else []),
            score,
            Work("`filter`: rules, same pixels", w.raw, 1e6 / rates["filter_seconds_per_million"], "process"),
            Work("`filter`: each pair's cell", w.raw, cosines * w.cell_size / w.raw, "process"),
            Work("`filter`: near-duplicates in cells", w.raw, 1e5 / w.cell_size * 1e5 / near, "process"),
            Work("`filter`: against held-out pairs", w.pairs, cosines / (1 + PROBES) / heldout**0.5, "process"),
            Work(f"`filter`: {w.image_px} px {w.image_format} shards", w.pairs, prepare),
            Work("`data verify` of the prepared shards", w.pairs, 1 / verify),
            Work("DVC: MD5, GB", self.stored_bytes / 1e9, rates["md5_bytes_per_second"] / 1e9),
        ]


def tables(plan: Plan) -> str:
    """The plan as Markdown."""
    parts = (_assumed(plan.wanted), _storage(plan), _time(plan), _moved(plan), _memory(plan), _cost(plan))
    return "\n\n".join("\n".join(part) for part in parts)


def _assumed(w: Wanted) -> Iterator[str]:
    raw = f"as JPEGs of {w.raw_px} px" if w.raw_px else "as they came"
    yield (
        f"Assumed, not measured: {w.pairs:,.0f} pairs to train on; of the links {w.alive:.0%} give a picture, of "
        f"{w.source_bytes / 1e3:,.0f} kB; the rules keep {w.kept:.0%} of them. So the list has {w.candidates:,.0f} "
        f"links, and {w.raw:,.0f} pairs are downloaded, kept {raw}, and scored. {w.cores:,} cores; shards of "
        f"{w.samples_per_shard:,} pairs; embeddings compared in cells of {w.cell_size:,}; {P_HELDOUT:.0%} held "
        f"out; a training that shows {w.train_per_second:,.0f} pictures a second."
    )


def _storage(plan: Plan) -> Iterator[str]:
    w, rates = plan.wanted, plan.rates
    yield "| stored | pairs | bytes a pair | TB | files |\n|---|---|---|---|---|"
    rows = [("`data/raw`", w.raw, plan.raw_bytes, 4), ("`data/scores`", w.raw, plan.score_bytes, 1)]
    for side in SIDES_PX:
        for kind in FORMATS:
            rows.append((f"`data/prepared`, {side} px {kind}", w.pairs, plan.prepared_bytes(kind, side), 2))
    for name, count, size, files in rows:
        num_files = -(-count // w.samples_per_shard) * files
        yield f"| {name} | {count:,.0f} | {size / count:,.0f} | {size / TB:,.1f} | {num_files:,.0f} |"
    shards = -(-w.pairs // w.samples_per_shard)
    yield (
        f"\nOf a prepared pair {rates['prepared_beside_picture_bytes']:,.0f} bytes are no picture (caption, metadata, "
        f"embedding, headers and padding of the tar) and {rates['index_bytes']:,.0f} are in the index: "
        f"{w.pairs * rates['index_bytes'] / 1e9:,.0f} GB in all, of which a reader holds what belongs to the shards "
        f"that it has open. The manifest of {shards:,.0f} shards has {shards * rates['manifest_bytes'] / 1e6:,.1f} MB."
    )


def _time(plan: Plan) -> Iterator[str]:
    yield "| work | pairs | a second | hours of one | days |\n|---|---|---|---|---|"
    for work in plan.work:
        machines = {"core": plan.wanted.cores, "GPU": plan.wanted.gpus, "process": 1}[work.on]
        on = work.on if machines == 1 else f"{work.on}s"
        yield (
            f"| {work.stage} | {work.count:,.0f} | {_short(work.per_second)} | {_short(work.hours)} | "
            f"{_short(work.hours / 24 / machines)} on {machines:,} {on} |"
        )


def _moved(plan: Plan) -> Iterator[str]:
    w = plan.wanted
    days = sum(work.hours for work in plan.work if work.stage.startswith("`download`")) / 24 / w.cores
    gbit = plan.downloaded_bytes * 8 / 1e9
    each = plan.prepared_bytes(w.image_format, w.image_px) / w.pairs
    yield (
        f"Downloading moves {plan.downloaded_bytes / TB:,.1f} TB: {gbit / (days * DAY):,.1f} Gbit/s to keep "
        f"{w.cores:,} cores busy, or {gbit / DAY / 10:,.1f} days at 10 Gbit/s: the slower of the two "
        "decides.\n\n"
        f"Training reads {w.train_per_second * each * 8 / 1e9:,.1f} Gbit/s of {w.image_px} px {w.image_format} shards, "
        f"and decoding takes {w.train_per_second / plan.rates['loader_per_second']:,.1f} cores (256 px JPEGs at 64 px)."
    )


def _memory(plan: Plan) -> Iterator[str]:
    raw, rates = plan.wanted.raw, plan.rates
    yield (
        f"The filter's rules take {rates['filter_bytes_per_row']:,.0f} bytes of memory a pair, "
        f"{raw * rates['filter_bytes_per_row'] / 1e9:,.0f} GB for all, and a file of {raw * C_DIM * 2 / TB:,.2f} TB "
        f"for the image embeddings ({C_DIM} × 2 bytes a pair), if they are compared."
    )


def _cost(plan: Plan) -> Iterator[str]:
    gpu = sum(work.hours for work in plan.work if work.on == "GPU")
    core = sum(work.hours for work in plan.work) - gpu
    yield "| paid for | how much | at | cost |\n|---|---|---|---|"
    rows = (
        ("storage, each month", plan.stored_bytes / TB, "TB", plan.prices.tb_month),
        ("cores", core, "hours", plan.prices.core_hour),
        ("GPUs", gpu, "hours", plan.prices.gpu_hour),
        ("moved in", plan.downloaded_bytes / TB, "TB", plan.prices.tb_moved),
    )
    for name, number, unit, price in rows:
        at, cost = ("not given", "") if price is None else (f"{price:,}", f"{number * price:,.0f}")
        yield f"| {name} | {number:,.0f} {unit} | {at} | {cost} |"


def read_rates(path: Path, given: list[str]) -> dict[str, float]:
    """The measured rates, with those that are given as NAME=VALUE instead."""
    rates = {name: float(rate["value"]) for name, rate in json.loads(path.read_text()).items()}
    for pair in given:
        name, _, value = pair.partition("=")
        if name not in rates:
            raise typer.BadParameter(f"{name}: no such rate; one of: {', '.join(sorted(rates))}")
        rates[name] = float(value)
    return rates


def sources(path: Path) -> str:
    """The rates by where they come from, as Markdown."""
    lines: dict[str, list[str]] = {}
    for rate in json.loads(path.read_text()).values():
        lines.setdefault(rate["from"], []).append(f"{rate['what']} ({_short(rate['value'])} {rate['unit']})")
    return "\n".join(f"- {source}: {'; '.join(told)}." for source, told in sorted(lines.items()))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def replaced(text: str, printed: str) -> str:
    """The page with the part that the script prints made new."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{printed}\n\n{END}{after}"


@app.command()
def plan(
    pairs: Annotated[float, typer.Option(help="pairs to train on")] = Wanted.pairs,
    alive: Annotated[float, typer.Option(help="share of the links that still give a picture")] = Wanted.alive,
    kept: Annotated[float, typer.Option(help="share of the downloaded pairs that the rules keep")] = Wanted.kept,
    source_bytes: Annotated[float, typer.Option(help="mean size of a picture on the web")] = Wanted.source_bytes,
    raw_px: Annotated[
        int, typer.Option(help="side of raw pictures: 64, 256, 512; 0 = kept as they came")
    ] = Wanted.raw_px,
    image_px: Annotated[int, typer.Option(help="side of prepared pictures: 64, 256 or 512")] = Wanted.image_px,
    image_format: Annotated[str, typer.Option(help="of prepared pictures: jpeg, webp or png")] = Wanted.image_format,
    samples_per_shard: Annotated[int, typer.Option(help="pairs in a shard")] = Wanted.samples_per_shard,
    cell_size: Annotated[int, typer.Option(help="filter.duplicates.cell_size")] = Wanted.cell_size,
    cores: Annotated[int, typer.Option(help="cores at hand")] = Wanted.cores,
    gpus: Annotated[int, typer.Option(help="GPUs at hand")] = Wanted.gpus,
    gpu_score_per_second: Annotated[
        float | None, typer.Option(help="pairs that one GPU scores in a second; default: scored on the cores")
    ] = None,
    train_per_second: Annotated[float, typer.Option(help="pictures the training shows")] = Wanted.train_per_second,
    tb_month: Annotated[float | None, typer.Option(help="price of a TB for a month")] = None,
    core_hour: Annotated[float | None, typer.Option(help="price of a core for an hour")] = None,
    gpu_hour: Annotated[float | None, typer.Option(help="price of a GPU for an hour")] = None,
    tb_moved: Annotated[float | None, typer.Option(help="price of a TB moved in")] = None,
    rate: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="instead of a measured rate; repeatable")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="put the tables into docs/data_at_scale.md")] = False,
) -> None:
    """Print storage, time, memory, bandwidth and cost of the data of a training."""
    wanted = Wanted(
        pairs, alive, kept, source_bytes, raw_px, image_px, image_format, samples_per_shard, cell_size, cores,
        gpus, gpu_score_per_second, train_per_second,
    )  # fmt: skip
    prices = Prices(tb_month, core_hour, gpu_hour, tb_moved)
    printed = f"{tables(Plan(wanted, read_rates(RATES, rate or []), prices))}\n\nMeasured:\n\n{sources(RATES)}"
    print(printed)
    if write:
        DOCS.write_text(replaced(DOCS.read_text(), printed))


if __name__ == "__main__":
    app()

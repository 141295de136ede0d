"""docs/ablation.md and its picture, from the table that the ablation's runs left; see benchmarks/ablation.py."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.figure import Figure as Picture

from flows.variants import BASE, Row, Variant
from stylegan_t.files import atomic

ONE, TWO, FINAL = "train_generator", "finetune_text_encoder", "train_super_resolution"
STAGE_WORDS = {ONE: "Stage one", TWO: "Stage two", FINAL: "Super-resolution"}
Better = Literal["lower", "higher"]
Pair = tuple[int, str]
"""Seed and machine: only runs that share both differ in nothing but the variant."""
ByPair = dict[Pair, float]
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Figure:
    """One column of the tables.

    Attributes:
        name: In stages.csv.
        title: Of the column.
        better: Which way.
    """

    name: str
    title: str
    better: Better


FRECHET = Figure("frechet_distance", "Fréchet distance ↓", "lower")
CLIP_SCORE = Figure("clip_score", "CLIP score ↑", "higher")
FIGURES = (
    FRECHET,
    CLIP_SCORE,
    Figure("mean_accuracy", "accuracy, seen pairs ↑", "higher"),
    Figure("mean_accuracy_heldout", "accuracy, held-out pairs ↑", "higher"),
    Figure("oracle_shape", "shape right ↑", "higher"),
)
PAGE = """\
# The paper's redesigns taken away, one at a time

{made_by}

Profile `tiny` on drawn shapes, unless the command above says otherwise. Each figure is the median over seeds {seeds},
with (smallest … largest); accuracies are the oracle's, the mean over shape, colour, background and size. A difference
is taken seed by seed on one machine, variant minus base. **The rule**: a claim of the paper *holds* in a figure where
the variant without it is worse for every seed, is *reversed* where it is better for every seed, and is *unclear* else.
With three seeds and a change that does nothing, chance alone says one or the other for a figure in one case of four: a
lone word proves little, a row of the same word more.
{notes}
| variant | what the paper says of what it lacks | settings |
|---|---|---|
{claims}

![Each seed's figures](images/{image})
"""


class Ablation:
    """What all runs measured.

    Args:
        rows: Of ablation.csv.
        variants: In the order in which they are shown.

    Raises:
        ValueError: No run of the base is among the rows.
    """

    def __init__(self, rows: Sequence[Row], variants: Sequence[Variant]) -> None:
        self.rows = rows
        there = {row["variant"] for row in rows}
        if BASE not in there:
            raise ValueError(f"no run of {BASE!r} in the table: nothing to compare with; run it first")
        self.variants = [variant for variant in variants if variant.name in there]
        self.seeds = sorted({int(row["seed"]) for row in rows})
        self.main = Counter(row.get("machine") or "" for row in rows).most_common(1)[0][0]

    def of(self, variant: str, stage: str, name: str, *, table: str = "stages", psi: float = 1.0) -> ByPair:
        """A figure by seed and machine: the median over repetitions; those without one are left out."""
        found: dict[Pair, list[float]] = {}
        for row in self.rows:
            here = (row["variant"], row["table"], row["stage"]) == (variant, table, stage)
            if here and float(row["psi"]) == psi and row.get(name):
                pair = int(row["seed"]), row.get("machine") or ""
                found.setdefault(pair, []).append(float(row[name]))
        return {pair: statistics.median(values) for pair, values in sorted(found.items())}

    def levels(self, variant: str, stage: str, name: str, *, table: str = "stages", psi: float = 1.0) -> ByPair:
        """One value a seed: of several machines, from the one where most runs ran."""
        found = self.of(variant, stage, name, table=table, psi=psi)
        return {
            pair: value for pair, value in found.items() if pair[1] == self.main or (pair[0], self.main) not in found
        }

    def twice(self) -> list[str]:
        """Variants and seeds that ran on several machines."""
        machines: dict[str, set[str]] = {}
        for row in self.rows:
            machines.setdefault(f"{row['variant']} {row['seed']}", set()).add(row.get("machine") or "")
        return [f"{run} ({', '.join(sorted(names))})" for run, names in machines.items() if len(names) > 1]

    def stages(self) -> set[str]:
        """Whose models were measured: an ablation may end with stage one."""
        return {row["stage"] for row in self.rows}

    def psis(self) -> list[float]:
        sweep = {float(row["psi"]) for row in self.rows if row["table"] == "psi_sweep" and row["variant"] == BASE}
        return sorted(sweep, reverse=True)

    def missing(self, expected: Sequence[Variant]) -> list[str]:
        """Runs that are not there."""
        there = {(row["variant"], int(row["seed"])) for row in self.rows}
        return [f"{v.name} {seed}" for v in expected for seed in self.seeds if (v.name, seed) not in there]


def difference(of: ByPair, against: ByPair) -> ByPair:
    """Seed by seed and machine by machine, where both have a figure."""
    return {pair: of[pair] - against[pair] for pair in of if pair in against}


def verdict(differences: ByPair, better: Better) -> str:
    """What the rule says of variant minus base: holds, reversed, unclear; of few seeds it says nothing."""
    if len(differences) < FEWEST_SEEDS:
        return "too few seeds"
    worse = [value > 0 if better == "lower" else value < 0 for value in differences.values()]
    same = [value == 0 for value in differences.values()]
    if all(worse):
        return "holds"
    return "unclear" if any(worse) or any(same) else "reversed"


def spread(values: Mapping[Pair, float], sign: str = "") -> str:
    """Median (smallest … largest)."""
    if not values:
        return "–"
    low, middle, high = (
        f"{value:{sign}.3g}".replace("-", "−")
        for value in (min(values.values()), statistics.median(values.values()), max(values.values()))
    )
    return middle if len(values) == 1 else f"{middle} ({low} … {high})"


def changed(differences: ByPair, better: Better, num_seeds: int) -> str:
    """A cell of the tables of differences; it says where not all seeds have one."""
    if not differences:
        return "–"
    few = f", {len(differences)} of {num_seeds} seeds" if len(differences) < num_seeds else ""
    return f"{spread(differences, '+')} **{verdict(differences, better)}**{few}"


def page(ablation: Ablation, expected: Sequence[Variant], made_by: str, image: str) -> str:
    """All of docs/ablation.md."""
    missing, twice = ablation.missing(expected), ablation.twice()
    notes = [
        *([f"Not run (variant, seed): {', '.join(missing)}.\n"] if missing else []),
        *([f"Run on several machines, to be compared on each: {', '.join(twice)}.\n"] if twice else []),
    ]
    parts = [
        PAGE.format(
            made_by=made_by,
            seeds=", ".join(map(str, ablation.seeds)),
            notes="".join(f"\n{note}" for note in notes),
            claims="\n".join(
                f"| {v.name} | {v.claim} | {' '.join(f'`{s}`' for s in v.settings) or 'as in params.yaml'} |"
                for v in ablation.variants
            ),
            image=image,
        )
    ]
    there = ablation.stages()
    for stage in (each for each in (ONE, FINAL) if each in there):
        parts += [f"## {STAGE_WORDS[stage]}, psi 1", figures_table(ablation, stage), differences_table(ablation, stage)]
    if {ONE, TWO} <= there:
        parts += ["## Stage two against stage one", STAGE_TWO_WORDS, stage_two_table(ablation)]
    parts += ["## Truncation", PSI_WORDS, psi_table(ablation)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


STAGE_TWO_WORDS = (
    "The base, seed by seed: what training the text encoder changed. The claim is that it raises the text's say at "
    "little cost; it *holds* in a figure where stage two is better for every seed."
)
PSI_WORDS = (
    "The base. The claim is that truncation trades variety for agreement with the text: as psi falls, CLIP score and "
    "Fréchet distance both rise. Fewer pictures than above, so the Fréchet distances are not those of above."
)


def figures_table(ablation: Ablation, stage: str) -> str:
    """Each variant's figures."""
    return table(
        ["variant", *(figure.title for figure in FIGURES)],
        ([v.name, *(spread(ablation.levels(v.name, stage, f.name)) for f in FIGURES)] for v in ablation.variants),
    )


def differences_table(ablation: Ablation, stage: str) -> str:
    """Each variant's difference to the base, with the verdict."""

    def cell(variant: Variant, figure: Figure) -> str:
        of, base = (ablation.of(name, stage, figure.name) for name in (variant.name, BASE))
        return changed(difference(of, base), figure.better, len(ablation.seeds))

    others = [variant for variant in ablation.variants if variant.name != BASE]
    return table(
        ["variant − base", *(figure.title for figure in FIGURES)],
        ([variant.name, *(cell(variant, figure) for figure in FIGURES)] for variant in others),
    )


def stage_two_table(ablation: Ablation) -> str:
    """Stage one, stage two, and what became of each figure."""
    lines = []
    for figure in FIGURES:
        one, two = (ablation.levels(BASE, stage, figure.name) for stage in (ONE, TWO))
        word = verdict(difference(one, two), figure.better)  # stage one is the variant without it
        lines.append([figure.title, spread(one), spread(two), f"{spread(difference(two, one), '+')} **{word}**"])
    return table(["figure", "stage one", "stage two", "two − one"], lines)


def psi_table(ablation: Ablation) -> str:
    """Fréchet distance and CLIP score of each stage's model over psi."""
    stages = [stage for stage in STAGE_WORDS if stage in ablation.stages()]
    cells = [(stage, figure) for stage in stages for figure in (FRECHET, CLIP_SCORE)]
    return table(
        ["psi", *(f"{STAGE_WORDS[stage]}: {figure.title}" for stage, figure in cells)],
        (
            [f"{psi:g}", *(spread(ablation.levels(BASE, s, f.name, table="psi_sweep", psi=psi)) for s, f in cells)]
            for psi in ablation.psis()
        ),
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def draw(path: Path, ablation: Ablation) -> None:
    """A panel for each figure of stage one: a dot for each seed, a bar at the median, a line at the base's."""
    names = [variant.name for variant in ablation.variants]
    with matplotlib.rc_context(), atomic(path) as temporary:
        matplotlib.rcdefaults()
        picture = Picture(figsize=(2.5 * len(FIGURES), 1.2 + 0.3 * len(names)), dpi=110, layout="constrained")
        panels = picture.subplots(1, len(FIGURES), sharey=True)
        for panel, figure in zip(panels, FIGURES, strict=True):
            for row, name in enumerate(names):
                values = list(ablation.levels(name, ONE, figure.name).values())
                panel.plot(values, [row] * len(values), "o", color="#12a594", markersize=4, alpha=0.8)
                if values:
                    middle = statistics.median(values)
                    panel.plot([middle, middle], [row - 0.3, row + 0.3], color="black", linewidth=1.5)
                    if name == BASE:
                        panel.axvline(middle, color="#c4c4cc", linewidth=1, linestyle="--", zorder=0)
            if figure is FRECHET:
                panel.set_xscale("log")
            panel.set_title(figure.title, fontsize=9)
            panel.tick_params(labelsize=8)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        picture.suptitle("Stage one at psi 1: a dot for each seed, a bar at the median", fontsize=10)
        picture.savefig(temporary, format="png", metadata={"Software": None})

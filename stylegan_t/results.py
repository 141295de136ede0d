"""docs/results.md: published figures with ours beside them where they are of one kind, and all that ours measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from stylegan_t.errors import DataError
from stylegan_t.records import Evaluation, Measurement

FLAG, UNKNOWN, FEW = "⚑", "?", "°"
LEGEND = (
    f"{FLAG}: the same weights took part in the training, so the number flatters. "
    f"{UNKNOWN}: whether they did is not known. {FEW}: too few pictures for it, read the kernel distance or CMMD. "
    "In brackets: where the number lies with 95 %, for other pictures of the same source."
)


class Column(BaseModel):
    """A column of a published table, and which of our numbers is of its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    metric: str | None
    scale: float


class Published(BaseModel):
    """A row of a published table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    values: list[str]
    """As printed, one for each column."""
    source: str


class PublishedTable(BaseModel):
    """A published table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    note: str
    columns: list[Column]
    rows: list[Published]


@dataclass(frozen=True)
class Run:
    """The records of one file: of one pipeline, or of one call of ``stylegan-t evaluate``."""

    file: str
    evaluations: list[Evaluation]


def published_tables() -> list[PublishedTable]:
    """What was published, from published.yaml."""
    text = (resources.files("stylegan_t") / "published.yaml").read_text()
    return [PublishedTable.model_validate(each) for each in yaml.safe_load(text)["tables"]]


def read_run(path: Path) -> Run:
    """The evaluations in a file: ``.jsonl`` has one a line, any other file is one.

    Raises:
        DataError: It cannot be read, is empty, or holds something else.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: {getattr(error, 'strerror', None) or 'not a text'}; give artifacts/evaluate/evaluations.jsonl, "
            "or what `stylegan-t evaluate` wrote"
        ) from None
    parts = text.splitlines() if path.suffix == ".jsonl" else [text]
    evaluations = []
    for number, part in enumerate(parts, start=1):
        try:
            evaluations.append(Evaluation.model_validate_json(part))
        except ValidationError as error:
            first = error.errors()[0]
            where = f"line {number}" if path.suffix == ".jsonl" else "the file"
            place = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{path}: {where} is no record of an evaluation ({place + ': ' if place else ''}{first['msg']}); give "
                "evaluations.jsonl, or evaluation.json of `stylegan-t evaluate`, both of this version"
            ) from None
    if not evaluations:
        raise DataError(f"{path}: holds no evaluation; run `stylegan-t run evaluate` to its end")
    return Run(str(path), evaluations)


def page(runs: Sequence[Run], command: str) -> str:
    """All of docs/results.md."""
    parts = [
        "# Results",
        f"Made by `{command}`; what is written here by hand is lost.",
        "## Published figures, and ours of the same kind",
        "A number of ours stands here only under exactly the name that a table's column has: as many real pictures, "
        "same count, side, network and resize.",
        *([LEGEND] if runs else []),
    ]
    for table in published_tables():
        parts += [f"### {table.title}", table.note, published_table(table, runs), *not_measured(table, runs)]
    parts += ["## All that ours measured", *([] if runs else ["No records were given."])]
    if runs:
        parts.append("\n".join(f"- run {i}: `{run.file}`" for i, run in enumerate(runs, start=1)))
    for group in grouped(runs):
        parts += [group.title, *group.notes(), group.table()]
    return "\n\n".join(parts) + "\n"


# ---- beside what was published ---------------------------------------------------------------------------------------


def published_table(table: PublishedTable, runs: Sequence[Run]) -> str:
    """The published rows, then ours that have a value under the name of a column."""
    titles = [column.title for column in table.columns]
    lines = [["model", *titles, "source"]]
    for row in table.rows:
        assert len(row.values) == len(titles), row
        lines.append([row.model, *row.values, row.source])
    for number, run in enumerate(runs, start=1):
        for evaluation in run.evaluations:
            cells = [_under(column, evaluation) for column in table.columns]
            if any(cells):
                name = f"**ours**: {_subject(evaluation)}, run {number}"
                lines.append([name, *(cell or "–" for cell in cells), f"`{run.file}`"])
    return _markdown(lines)


def _under(column: Column, evaluation: Evaluation) -> str | None:
    """Our number of exactly a column's kind."""
    return next((value_of(m, column.scale) for m in evaluation.measurements if _fits(m, column)), None)


def _fits(measurement: Measurement, column: Column) -> bool:
    return measurement.name == column.metric and measurement.value is not None and not measurement.in_training


def not_measured(table: PublishedTable, runs: Sequence[Run]) -> list[str]:
    """Why we have nothing in a column, a sentence for each."""
    measured = [m for run in runs for evaluation in run.evaluations for m in evaluation.measurements]
    found = []
    for column in table.columns:
        if column.metric and not any(_fits(m, column) for m in measured):
            reasons = dict.fromkeys(m.absent for m in measured if m.name == column.metric and m.absent)
            reason = "; ".join(reasons) or "no record has a number of that name"
            found.append(f"Ours: `{column.metric}` is not measured here ({reason}).")
    return found


# ---- what ours measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A number of one run.

    Attributes:
        shown: The value as text, with its interval and flags.
        by: Digests of the real pictures and of the judge: a median is over numbers by the same.
    """

    value: float
    shown: str
    by: tuple[str, str | None]


@dataclass(frozen=True)
class Group:
    """Evaluations of one protocol, side and count, by which run they are of: only these compare.

    Attributes:
        columns: Names of the runs, and their evaluations: one for each subject and psi.
    """

    protocol: str
    px: int | None
    count: int
    columns: dict[str, list[Evaluation]]

    @property
    def title(self) -> str:
        side = f"{self.px} px" if self.px else "as they are"
        return f"### Protocol `{self.protocol}`, {side}, {self.count:,} pictures"

    def all(self) -> Iterator[Evaluation]:
        for evaluations in self.columns.values():
            yield from evaluations

    def notes(self) -> Iterator[str]:
        """Which real pictures, why there is no median, and what is absent why."""
        references = sorted({f"{e.reference} ({e.reference_count:,})" for e in self.all()})
        note = f"Real pictures: {', '.join(references)}."
        if len({e.reference_sha256 for e in self.all()}) > 1:
            note += " They are not the same in all of these runs: no median is over different ones."
        yield note
        judges: dict[str, set[str | None]] = {}
        for measurement in (m for e in self.all() for m in e.measurements if m.value is not None):
            judges.setdefault(measurement.extractor, set()).add(measurement.weights_sha256)
        for name in (name for name, weights in judges.items() if len(weights) > 1):
            yield f"`{name}` is not the same network in all of these runs: no median is over different ones."
        absent: dict[str, dict[str, None]] = {}
        for measurement in (m for e in self.all() for m in e.measurements if m.absent):
            absent.setdefault(measurement.absent or "", {})[measurement.name] = None
        for reason, names in absent.items():
            yield f"Absent: {', '.join(f'`{name}`' for name in names)} ({reason})."

    def table(self) -> str:
        """A line for each number, subject and psi: the runs side by side, then the median of those that compare."""
        several = len(self.columns) > 1
        lines = [["number", "subject", *self.columns, *(["median"] if several else [])]]
        subjects = dict.fromkeys(_subject(evaluation) for evaluation in self.all())
        for name in dict.fromkeys(name for evaluation in self.all() for name in _numbers(evaluation)):
            for subject in subjects:
                found = [self._number(column, subject, name) for column in self.columns]
                if known := [each for each in found if each]:
                    alike = len({each.by for each in known}) == 1
                    middle = f"{statistics.median(each.value for each in known):.4g}" if alike else "–"
                    cells = [each.shown if each else "–" for each in found]
                    lines.append([f"`{name}`", subject, *cells, *([middle] if several else [])])
        return _markdown(lines)

    def _number(self, column: str, subject: str, name: str) -> Number | None:
        for evaluation in self.columns[column]:
            if _subject(evaluation) == subject:
                return _numbers(evaluation).get(name)
        return None


def grouped(runs: Sequence[Run]) -> list[Group]:
    """All evaluations by protocol, side and count, large counts first; repetitions in a file are runs too."""
    groups: dict[tuple[str, int, int], Group] = {}
    for number, run in enumerate(runs, start=1):
        seen: dict[tuple[object, ...], list[str | None]] = {}
        for evaluation in run.evaluations:
            key = (evaluation.protocol, evaluation.px or 0, -evaluation.count)
            repetitions = seen.setdefault((*key, _subject(evaluation)), [])
            if evaluation.seeds in repetitions:
                continue  # the sweep at psi 1 may be the same pictures as the stage's
            repetitions.append(evaluation.seeds)
            name = f"run {number}" + (f", repetition {len(repetitions)}" if len(repetitions) > 1 else "")
            group = groups.setdefault(key, Group(evaluation.protocol, evaluation.px, evaluation.count, {}))
            group.columns.setdefault(name, []).append(evaluation)
    return [groups[key] for key in sorted(groups)]


def _numbers(evaluation: Evaluation) -> dict[str, Number]:
    """What leads, then what does not, then what an oracle read: by name."""
    reals = evaluation.reference_sha256
    return {
        m.name: Number(m.value, value_of(m), (reals, m.weights_sha256))
        for m in sorted(evaluation.measurements, key=lambda m: not m.leads)
        if m.value is not None
    } | {name: Number(value, f"{value:.4g}", (reals, None)) for name, value in evaluation.facts.items()}


def value_of(measurement: Measurement, scale: float = 1.0) -> str:
    """A value with its interval, and a flag where its network took part in the training."""
    assert measurement.value is not None
    text = f"{scale * measurement.value:.4g}"
    if measurement.low is not None and measurement.high is not None:
        text += f" ({scale * measurement.low:.4g} … {scale * measurement.high:.4g})"
    flag = {True: f" {FLAG}", None: f" {UNKNOWN}", False: ""}[measurement.in_training]
    return text + flag + ("" if measurement.leads else f" {FEW}")


def _subject(evaluation: Evaluation) -> str:
    return evaluation.subject + (f", psi {evaluation.psi:g}" if evaluation.psi is not None else "")


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([header, "|" + "---|" * len(lines[0]), *rows])

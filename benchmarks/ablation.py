"""The ablation as plain processes, several at a time on one machine: ``python benchmarks/ablation.py --help``.

``python -m flows.ablation`` does the same over DVC, one after the other. This one needs neither DVC nor Prefect: each
``--prepared`` folder is a workspace of its own seed in which the stages up to filter and fetch_encoders ran, and each
run is a folder below ``--out`` that shares them. What a finished run measured is in OUT/ablation.csv at once; stopped
in any way, the same command goes on with what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from flows.variants import VARIANTS_FILE, Row, Variant, read_rows, read_variants, rows_of, write_rows
from stylegan_t.config import parse_config
from stylegan_t.errors import SettingsError
from stylegan_t.files import write_json, write_text
from stylegan_t.profile import override

ROOT = Path(__file__).parents[1]
REFERENCE = "reference_statistics"
MADE_BY = "made_by.txt"
SHOWN = {"Fréchet": "frechet_distance", "CLIP score": "clip_score", "accuracy": "mean_accuracy"}

app = typer.Typer(add_completion=False, help=__doc__)


class Failed(Exception):
    """A stage of a run failed; where to read why."""


class TimeUp(Exception):
    """The limit came before the run's end."""


@dataclass
class Machine:
    """What runs here now, so that all of it can be ended at once.

    Attributes:
        device: Of the stages.
        threads: Of each process.
    """

    device: str
    threads: int
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: bool = False

    def run(self, stage: str, folder: Path) -> None:
        """Run a stage in a workspace, once; its output goes to log.txt there. Raises Failed, TimeUp."""
        done = folder / "done" / stage
        if done.exists():
            return
        environment = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "stylegan_t.cli", "run", stage, "--device", self.device]
        start = time.monotonic()
        with (folder / "log.txt").open("ab") as log:
            with self._lock:
                if self._ended:
                    raise TimeUp
                process = subprocess.Popen(
                    command, cwd=folder, env={**os.environ, "PYTHONPATH": path, **environment},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if self._ended:
            raise TimeUp
        if code:
            last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"{stage} exited with {code}: {''.join(last)} ({folder / 'log.txt'})")
        write_json(done, {"seconds": round(time.monotonic() - start, 1)})

    def end(self) -> None:
        """Kill everything, and start nothing more."""
        with self._lock:
            self._ended = True
            for process in self._running:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Run:
    """One variant under one seed.

    Attributes:
        prepared: The workspace of its seed.
        folder: Its own one.
        values: Of its params.yaml.
    """

    variant: Variant
    seed: int
    prepared: Path
    folder: Path
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def params(self) -> Path:
        return self.folder / "params.yaml"

    @property
    def text(self) -> str:
        """Of its params.yaml."""
        return yaml.safe_dump(self.values, sort_keys=False, allow_unicode=True)

    def check(self) -> None:
        """Raise SettingsError where the folder holds a run of other settings."""
        if self.params.exists() and self.params.read_text() != self.text:
            raise SettingsError(
                f"{self.folder}: holds a run of other settings; use another --out, or remove that folder"
            )

    def lay_out(self, reference: Path | None) -> None:
        """Make the workspace, unless it is there."""
        if self.params.exists():
            return
        encoders = self.folder / "artifacts" / "fetch_encoders"
        shutil.rmtree(self.folder, ignore_errors=True)  # half laid out
        shutil.copytree(self.prepared / "artifacts" / "fetch_encoders", encoders, copy_function=_link)
        config = encoders / "players" / "discriminator_vit" / "config.json"
        hooks = self.values["fetch_encoders"]["discriminator_vit"]["hooks"]
        write_json(config, json.loads(config.read_text()) | {"hooks": hooks})  # a new file: the link's other end stays
        (self.folder / "data").symlink_to((self.prepared / "data").resolve())
        if reference:
            (self.folder / "artifacts" / REFERENCE).symlink_to(reference.resolve())
        write_text(self.params, self.text)

    def read(self, table: str) -> str:
        return (self.folder / "artifacts" / "evaluate" / table).read_text()


def _link(source: str, target: str) -> None:
    """The same file under another name where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def plan(prepared: Sequence[Path], variants: Sequence[Variant], settings: Sequence[str], out: Path) -> list[list[Run]]:
    """The runs of each seed; the first of each only gives its folder to the reference statistics.

    Raises:
        SettingsError: A workspace is not one, two have one seed, or a setting is wrong.
    """
    groups: dict[int, list[Run]] = {}
    for folder in prepared:
        needed = [folder / "params.yaml", folder / "data" / "prepared", folder / "artifacts" / "fetch_encoders"]
        if missing := [path for path in needed if not path.exists()]:
            raise SettingsError(f"--prepared {folder}: {missing[0]} is missing; run the stages up to filter there")
        runs: list[Run] = []
        for variant in (Variant(REFERENCE, "", ()), *variants):
            values = yaml.safe_load(needed[0].read_text())
            for setting in (*settings, *variant.settings):
                override(values, setting)
            seed = parse_config(values, f"{folder}, variant {variant.name}").seed
            runs.append(Run(variant, seed, folder, out / f"seed{seed}" / variant.name, values))
            runs[-1].check()
        if runs[0].seed in groups:
            raise SettingsError(f"--prepared {folder}: seed {runs[0].seed} is that of another one; give each its own")
        groups[runs[0].seed] = runs
    return list(groups.values())


def carry_out(groups: Sequence[Sequence[Run]], machine: Machine, jobs: int, out: Path, deadline: float) -> list[str]:
    """Run all that is not in the table yet, all variants of the first seed first; what is missing in the end."""
    table, here = out / "ablation.csv", {"machine": _processor(machine.device)}
    rows = read_rows(table) if table.exists() else []
    done = {(row["variant"], row["seed"]) for row in rows if row.get("machine") == here["machine"]}
    missing: dict[Future[None], Run] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for reference, *runs in groups:
                wanted = [run for run in runs if (run.variant.name, str(run.seed)) not in done]
                if wanted:
                    ready = pool.submit(_measure_reals, reference, machine)  # before those that wait for it
                    missing |= {pool.submit(_carry_out, run, ready, reference, machine): run for run in wanted}
            number, total, start = 0, len(missing), time.monotonic()
            print(f"{total} runs, {jobs} at a time; {len(done)} were done before", flush=True)
            reasons = []
            while missing and time.monotonic() < deadline:
                finished, _ = wait(missing, max(deadline - time.monotonic(), 0), FIRST_COMPLETED)
                for future in finished:
                    run, number = missing.pop(future), number + 1
                    when = f"[{number}/{total}, {time.monotonic() - start:.0f} s] {run.name}:"
                    error = future.exception()
                    if isinstance(error, Failed):
                        print(when, error, flush=True)
                        reasons.append(f"{run.name}: {error}")
                    elif error:
                        raise error
                    else:
                        found = [row | here for row in rows_of(run.variant.name, run.seed, run.read)]
                        rows += found
                        write_rows(table, rows)
                        print(when, _summary(found), flush=True)
            return reasons + [f"{run.name}: out of time" for run in missing.values()]
        finally:
            machine.end()
            pool.shutdown(cancel_futures=True)


def _measure_reals(reference: Run, machine: Machine) -> None:
    reference.lay_out(None)
    machine.run(REFERENCE, reference.folder)


def _carry_out(run: Run, ready: Future[None], reference: Run, machine: Machine) -> None:
    ready.result()
    run.lay_out(reference.folder / "artifacts" / REFERENCE)
    for stage in (*run.values["evaluate"]["stages"], "evaluate"):
        machine.run(stage, run.folder)


def _summary(rows: Sequence[Row]) -> str:
    """The final model's figures at psi 1, in a line."""
    final = [row for row in rows if row["table"] == "stages"][-1]
    return ", ".join(f"{word} {final[name]}" for word, name in SHOWN.items() if final.get(name))


def write_page(table: Path, file: Path, docs: Path) -> None:
    """Make docs/ablation.md and its picture from a table; MADE_BY beside it says where it was measured."""
    from benchmarks.ablation_table import Ablation, draw, page

    try:
        variants = read_variants(file)
        ablation = Ablation(read_rows(table), variants)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(_complain(f"--table {table}: {error}"))
    note = table.with_name(MADE_BY)
    made_by = note.read_text().strip() if note.exists() else f"Machine and command: not noted ({MADE_BY})"
    draw(docs / "images" / "ablation.png", ablation)
    write_text(docs / "ablation.md", page(ablation, variants, made_by, "ablation.png"))
    print(docs / "ablation.md")


def _environment(device: str, threads: int) -> str:
    """Machine, versions and command, in a line."""
    import torch

    from benchmarks.timing import environment
    from stylegan_t.device import pick_device

    torch.set_num_threads(threads)
    return environment(pick_device(device))


def _processor(device: str) -> str:
    from stylegan_t.device import pick_device
    from stylegan_t.evaluation.fakes import device_name

    return device_name(pick_device(device)).partition(",")[0]


def _complain(error: object) -> int:
    print(error, file=sys.stderr)
    return 2


def _on_sigterm(number: int, frame: object) -> None:
    sys.exit(128 + number)


@app.command()
def main(
    *,
    prepared: Annotated[list[Path] | None, typer.Option(help="a workspace with data and encoders; repeatable")] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="more such workspaces")] = None,
    out: Annotated[Path, typer.Option(help="runs, and ablation.csv")] = Path("ablation"),
    jobs: Annotated[int, typer.Option(min=1, help="runs at a time")] = 1,
    device: Annotated[str, typer.Option(help="of all stages: auto, cpu, cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="of each process, on the CPU")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="these variants only, commas between them")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="in all runs")] = None,
    file: Annotated[Path, typer.Option(help="the variants")] = VARIANTS_FILE,
    limit_seconds: Annotated[float, typer.Option(help="stop after so long; what is finished stays")] = 1e9,
    table: Annotated[
        Path | None, typer.Option(metavar="CSV", help="run nothing: make docs/ablation.md from it")
    ] = None,
    docs: Annotated[Path, typer.Option(help="where ablation.md and images/ablation.png go")] = ROOT / "docs",
) -> None:
    """Run every variant under every seed; or, with --table, make docs/ablation.md of what was measured."""
    if table:
        write_page(table, file, docs)
        return
    deadline = time.monotonic() + limit_seconds
    signal.signal(signal.SIGTERM, _on_sigterm)
    names = [name for each in only or [] for name in each.split(",")]
    try:
        groups = plan([*(prepared or []), *(more or [])], read_variants(file, names), settings or [], out)
    except ValueError as error:
        sys.exit(_complain(error))
    if not groups:
        sys.exit(_complain("nothing to do: name a workspace with --prepared, or a table with --table"))
    write_text(out / MADE_BY, f"{_environment(device, threads)}, {jobs} runs at a time")
    missing = carry_out(groups, Machine(device, threads), jobs, out, deadline)
    for each in missing:
        print("missing:", each)
    sys.exit(1 if any("out of time" not in each for each in missing) else 0)


if __name__ == "__main__":
    app()

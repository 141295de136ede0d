"""The ``stylegan-t`` command. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stylegan_t.config import PARAMS_FILE, STAGES, load_config
from stylegan_t.data_commands import app as data_commands
from stylegan_t.errors import DataError, Ended, LoaderLost, PeerLost, SettingsError
from stylegan_t.evaluation_commands import evaluate, results
from stylegan_t.progress import though_nobody_reads
from stylegan_t.prompts import parse_seeds, read_prompts
from stylegan_t.settings.training import AdversarialTraining
from stylegan_t.training.signals import OUR_LAUNCHER, stop_at_once

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_commands, name="data")
app.command()(evaluate)
app.command()(results)

Device = Literal["auto", "cpu", "cuda"]
Resume = Literal["never", "auto", "must"]
PARTED = ("download", "score", "filter")
"""Stages that are made in parts, on any number of processes and machines."""
MEASURING = ("reference_statistics", "evaluate")
"""Stages that several processes share, and that go on with the pictures that were looked at."""
KEEPING = (*PARTED, *MEASURING, "fetch_encoders")
"""Stages that keep what they have finished."""


@app.callback()
def about() -> None:
    """Train, measure and use StyleGAN-T, a text-to-image GAN.

    `stylegan-t profile tiny` writes params.yaml; `dvc repro` (or `python -m flows.pipeline`) runs all stages;
    `stylegan-t generate` makes pictures from a trained model.
    """


@app.command()
def run(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help=f"one of: {', '.join(STAGES)}")],
    device: Annotated[Device, typer.Option(envvar="STYLEGAN_T_DEVICE", help="where tensors live")] = "auto",
    devices: Annotated[
        int,
        typer.Option(min=1, envvar="STYLEGAN_T_DEVICES", help="training, evaluation: processes here, one per GPU"),
    ] = 1,
    resume: Annotated[
        Resume, typer.Option(envvar="STYLEGAN_T_RESUME", help="go on from an earlier state; must: in training only")
    ] = "auto",
    wandb: Annotated[
        str | None,
        typer.Option(envvar="STYLEGAN_T_WANDB", metavar="PROJECT", help="training: log to Weights & Biases as well"),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(metavar="A-B|K/N", help="download, score, filter: only these parts (3, 0-99, 1/4) and no output"),
    ] = None,
) -> None:
    """Run one stage of the pipeline in the current folder, as params.yaml says.

    A training stage stops on Ctrl-C, SIGTERM or SIGHUP after its step, saves, and exits with 75: the same command goes
    on, on as many devices as you like (SIGUSR1 saves and goes on; a second Ctrl-C stops at once). Other exit codes: 0
    done, 2 wrong settings, 3 wrong or damaged data, 73 another process does the same, 1 anything else. Several nodes:
    start this under torchrun yourself.

    download, score, filter, reference_statistics and evaluate stop at once and, with 75 as well, go on with the parts
    that were not finished. Finished ones are kept until another output is made (`--resume never` makes all anew).
    Several machines can share the work of the first three: each makes some parts (`--parts 1/4`), then `dvc repro
    --single-item STAGE` makes the output.
    """
    if stage not in STAGES:
        raise SettingsError(f"stage {stage!r} is unknown; one of: {', '.join(STAGES)}")
    from stylegan_t.stages.parts import parse_parts
    from stylegan_t.stages.workspace import Workspace

    only = parse_parts(parts) if parts is not None else None
    root = Path.cwd()
    config = load_config(root / PARAMS_FILE)
    settings = getattr(config, stage)
    trains = isinstance(settings, AdversarialTraining)
    _check_options(context, stage, trains, resume)
    if trains or stage in PARTED or stage in MEASURING:
        stop_at_once(stage)
    if devices > 1 and (trains or stage in MEASURING):
        from stylegan_t.device import pick_device
        from stylegan_t.launch import is_launched, launch

        if not is_launched():
            on_gpus = pick_device(device).type == "cuda"
            sys.exit(launch(devices, settings.batch_size if trains else None, sys.argv[1:], on_gpus=on_gpus))
    options: dict[str, Any] = {"resume": resume, "wandb_project": wandb} if trains else {}
    options |= {"afresh": resume == "never" and not only} if stage in KEEPING else {}
    options |= {"parts": only} if stage in PARTED else {}
    importlib.import_module(f"stylegan_t.stages.{stage}").run(config, Workspace(root), device, **options)


def _check_options(context: typer.Context, stage: str, trains: bool, resume: Resume) -> None:
    """Complain of options that mean nothing for a stage, or not together."""
    if not trains:
        _refuse(context, f"{stage} trains no GAN", *(["wandb"] if stage in MEASURING else ["devices", "wandb"]))
        if stage not in KEEPING:
            _refuse(context, f"{stage} keeps nothing to go on from", "resume")
        elif resume == "must":
            _refuse(context, f"must is for training; {stage} takes auto or never", "resume")
    if stage not in PARTED:
        _refuse(context, f"only {', '.join(PARTED)} are made in parts", "parts")
    elif context.params["parts"]:
        _refuse(context, "with --parts, others may be at work on what it would forget", "resume")


def _refuse(context: typer.Context, why: str, *options: str) -> None:
    """Complain of options given on the command line that mean nothing for a stage; the environment is for all."""
    for name in options:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise SettingsError(f"--{name}: {why}; leave the option out")


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="micro, tiny, emoji, lite or full")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting; repeatable")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="train on a public data set: cc3m, cc12m, … (see data/README.md)")
    ] = None,
) -> None:
    """Write params.yaml from a profile, with a data set and settings of your own."""
    from stylegan_t.profile import dataset_spec, write_profile

    write_profile(name, settings or [], Path.cwd() / PARAMS_FILE, dataset)
    print(f"{PARAMS_FILE}: profile {name}" + "".join(f"\n  {s}" for s in settings or []))
    if dataset:
        spec = dataset_spec(dataset)
        print(f"  data set: {spec.title}, {spec.num_pairs:,} pairs, about {spec.pictures_gb:,.0f} GB; {spec.home}")
        print(f"  licence: {spec.licence}\n  before `stylegan-t run download`: {spec.preparation}")


@app.command()
def estimate(
    *,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="settings to start from; default: params.yaml here, else tiny")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting; repeatable")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="train_generator (default), finetune_text_encoder or train_super_resolution")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="side of the pictures, pixels; default: the stage's last")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="images of an optimiser step, over all devices")] = None,
    microbatch_size: Annotated[int | None, typer.Option(help="images of a forward pass on each device")] = None,
    devices: Annotated[int, typer.Option(min=1, help="processes, one per GPU")] = 1,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16")] = None,
    device: Annotated[Device, typer.Option(help="what it would run on; cuda is counted without a GPU too")] = "auto",
    measure: Annotated[bool, typer.Option(help="time a few real steps here, if they fit into the free memory")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the numbers as JSON: bytes, days, images a second")
    ] = False,
) -> None:
    """Tell what a training would take: parameters, memory by part, days, disk. No data and no weights are needed.

    Memory is counted by running a step on tensors without numbers, so the largest model can be estimated anywhere; on
    two CPU cores that takes about 20 seconds. Speed is measured with random pictures and weights. Example, the paper's
    model on 64 GPUs: `stylegan-t estimate --profile full --resolution 512 --devices 64 --device cuda`
    """
    import json

    from rich.console import Console

    from stylegan_t.device import pick_device
    from stylegan_t.estimate import report
    from stylegan_t.estimate.plan import make_plan

    plan = make_plan(
        Path.cwd(),
        profile=profile,
        changes=settings or [],
        stage=stage,
        resolution=resolution,
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        precision=precision,
        devices=devices,
        device_type="cuda" if device == "cuda" or pick_device(device).type == "cuda" else "cpu",
    )
    found = report.estimate(plan, measured=measure)
    if as_json:
        print(json.dumps(report.facts(found), indent=2))
    else:
        report.show(found, Console())


Model = Annotated[Path, typer.Option(help="bundle, e.g. artifacts/train_super_resolution")]
Prompts = Annotated[list[str] | None, typer.Option("--prompt", help="what to paint; repeatable")]
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help="a text file with a prompt a line")]
Seeds = Annotated[str, typer.Option(help="numbers and ranges: 3, 0-7 or 1,5,10-12")]
Psi = Annotated[float, typer.Option(help="truncation: 1 as trained, towards 0 less varied")]
Out = Annotated[Path, typer.Option(help="folder for the pictures")]


@app.command()
def generate(
    *,
    model: Model,
    out: Out,
    prompt: Prompts = None,
    prompts: PromptsFile = None,
    seeds: Seeds = "0-7",
    psi: Psi = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures a forward pass")] = 16,
    device: Annotated[Device, typer.Option(envvar="STYLEGAN_T_DEVICE", help="where tensors live")] = "auto",
) -> None:
    """Paint prompts: a PNG for each prompt and seed, and grid.png (a row per prompt, a column per seed)."""
    from stylegan_t import generate as pictures

    files = pictures.generate(
        model,
        _wanted(prompt, prompts),
        parse_seeds(seeds),
        psi=psi,
        out=out,
        device=device,
        batch_size=batch_size,
    )
    print(f"{len(files) - 1} pictures and {files[-1]}")


@app.command()
def interpolate(
    *,
    model: Model,
    out: Out,
    prompt: Prompts = None,
    prompts: PromptsFile = None,
    seeds: Seeds = "0",
    psi: Psi = 1.0,
    frames: Annotated[int, typer.Option(min=1, help="pictures from each station to the next")] = 24,
    device: Annotated[Device, typer.Option(envvar="STYLEGAN_T_DEVICE", help="where tensors live")] = "auto",
) -> None:
    """Walk from prompt to prompt and from seed to seed: numbered PNGs and a looping interpolation.webp."""
    from stylegan_t import generate as pictures

    files = pictures.interpolate(
        model, _wanted(prompt, prompts), parse_seeds(seeds), frames=frames, psi=psi, out=out, device=device
    )
    print(f"{len(files) - 1} frames and {files[-1]}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="a list instead of a table")] = False,
) -> None:
    """Check whether this machine and repository are fit to run: versions, disks, GPUs, locks, remote, Prefect.

    Exits with 1 where a check fails; each says what helps.
    """
    if not Path("flows", "doctor").is_dir():
        raise SettingsError(f"{Path.cwd()}: no flows/doctor here; run this in the root of a clone of the repository")
    if importlib.util.find_spec("packaging") is None:
        raise SettingsError("doctor: packages of the flows are missing; `pip install -e '.[flows]'` installs them")
    command = [sys.executable, "-m", "flows.doctor", *(["--json"] if as_json else [])]
    sys.exit(subprocess.run(command, check=False).returncode)


def _wanted(prompts: list[str] | None, file: Path | None) -> list[str]:
    return [*(prompts or []), *(read_prompts(file) if file else [])]


def say(error: Ended) -> int:
    """Print an error in one line, once for all processes of a training; its exit code.

    What may be one process's own trouble, or is that of another one, is left to our launcher, which knows all of them.
    """
    is_main, alone = os.environ.get("RANK", "0") == "0", isinstance(error, SettingsError | DataError | LoaderLost)
    if OUR_LAUNCHER in os.environ and (isinstance(error, PeerLost) or (alone and not is_main)):
        from stylegan_t.launch import leave_reason

        leave_reason(error)
    elif is_main or alone:
        with though_nobody_reads():
            print(error, file=sys.stderr)
    return error.exit_code


def main() -> None:
    """Run the command line; errors a user can cause are one line and an exit code (see errors.py)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app(standalone_mode=True)
    except Ended as error:
        sys.exit(say(error))
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()

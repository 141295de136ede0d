"""``stylegan-t evaluate`` and ``stylegan-t results``: any pictures measured by a protocol, and tables of records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

Device = Literal["auto", "cpu", "cuda"]
Captions = Annotated[
    Path | None, typer.Option(help="a caption a line: of --images in the order of their names, or to be painted")
]
Weights = Annotated[list[str] | None, typer.Option(metavar="JUDGE=FILE", help="a local weights file; repeatable")]
Work = Annotated[
    Path | None, typer.Option(help="keeps what the judges saw; default: .state here, else ~/.cache/stylegan-t")
]


def evaluate(
    *,
    against: Annotated[Path, typer.Option(help="real pictures: shards, or a folder (captions as in data/README.md)")],
    protocol: Annotated[str, typer.Option(help="coco64, coco256, quick, shapes, or a YAML file")] = "quick",
    model: Annotated[Path | None, typer.Option(help="bundle, e.g. artifacts/train_super_resolution; or")] = None,
    images: Annotated[Path | None, typer.Option(help="pictures, whoever made them: a folder, or shards")] = None,
    captions: Captions = None,
    judges: Annotated[Path | None, typer.Option(help="folder of networks, as fetch_encoders writes it")] = None,
    weights: Weights = None,
    num_images: Annotated[int | None, typer.Option(min=2, help="a model's pictures; default: the protocol's")] = None,
    psi: Annotated[float, typer.Option(help="truncation of the model: 1 as trained")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="of latents, subsets and halves")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures a forward pass")] = 64,
    device: Annotated[Device, typer.Option(envvar="STYLEGAN_T_DEVICE", help="where tensors live")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="processes on this machine, one per GPU")] = 1,
    out: Annotated[Path, typer.Option(help="where the record goes")] = Path("evaluation.json"),
    work: Work = None,
) -> None:
    """Measure a model or a folder of pictures against real ones: FID, KID, CMMD, precision, recall, CLIP score.

    Every number is printed under a name that states its protocol, with a 95 % interval; a metric whose network cannot
    be had is absent, with the reason. Judges come from the pipeline here, from --judges, from --weights, or by name
    over the network. Stopped, the same command goes on where it was. Examples:

    `stylegan-t evaluate --images fakes --against reals`

    `stylegan-t evaluate --model artifacts/train_super_resolution --against COCO/data/raw --protocol coco256`

    `stylegan-t evaluate --images a --against b --weights inception=inception-2015-12-05.pt`
    """
    from rich.console import Console

    from stylegan_t import measure
    from stylegan_t.device import pick_device
    from stylegan_t.launch import is_launched, launch
    from stylegan_t.training.signals import stop_at_once

    if devices > 1 and not is_launched():
        sys.exit(launch(devices, None, sys.argv[1:], on_gpus=pick_device(device).type == "cuda"))
    stop_at_once("evaluate")
    found = measure.measure(
        measure.Request(
            model=model,
            images=images,
            against=against,
            protocol=protocol,
            captions=captions,
            judges=judges,
            weights=measure.parse_weights(weights or []),
            num_images=num_images,
            psi=psi,
            seed=seed,
            batch_size=batch_size,
            device=device,
            work=work or measure.default_work(),
        )
    )
    if found:
        measure.show(found, Console())
        measure.write(found, out)


def results(
    record: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RECORD]...", help="evaluations.jsonl of pipelines, evaluation.json of `evaluate`"),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="the page")] = Path("docs/results.md"),
) -> None:
    """Write the page of results: what was published, ours beside it where of one kind, and all that ours measured.

    Several records of one protocol, e.g. of three seeds, stand side by side with their median. Example:

    `stylegan-t results seed*/artifacts/evaluate/evaluations.jsonl --out docs/results.md`
    """
    import shlex

    from stylegan_t.files import write_text
    from stylegan_t.results import page, read_run

    files = record or []
    command = shlex.join(["stylegan-t", "results", *map(str, files), "--out", str(out)])
    write_text(out, page([read_run(file) for file in files], command))
    print(out)

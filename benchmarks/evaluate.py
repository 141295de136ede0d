"""How fast an evaluation is beside its generator and its extractor alone: ``python benchmarks/evaluate.py --help``.

The last results are in benchmarks/evaluate.md. The extractor has Inception's architecture (torchvision's, weights as
they are drawn) in the place of FID's, behind clean-fid's own resize.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

import torch
import torchvision
import typer
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.timing import environment, synchronise
from stylegan_t.data.images import to_signed
from stylegan_t.data.shapes import caption, combinations
from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.fakes import Model, Painted
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.protocols import load_protocol
from stylegan_t.evaluation.scores import Reference
from stylegan_t.evaluation.sets import PART, Share
from stylegan_t.files import write_json
from stylegan_t.metrics.moments import Moments
from stylegan_t.models.bundle import Bundle
from stylegan_t.models.encoders import TextEncoder
from stylegan_t.models.generator import Generator
from stylegan_t.progress import Progress
from stylegan_t.randomness import image_seeds
from stylegan_t.settings.protocol import Measure, Protocol
from stylegan_t.settings.training import Network
from tests.inceptions import save

RESOLUTION, C_DIM = 64, 64
ALONE = 1000
"""Pictures of a measurement of one part alone."""
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}

app = typer.Typer(add_completion=False, help=__doc__)


def only_inception() -> Protocol:
    """FID, KID, precision, recall, density and coverage of Inception's features."""
    metrics = ["frechet", "kernel", "precision_recall", "density_coverage"]
    values = {"judge": "inception", "resize": "clean", "metrics": metrics}
    return load_protocol("quick").model_copy(update={"measures": [Measure.model_validate(values)]})


def model(network: str, batch_size: int, device: torch.device) -> Model:
    """A profile's generator at 64 px, as it is drawn."""
    path = Path(sys.modules[Generator.__module__].__file__ or "").parents[1] / "profiles" / f"{network}.yaml"
    settings = Network.model_validate(yaml.safe_load(path.read_text())["train_generator"]["network"]).of_generator()
    settings |= {"channel_base": max(settings["channel_base"], 32 * RESOLUTION)}
    torch.manual_seed(0)
    generator = Generator(resolution=RESOLUTION, c_dim=C_DIM, **settings).eval()
    text = TextEncoder(embed_dim=C_DIM, text_cfg=TEXT).eval()
    return Model(network, Bundle(generator, text, {"facts": {"kimg": 0}}), "benchmark", batch_size, device)


def save_inception(folder: Path) -> None:
    """Inception v3 with its 2,048 pooled features, where clean-fid looks for it."""
    torch.manual_seed(0)
    net = torchvision.models.inception_v3(weights=None, aux_logits=True, transform_input=False, init_weights=False)
    for name in ("fc", "dropout"):
        setattr(net, name, nn.Identity())
    net.aux_logits = False
    traced = torch.jit.trace(net.eval(), torch.zeros(2, 3, 299, 299))
    assert isinstance(traced, nn.Module)
    save(folder / "inception-2015-12-05.pt", traced)
    write_json(folder / "config.json", {"kind": "inception"})


def rate(count: int, start: float, device: torch.device) -> float:
    synchronise(device)
    return count / (time.perf_counter() - start)


@app.command()
def main(
    *,
    network: Annotated[
        Literal["tiny", "lite", "full"], typer.Option(help="profile whose generator is built, at 64 px")
    ] = "lite",
    num_images: Annotated[int, typer.Option(min=PART, help="pictures evaluated")] = 10_000,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures a forward pass")] = 50,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="where to run")] = "cpu",
) -> None:
    """Paint and measure, and compare with 1 / (1/generator + 1/extractor), each alone before and after."""
    where = torch.device(device)
    root = Path(tempfile.mkdtemp(prefix="evaluate-"))
    save_inception(root / "judges" / "inception")
    panel, painter = Panel(root / "judges", only_inception().measures, where, None), model(network, batch_size, where)
    captions = [caption(each, i % 4) for i, each in enumerate(combinations())]
    prompts = [captions[i % len(captions)] for i in range(num_images)]
    torch.manual_seed(1)
    features = torch.randn(10_000, 2048)
    reference = {"inception_clean": Reference(Moments.of(features.to(where)), features.to(where))}
    extractor = panel.extractors["inception_clean"].features
    pictures = torch.cat(list(painter.paint(prompts[: 2 * batch_size], image_seeds(2, "warm", 0, 2 * batch_size))))
    rates: dict[str, list[float]] = {"generator": [], "extractor": []}

    def alone() -> None:
        start = time.perf_counter()
        for _ in painter.paint(prompts[:ALONE], image_seeds(1, "alone", 0, ALONE)):
            pass
        rates["generator"].append(rate(ALONE, start, where))
        start = time.perf_counter()
        with torch.no_grad():
            for first in range(0, ALONE, batch_size):
                batch = pictures[torch.arange(first, first + batch_size) % len(pictures)]
                extractor(extractor.prepare(to_signed(batch.to(where)))).cpu()
        rates["extractor"].append(rate(ALONE, start, where))

    with torch.no_grad():
        extractor(extractor.prepare(to_signed(pictures.to(where))))
    alone()
    memory = {}
    for count in (num_images // 4, num_images):
        start = time.perf_counter()
        with Progress("evaluate", count, shown=sys.stderr.isatty()) as progress:
            evaluator = Evaluator(
                "benchmark", only_inception(), panel, root / "sets", batch_size=batch_size, seed=0, share=Share(),
                progress=progress,
            )  # fmt: skip
            painted = Painted(painter, prompts[:count], image_seeds(0, f"all {count}", 0, count), 1.0)
            found = evaluator.evaluate(painted, "no captions", None, reference, "benchmark")
        whole = rate(count, start, where)
        memory[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if where.type == "cuda":
            memory[count] = torch.cuda.max_memory_allocated() / 2**30
    alone()
    generator, extracting = (sum(each) / len(each) for each in rates.values())
    together = 1 / (1 / generator + 1 / extracting)
    print(environment(where))
    print(f"\n{network} generator at {RESOLUTION} px, {num_images:,} pictures, batches of {batch_size}\n")
    print("| part | images/s |\n|---|---|")
    print(f"| generator alone (before, after) | {', '.join(f'{each:.1f}' for each in rates['generator'])} |")
    print(f"| extractor alone (before, after) | {', '.join(f'{each:.1f}' for each in rates['extractor'])} |")
    print(f"| 1 / (1/generator + 1/extractor) | {together:.1f} |")
    print(f"| evaluation, all metrics included | {whole:.1f} ({whole / together:.0%}) |\n")
    print("| seconds of algebra | |\n|---|---|")
    for each in found.measurements:
        print(f"| {each.name} | {each.seconds or 0:.1f} |")
    print(f"\npeak memory, GiB ({'device' if where.type == 'cuda' else 'resident'}): ", end="")
    print(", ".join(f"{value:.2f} at {count:,} pictures" for count, value in memory.items()))
    shutil.rmtree(root)


if __name__ == "__main__":
    app()

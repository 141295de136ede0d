"""How fast pairs are scored, beside the bare encoder: ``python benchmarks/score.py --help``.

What the stage does to a raw shard (read, decode, hash, resize, tokenise, encode, write the table) against the encoder's
forward passes over tensors that are ready. A CLIP of ViT-B/32's size with random weights. The last results are in
benchmarks/score.md and, for the plan of benchmarks/scale.py, in benchmarks/rates.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import open_clip
import torch
import typer
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.loader import jpegs
from benchmarks.timing import environment, interleaved
from stylegan_t.data.images import pillow_warnings
from stylegan_t.data.measures import Languages
from stylegan_t.data.shards import pack, shard_name, write_manifest, write_shard
from stylegan_t.files import write_json
from stylegan_t.models.encoder_files import load_clip, save_clip
from stylegan_t.models.encoders import Clip, clip_from_open_clip
from stylegan_t.stages.measure import look_at
from stylegan_t.stages.passes import forward_passes
from stylegan_t.stages.score import ScoreParts

RATES = Path(__file__).with_name("rates.json")
AIM = 0.9
BARE, BARE_CHUNKS, STAGE = "bare encoder, torch's threads", "bare encoder, chunks as in the stage", "the stage"
CAPTION = "a man in a dark suit and a hat stands in front of brick wall number {}, looking into the camera"

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def main(
    count: Annotated[int, typer.Option(help="pairs a round, in one raw shard")] = 256,
    image_px: Annotated[int, typer.Option(help="side of their JPEGs")] = 256,
    batch_size: Annotated[int, typer.Option(help="pairs a forward pass")] = 64,
    model: Annotated[str, typer.Option(help="of open_clip's collection; random weights")] = "ViT-B-32",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 takes torch's choice")] = 0,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="where the encoder runs")] = "cpu",
    pictures: Annotated[
        Path | None, typer.Option(help="folder of pictures to take; default: noise with a photo's spectrum")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="timed rounds; all cases take turns in each")] = 5,
    write: Annotated[bool, typer.Option("--write", help="put the rate into rates.json for scale.py")] = False,
) -> None:
    """Pairs per second, side by side."""
    place = torch.device(device)
    if threads:
        torch.set_num_threads(threads)
    data = jpegs(image_px, count, pictures)
    with tempfile.TemporaryDirectory() as folder:
        score = put_workspace(Path(folder), model, data, batch_size, device)
        clip = load_clip(score.clip).to(place)
        cases = {BARE: bare(clip, count, batch_size), STAGE: lambda: score(0)}
        if device == "cpu":
            cases[BARE_CHUNKS] = chunked(clip, count, batch_size)
        times = interleaved(cases, repeats, place)
    where = environment(place)
    print(f"{model}, {count} JPEGs of {image_px} px a round, batches of {batch_size}; {where}.\n")
    print("| what | pairs/s (least, most) | the stage's share of it, aim ≥ 0.90 |\n|---|---|---|")
    for name, seconds in times.items():
        rates = sorted(count / s for s in seconds)
        share = statistics.median(s / stage for s, stage in zip(seconds, times[STAGE], strict=True))
        verdict = "" if name == STAGE else f"{share:.2f}" + ("" if share >= AIM else " (missed)")
        print(f"| {name} | {statistics.median(rates):.2f} ({rates[0]:.2f}, {rates[-1]:.2f}) | {verdict} |")
    rate = ready_per_second(clip, data)
    print(f"\nA core makes {rate:.0f} pairs/s ready for the encoder: one that takes more, on a GPU, needs more cores.")
    if write:
        per_core = count / statistics.median(times[STAGE]) / torch.get_num_threads()
        what = f"scoring with a CLIP of {model}'s size on one core, float32"
        put_rate("score_per_second", per_core, "pairs/s", what, where)


def put_workspace(folder: Path, model: str, data: list[bytes], batch_size: int, device: str) -> ScoreParts:
    """A raw shard and an encoder, and what scores the one with the other."""
    samples = [
        pack(f"{number:07d}", "jpg", picture, [CAPTION.format(number)], {"url": f"http://example.com/{number}.jpg"})
        for number, picture in enumerate(data)
    ]
    raw, encoder = folder / "raw", folder / "clip"
    write_manifest(raw, "raw", [write_shard(raw / shard_name(0), samples)])
    torch.manual_seed(0)
    built = open_clip.create_model(model, pretrained=None, force_custom_text=True)
    config = open_clip.get_model_config(model)
    assert config is not None
    save_clip(encoder, clip_from_open_clip(built, config))
    return ScoreParts(
        folder=folder / "scores", raw=raw, sets={}, clip=encoder, plugins=(), root=folder, device=device,
        batch_size=batch_size, sharpness_px=256, min_language_confidence=0.5,
    )  # fmt: skip


def batches(clip: Clip, count: int, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """Pictures in [-1, 1] at the encoder's resolution and tokens, on its device."""
    tokens = clip.text.tokenize([CAPTION.format(number) for number in range(count)]).to(clip.device)
    sizes = [len(part) for part in tokens.split(batch_size)]
    images = [torch.rand(size, 3, clip.image_px, clip.image_px, device=clip.device) * 2 - 1 for size in sizes]
    return list(zip(images, tokens.split(batch_size), strict=True))


def bare(clip: Clip, count: int, batch_size: int) -> Callable[[], object]:
    """Nothing but forward passes, each of a whole batch."""
    ready = batches(clip, count, batch_size)

    @torch.inference_mode()
    def call() -> object:
        return [(clip.encode_image(images), clip.text(tokens)) for images, tokens in ready]

    return call


def chunked(clip: Clip, count: int, batch_size: int) -> Callable[[], object]:
    """Nothing but forward passes, spread over threads as the stage does it."""
    ready = batches(clip, count, batch_size)

    def call() -> object:
        with forward_passes(clip.device) as forward:
            return [(forward(clip.encode_image, images), forward(clip.text, tokens)) for images, tokens in ready]

    return call


def ready_per_second(clip: Clip, data: list[bytes]) -> float:
    """Pairs that a core decodes, hashes, resizes and tokenises in a second, by the time that it worked on them."""
    captions, languages = [CAPTION.format(number) for number in range(len(data))], Languages(0.5)
    start = time.process_time()
    with pillow_warnings():
        for picture in data:
            look_at(picture, clip_px=clip.image_px, sharpness_px=256, squash_px={})
    clip.text.tokenize(captions)
    for caption in captions:
        languages(caption)
    return len(data) / (time.process_time() - start)


def put_rate(name: str, value: float, unit: str, what: str, where: str) -> None:
    known = json.loads(RATES.read_text()) if RATES.exists() else {}
    rate = {"value": value, "unit": unit, "what": what, "from": f"benchmarks/score.md ({where})"}
    write_json(RATES, known | {name: rate})


if __name__ == "__main__":
    app()

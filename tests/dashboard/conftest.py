"""A project's folder as the stages leave it, in any state: what the dashboard reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFilter

from stylegan_t.files import write_json
from stylegan_t.records import (
    LIVE,
    LOG,
    RUN,
    SAMPLES,
    LogRecord,
    RunRecord,
    SampleGrid,
    SampleSheet,
    Speed,
    append_line,
    read_lines,
    write_lines,
    write_record,
)
from tests.dashboard.measured import FULL, read_by_oracle, write_evaluation

PROMPTS = [
    f"a {size} {colour} {shape} on a {background} background"
    for size, colour, shape, background in [
        ("large", "red", "circle", "white"),
        ("small", "blue", "square", "yellow"),
        ("large", "green", "star", "black"),
        ("small", "orange", "triangle", "blue"),
        ("large", "purple", "square", "white"),
        ("small", "yellow", "circle", "red"),
    ]
]
SEEDS = [0, 1, 2, 3, 4, 5]


@dataclass(frozen=True)
class Project:
    root: Path

    def train(
        self,
        stage: str = "train_generator",
        digest: str = "3fa9c1d2e8",
        *,
        kimg: float = 60.0,
        total: float = 60.0,
        finished: bool = True,
        resolutions: Sequence[int] = (8, 16),
        started: str = "2026-11-22T14:22:05+00:00",
        prompts: Sequence[str] = PROMPTS,
        every: float = 12.0,
        without: Sequence[str] = (),
    ) -> Path:
        """A run that has come to ``kimg``; finished ones have their records in the outputs, too."""
        live = self.root / ".state" / stage / digest / LIVE
        settings = {"resolutions": list(resolutions), "batch_size": 32}
        write_record(
            live / RUN,
            RunRecord(
                stage=stage,
                digest=digest,
                started=started,
                total_kimg=total,
                settings=settings,
                finished=finished,
            ),
        )
        for step in range(1, int(kimg) + 1):
            speed = Speed(
                seconds=4.0 * step,
                images_per_second=250 + 9 * math.sin(step),
                data_wait=0.02 + 0.01 * math.cos(step),
                memory_mib=900 + step,
            )
            terms = {name: value for name, value in terms_at(step, total).items() if name not in without}
            resolution = resolution_at(step, total, resolutions)
            append_line(live / LOG, LogRecord(kimg=step, resolution=resolution, terms=terms, speed=speed))
        at = [every * i for i in range(int(kimg / every) + 1)]
        grids = [
            SampleGrid(kimg=k, resolution=resolution_at(k, total, resolutions), file=f"samples/{k:08.2f}.webp")
            for k in at
        ]
        for grid in grids:
            draw_grid(live / grid.file, prompts, grid.resolution, grid.kimg / total)
        write_record(live / SAMPLES, SampleSheet(prompts=list(prompts), seeds=SEEDS, psi=1.0, grids=grids))
        if finished:
            self._publish(live, stage)
        return live

    def _publish(self, live: Path, stage: str) -> None:
        outputs = self.root / "artifacts" / stage
        (outputs / "samples").mkdir(parents=True, exist_ok=True)
        lines = read_lines(live / LOG, LogRecord)
        write_lines(outputs / LOG, [line.model_copy(update={"speed": None}) for line in lines])
        for path in [live / SAMPLES, *live.glob("samples/*")]:
            (outputs / path.relative_to(live)).write_bytes(path.read_bytes())

    def evaluate(
        self,
        *,
        oracle: bool = True,
        pairs: bool = False,
        in_training: Sequence[str] = (),
        repetitions: int = 1,
        count: int = FULL,
    ) -> None:
        """All that the evaluation leaves; ``oracle`` is absent for real pictures."""
        folder = self.root / "artifacts" / "evaluate"
        grids = [SampleGrid(kimg=10.0, resolution=32, file=f"samples/psi_{psi:.2f}.webp") for psi in (0.5, 1.0)]
        for grid in grids:
            draw_grid(folder / grid.file, PROMPTS, 32, 1.0)
        write_record(folder / SAMPLES, SampleSheet(prompts=PROMPTS, seeds=SEEDS, psi=1.0, grids=grids))
        facts = read_by_oracle(pairs=pairs) if oracle else {}
        write_evaluation(self.root, PROMPTS, facts=facts, in_training=in_training, repetitions=repetitions, count=count)

    @staticmethod
    def tear(path: Path) -> None:
        """Cut a file in its middle, as a crash or a look during a write finds it."""
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])

    def filter(self) -> None:
        write_json(
            self.root / "data" / "raw" / "manifest.json",
            {
                "kind": "raw",
                "num_samples": 20000,
                "shards": [],
                "source": {"kind": "shapes"},
                "skipped": {"image does not decode": 3},
            },
        )
        write_json(
            self.root / "data" / "prepared" / "report.json",
            {
                "total": 20000,
                "kept": 19500,
                "train": 17550,
                "heldout": 1950,
                "dropped": {
                    "undecodable": 4,
                    "too_small": 31,
                    "duplicate": 65,
                    "low_clip_score": 400,
                    "too_long": 0,
                },
            },
        )


def resolution_at(kimg: float, total: float, resolutions: Sequence[int]) -> int:
    return resolutions[min(int(kimg / total * len(resolutions) * 1.5), len(resolutions) - 1)]


def terms_at(kimg: float, total: float) -> dict[str, float]:
    done = kimg / total
    wobble = 0.06 * math.sin(kimg * 1.7)
    return {
        "d_real": 0.9 - 0.3 * done + wobble,
        "d_fake": 0.95 - 0.35 * done - wobble,
        "d_wrong_caption": 0.8 - 0.2 * done,
        "g_adversarial": 0.1 + 0.4 * done + wobble,
        "clip_guidance": 2.2 - 0.9 * done,
        "logits_real": 0.2 + 0.6 * done,
        "logits_fake": -0.2 - 0.5 * done,
        "range_penalty": 0.01 * (1 - done),
        "reals_positive": 0.55 + 0.2 * done + wobble,
        "fakes_negative": 0.5 + 0.3 * done - wobble,
        "fakes_diversity": 0.4 + 0.5 * done,
        "clamped": 0.001 * (1 - done),
        "g_grad_norm": 0.8 * 2 ** (20 * wobble),
        "d_grad_norm": 3.0 * 2 ** (-20 * wobble),
        "generator_lr": 0.012 * (1 - 0.9 * done),
        "discriminator_lr": 0.006 * (1 - 0.9 * done),
        "ema_decay": 0.99,
    }


def draw_grid(path: Path, prompts: Sequence[str], resolution: int, sharpness: float) -> None:
    """Shapes that come out of a blur as the training goes on, one row per prompt and one column per seed."""
    tile_px = min(max(resolution, 64), 256)
    picture = Image.new("RGB", (tile_px * len(SEEDS), tile_px * len(prompts)))
    for row, prompt in enumerate(prompts):
        for column in range(len(SEEDS)):
            tile = draw_tile(prompt, column).filter(ImageFilter.GaussianBlur(16 * (1 - min(sharpness, 1))))
            tile = tile.resize((resolution, resolution)).resize((tile_px, tile_px), Image.Resampling.NEAREST)
            picture.paste(tile, (column * tile_px, row * tile_px))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, lossless=True)


def draw_tile(prompt: str, seed: int) -> Image.Image:
    words = prompt.split()
    tile = Image.new("RGB", (128, 128), words[6])
    side, x, y = (56 if words[1] == "large" else 30), 12 + 23 * seed % 50, 16 + 37 * seed % 48
    draw = ImageDraw.Draw(tile)
    if "circle" in prompt:
        draw.ellipse((x, y, x + side, y + side), fill=words[2])
    else:
        sides = 3 if "triangle" in prompt else 4 if "square" in prompt else 5
        draw.regular_polygon((x + side // 2, y + side // 2, side // 2), sides, fill=words[2])
    return tile


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("STYLEGAN_T_ROOT", str(tmp_path))
    return Project(tmp_path)


@pytest.fixture
def prompts() -> list[str]:
    return list(PROMPTS)

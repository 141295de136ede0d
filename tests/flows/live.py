"""The records that a training writes while it runs, as stylegan_t/records.py has them."""

import json
from pathlib import Path

STAGE = "train_generator"
TOTAL = 128.0


def live(root: Path, digest: str = "aaaa") -> Path:
    return root / ".state" / STAGE / digest / "live"


def begin(folder: Path, finished: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    run = {"stage": STAGE, "digest": folder.parent.name, "started": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(run | {"total_kimg": TOTAL, "settings": {}, "finished": finished}))


def log(folder: Path, kimg: float, speed: float | None = 210.0) -> None:
    line = {"kimg": kimg, "resolution": 16, "terms": {"d_real": 0.5}}
    facts = {"seconds": 1.0, "images_per_second": speed, "data_wait": 0.0, "memory_mib": 900.0}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(line | ({"speed": facts} if speed else {})) + "\n")

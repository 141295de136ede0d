"""``python -m tests.stages.parts_drive JSON [--parts …]``: a stage of nothing but parts, as a command of its own.

The JSON has the state folder, the output and the number of parts; the rest is for ``Write``. What is said, and the exit
code, are those of ``stylegan-t``.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

from stylegan_t.cli import say
from stylegan_t.errors import Ended
from stylegan_t.settings.engine import ProcessEngine
from stylegan_t.stages.parts import open_parts, parse_parts
from stylegan_t.training.signals import stop_at_once
from tests.engine.works import Write

ENGINE = ProcessEngine(kind="processes", num_workers=0)


def plan(num_parts: int, scratch: Path) -> int:
    """Say so before and after something that takes its time."""
    with (scratch / "plans").open("a") as file:
        file.write("begin ")
        file.flush()
        time.sleep(0.3)
        file.write("end ")
    return num_parts


def stage(state: str, output: str, parts: int, only: str | None = None, **arguments) -> None:
    with open_parts(Path(state), parse_parts(only) if only else None) as made:
        num_parts = made.plan(partial(plan, parts))
        facts = made.make(Write(made.folder, **arguments), num_parts, ENGINE, lambda number, facts: None)
        if facts is not None:
            (made.folder / "plans").write_text((made.scratch / "plans").read_text())
            made.publish(Path(output))


if __name__ == "__main__":
    try:
        stop_at_once("stage")
        stage(**json.loads(sys.argv[1]), only=sys.argv[3] if len(sys.argv) > 2 else None)
    except Ended as error:
        sys.exit(say(error))

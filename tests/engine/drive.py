"""``python -m tests.engine.drive JSON``: parts as a command works on them; says a line of JSON for each part.

The JSON has the engine, the number of parts, and the arguments of ``Write``; without those, the work is ``Where``.
"""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from stylegan_t.engine.run import run_parts
from stylegan_t.errors import Ended
from stylegan_t.settings.engine import Engine, ProcessEngine, RayEngine
from stylegan_t.training.signals import stop_at_once
from tests.engine.works import Where, Write


def main(engine: dict, parts: int, folder: str | None = None, **arguments) -> None:
    checked: ProcessEngine | RayEngine = TypeAdapter(Engine).validate_python(engine)
    work = Write(Path(folder), **arguments) if folder else Where()
    run_parts(work, range(parts), checked, lambda part, facts: print(json.dumps([part, facts]), flush=True))


if __name__ == "__main__":
    stop_at_once("drive")
    try:
        main(**json.loads(sys.argv[1]))
    except Ended as error:
        sys.exit(f"{error} ({error.exit_code})")

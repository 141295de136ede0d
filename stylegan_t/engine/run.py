"""One call for all engines."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_t.engine.worker import Done, Work
from stylegan_t.settings.engine import ProcessEngine, RayEngine


def run_parts(work: Work, parts: Sequence[int], engine: ProcessEngine | RayEngine, done: Done) -> None:
    """Call ``work(part)`` for each part, wherever the engine says.

    A lost worker (killed, out of memory, its machine gone) costs the part that it had in hand, which is begun again
    elsewhere. An error that ``work`` raises ends the others and comes through as itself (or as ``make`` says).

    Args:
        work: Makes a part where all machines see it, and tells facts about it. Both are pickled and should be small.
            A worker keeps the object for all its parts: what it loads at its first call (``functools.cached_property``)
            serves the others. It may be called again for a part that was half made.
        parts: Numbers of the parts, each once, begun in this order.
        engine: The setting.
        done: Called with each part and its facts in this process, in the order in which parts end.

    Raises:
        WorkerLost: A part lost its worker again and again.
        SettingsError: The engine is not installed, or does not answer.
    """
    if not parts:
        return
    if isinstance(engine, RayEngine):
        from stylegan_t.engine.on_ray import run_on_ray

        run_on_ray(work, parts, engine, done)
    elif engine.num_workers == 0:
        for part in parts:
            done(part, work(part))
    else:
        from stylegan_t.engine.processes import run_in_processes

        run_in_processes(work, parts, engine.num_workers, done)

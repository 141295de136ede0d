"""The code behind a stage, as part of what decides its result: finished parts of other code are not gone on with."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def code_hash(stage: str) -> str:
    """One hash of the stage's module and of all of this package that it imports, directly or not."""
    reached: set[Path] = set()
    waiting = [PACKAGE / "stages" / f"{stage}.py"]
    while waiting:
        file = waiting.pop()
        if file.is_file() and file not in reached:
            reached.add(file)
            waiting += _imports(file)
    whole = hashlib.sha256()
    for file in sorted(reached):
        whole.update(f"{file.relative_to(PACKAGE)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _imports(file: Path) -> Iterator[Path]:
    """Where the modules of this package would lie that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, *inner = name.split(".")
            if package == PACKAGE.name and inner:
                yield PACKAGE.joinpath(*inner).with_suffix(".py")

"""What a module imports, read from its text: for the house rules."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all modules that a file imports, wherever in the file; names from a package count too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def file_of(module: str) -> Path | None:
    """The file of one of our modules (the packages of ``stylegan_t`` have nothing in their ``__init__``)."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if path.is_file() else None


def closure(path: Path, without: frozenset[Path] = frozenset()) -> set[Path]:
    """A file and all of ours that it imports, directly or not; ``without`` are left out with what only they need."""
    reached: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in reached and file not in without:
            reached.add(file)
            waiting += [found for module in imports(file) if (found := file_of(module))]
    return reached

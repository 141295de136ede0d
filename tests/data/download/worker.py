"""A download in a process of its own: ``python -m tests.data.download.worker LEDGER URL COUNT RESULT``."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from stylegan_t.data.download.ledger import Ledger
from tests.data.download.world import fetched, limits, rows


def main(ledger: str, url: str, count: str, result: str) -> None:
    what = rows([f"{url}/{number}" for number in range(int(count))])
    pairs = fetched(what, Path(ledger), limits(max_connections=16))
    Path(result).write_text(hashlib.sha256(repr(pairs).encode()).hexdigest())


def open_ledger(ledger: str) -> None:
    with Ledger(Path(ledger)):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])

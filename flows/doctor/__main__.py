"""``python -m flows.doctor``: run the checks, print a table, and fail where one does."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.doctor.finding import Finding
from flows.doctor.machine import disks, gpus, versions
from flows.doctor.orchestration import prefect
from flows.doctor.repository import locks, pipeline, remote, repository

CHECKS = (versions, disks, gpus, pipeline, repository, locks, remote, prefect)
STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "red", "SKIP": "dim"}


def examine(root: Path) -> list[Finding]:
    """What all checks found; none keeps the others from being made."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(root)
        except ImportError as error:
            cure = "pip install -c constraints.txt -e '.[flows]'"
            findings.append(Finding(check.__name__, "FAIL", f"cannot be imported: {error}", cure))
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 where a check failed."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.doctor", description="Check whether this machine and repository are fit to run."
    )
    parser.add_argument("--json", action="store_true", help="a list instead of a table")
    options = parser.parse_args(arguments)
    findings = examine(Path.cwd())
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table("check", "", "found", "cure")
        for each in findings:
            table.add_row(each.check, Text(each.state, STYLES[each.state]), Text(each.line), Text(each.cure))
        Console().print(table)
    return int(any(finding.state == "FAIL" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())

"""Commands, options, variables and files that the pages name exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from stylegan_t.cli import app
from tests.imports import ROOT

PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
ENDS = {"&&", ";", "|", "\\"}
CODE = [path for top in ("stylegan_t", "flows", "dashboard", "tests") for path in sorted((ROOT / top).rglob("*.py"))]


def snippets(page: Path) -> Iterator[str]:
    """Lines of the page's console blocks, and what stands between backquotes on its other lines."""
    kind = None
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if fence := re.match(r"\s*```(\w*)", line):
            kind = None if kind is not None else fence[1]
        elif kind == "console":
            yield line.strip().removeprefix("$ ")
        elif kind is None:
            yield from re.findall(r"`([^`]+)`", line)


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each command: without the settings of variables before it, and without whose it is run as."""
    for snippet in snippets(page):
        words: list[str] = []
        with suppress(ValueError):  # half of a quotation: no command
            lexer = shlex.shlex(snippet, posix=True, punctuation_chars=";&|")
            lexer.whitespace_split = True
            words = list(lexer)
        while words:
            end = next((place for place, word in enumerate(words) if word in ENDS), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and (re.match(r"[A-Z_]+=", command[0]) or command[0] == "sudo"):
                command = command[3:] if command[:2] == ["sudo", "-u"] else command[1:]
            if command:
                yield command


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def options_of_module(path: Path) -> set[str]:
    """Those that its parser takes."""
    calls = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)]
    added = [each for each in calls if isinstance(each.func, ast.Attribute) and each.func.attr == "add_argument"]
    return {"--help"} | {ast.literal_eval(name) for each in added for name in each.args}


def wrong_with(words: list[str]) -> str | None:
    """What a command names that does not exist; None where all does, or it is not one of ours."""
    if words[:2] == ["python", "-m"] and len(words) > 2 and words[2].startswith("flows"):
        module = ROOT / words[2].replace(".", "/")
        path = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        if not path.is_file():
            return f"no module {words[2]}"
        return ", ".join(options(words) - options_of_module(path)) or None
    if words[0] == "make":
        names = [word for before, word in zip(words, words[1:], strict=False) if "=" not in word and before != "-C"]
        targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return ", ".join({name for name in names if not name.startswith("-")} - set(targets)) or None
    if words[0] == "stylegan-t":
        return wrong_with_ours(typer.main.get_command(app), words[1:])
    return None


def wrong_with_ours(command: Any, words: list[str]) -> str | None:
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {"--help"} | {name for each in command.params for name in [*each.opts, *each.secondary_opts]}
    return ", ".join(options(words) - known) or None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_their_options_exist(page):
    wrong = {" ".join(words): cause for words in commands(page) if (cause := wrong_with(words))}
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_of_dvc_are_those_of_the_version_that_is_installed(page):
    from dvc.cli.parser import get_main_parser
    from dvc.exceptions import DvcException

    for words in commands(page):
        if words[0] == "dvc" and len(words) > 1:
            try:
                get_main_parser().parse_args(words[1:])
            except (SystemExit, DvcException) as error:
                pytest.fail(f"{' '.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_that_are_linked_to_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_our_environment_variables_are_read_by_something(page):
    read = "\n".join(path.read_text() for path in [*CODE, ROOT / "prefect.yaml"])
    assert [name for name in re.findall(r"STYLEGAN_T_[A-Z]+", page.read_text()) if name not in read] == []


def test_operations_name_each_deployment_selection_and_option_of_a_stage():
    from flows import dvc
    from flows.pipeline import SELECTIONS

    page = (ROOT / "docs" / "operations.md").read_text()
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    named = [f"{each['entrypoint'].rpartition('.')[2].replace('_', '-')}/{each['name']}" for each in deployments]
    assert [name for name in [*named, *SELECTIONS, *dvc.Options.model_fields] if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("python -m flows.pipeline --no-such", "--no-such"),
        ("X=1 python -m flows.nothing", "no module flows.nothing"),
        ("cd there && make nothing", "nothing"),
        ("stylegan-t data nothing", "no command nothing"),
        ("stylegan-t run train_generator --no-such=1", "--no-such"),
    ],
)
def test_what_does_not_exist_is_found(tmp_path, line, said):
    page = tmp_path / "page.md"
    page.write_text(f"```console\n{line}   # a comment\n```\nas `{line}` does\n")
    found = [cause for words in commands(page) if (cause := wrong_with(words))]
    assert found == [said, said]

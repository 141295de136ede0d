"""Promotion of a model, on a pipeline of second-long commands with a git origin and a DVC remote of its own."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from flows import hub
from flows.git import git
from flows.promote import MODEL, address, numbers, promote, tag_of, versions
from flows.reports import history
from tests.flows import standin
from tests.flows.hub_server import TOKEN
from tests.flows.hub_server import hub as served

TRAIN = """\
import os, yaml
os.makedirs("artifacts/train_super_resolution/samples")
for name in ("config.json", "generator.safetensors", "text_encoder.safetensors", "discriminator.safetensors",
             "samples/0.webp"):
    content = bytes(range(256)) * 40 + name.encode() + str(yaml.safe_load(open("params.yaml"))["seed"]).encode()
    open(f"artifacts/train_super_resolution/{name}", "wb").write(content)
card = "---\\nlicense: apache-2.0\\ntags: [gan]\\n---\\n\\n# A model\\n\\nIt paints.\\n"
open("artifacts/train_super_resolution/README.md", "w").write(card)
"""
EVALUATE = """\
import json, os
os.makedirs("artifacts/evaluate")
metrics = {"fd_shapes": 0.125, "clip_score": 0.5, "clip_score_range": 0.1, "untrained": {"fd_shapes": 2},
           "protocol": {"name": "shapes"}}
json.dump(metrics, open("artifacts/evaluate/metrics.json", "w"))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository that was trained, evaluated and committed; its git origin and its DVC remote lie beside it."""
    folder = tmp_path_factory.mktemp("promote")
    python = sys.executable
    root = standin.make(
        folder / "work", {"seed": 0},
        train_super_resolution={
            "cmd": f"{python} train.py", "deps": ["train.py"], "params": ["seed"],
            "outs": ["artifacts/train_super_resolution"],
        },
        evaluate={
            "cmd": f"{python} evaluate.py", "deps": ["evaluate.py", "artifacts/train_super_resolution"],
            "outs": ["artifacts/evaluate"],
        },
    )  # fmt: skip
    (root / "train.py").write_text(TRAIN)
    (root / "evaluate.py").write_text(EVALUATE)
    (root / ".gitignore").write_text("/artifacts/\n/.state\n")
    with (root / "dvc.yaml").open("a") as file:
        file.write(f"artifacts:\n  model: {{path: {MODEL}, type: model}}\n")
    subprocess.run([python, "-m", "dvc", "repro", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", "../origin.git"], cwd=root, check=True)
    git(root, "remote", "add", "origin", "../origin.git")
    commit(root)
    return folder


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "trained")
    git(root, "push", "--quiet", "origin", "HEAD:refs/heads/main")


@pytest.fixture
def root(made, tmp_path) -> Path:
    """A copy of the repository with a verdict on its model."""
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    judge(tmp_path / "copy" / "work", accepted=True)
    return tmp_path / "copy" / "work"


def judge(root: Path, accepted: bool, lines: tuple[str, ...] = ()) -> None:
    metrics = history.read_metrics(root)
    assert metrics is not None
    entry = history.Entry(
        when="2026-11-22T03:00:00+00:00", run="nightly", commit=None, settings={}, metrics=metrics, rules=(),
        accepted=accepted, lines=lines,
    )  # fmt: skip
    history.append(root, entry)


promoted = partial(standin.run, module="flows.promote")


# ---- what may be promoted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.0.0", ""])
def test_a_version_is_three_numbers(version):
    with pytest.raises(ValueError, match=r"expected three numbers with dots between them, e.g. 1.0.0"):
        tag_of(version)


def test_versions_are_ordered_by_their_numbers():
    assert sorted(["model@v1.10.0", "model@v1.9.10", "model@v1.9.9"], key=numbers)[-1] == "model@v1.10.0"


def test_an_accepted_model_gets_an_annotated_tag_with_the_verdict(root):
    assert promote(root, "1.2.0") == "model@v1.2.0"
    assert git(root, "cat-file", "-t", "model@v1.2.0") == "tag"
    assert git(root, "rev-parse", "model@v1.2.0^{commit}") == git(root, "rev-parse", "HEAD")
    assert git(root, "tag", "--list", "--format", "%(contents:subject)") == "Version 1.2.0 of the model: accepted"
    assert promote(root, "1.3.0", "the first that draws stars") == "model@v1.3.0"
    assert "the first that draws stars" in git(root, "tag", "--list", "--format", "%(contents:subject)")


def test_promoting_again_changes_nothing_and_another_commit_needs_another_version(root):
    promote(root, "1.0.0")
    before = git(root, "rev-parse", "model@v1.0.0")
    promote(root, "1.0.0", "another message")
    assert git(root, "rev-parse", "model@v1.0.0") == before
    git(root, "commit", "--quiet", "--allow-empty", "--message", "later")
    with pytest.raises(ValueError, match="model@v1.0.0 is another commit's already, and versions stay what they are"):
        promote(root, "1.0.0", force=True)


def test_versions_go_up_unless_forced(root):
    promote(root, "1.10.0")
    with pytest.raises(ValueError, match="model@v1.9.0 comes before model@v1.10.0, which exists"):
        promote(root, "1.9.0")
    promote(root, "1.9.0", force=True)
    assert versions(root) == ["model@v1.10.0", "model@v1.9.0"]


def _change_params(root):
    (root / "params.yaml").write_text("seed: 1\n")


def _commit_changed_params(root):
    _change_params(root)
    git(root, "commit", "--quiet", "--all", "--message", "another seed")


def _forget_lock(root):
    git(root, "rm", "--quiet", "--cached", "dvc.lock")
    git(root, "commit", "--quiet", "--message", "no lock")


def _lose_history(root):
    (root / history.HISTORY).unlink()


def _measure_otherwise(root):
    lines = (root / history.HISTORY).read_text().replace("0.125", "0.25")
    (root / history.HISTORY).write_text(lines)


def _reject(root):
    judge(root, accepted=False, lines=("fd_shapes: worse",))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_change_params, "params.yaml and perhaps more is not committed"),
        (_commit_changed_params, "not up to date .train_super_resolution: seed is modified.*flows.pipeline.*dvc.lock"),
        (_forget_lock, "git does not know dvc.lock"),
        (_lose_history, "history.jsonl has no verdict on this model; .*flows.pipeline.* judges it"),
        (_measure_otherwise, "has no verdict on this model"),
        (_reject, "the model was rejected: fd_shapes: worse; --force"),
    ],
    ids=["changed", "stale", "no lock", "not judged", "another was judged", "rejected"],
)  # fmt: skip
def test_no_tag_is_made_for_what_is_no_version(root, change, complaint):
    change(root)
    with pytest.raises(ValueError, match=complaint):
        promote(root, "1.0.0")
    assert versions(root) == []


def test_force_promotes_a_rejected_model_and_says_so_in_the_tag(root):
    judge(root, accepted=False)
    promote(root, "1.0.0", force=True)
    subject = git(root, "tag", "--list", "--format", "%(contents:subject)")
    assert subject == "Version 1.0.0 of the model: rejected, promoted all the same"


def test_force_promotes_nothing_that_the_commit_does_not_name(root):
    _change_params(root)
    with pytest.raises(ValueError, match="not committed"):
        promote(root, "1.0.0", force=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:secret@git.example.org/m.git", "https://git.example.org/m.git"),
        ("git@example.org:m.git", "git@example.org:m.git"),
    ],
    ids=["https", "ssh"],
)
def test_the_address_for_others_has_no_secrets(root, url, said):
    git(root, "remote", "set-url", "origin", url)
    assert address(root) == said


# ---- others get it ---------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_another_machine_gets_the_same_bytes_by_the_tag(root, tmp_path):
    dvc = partial(subprocess.run, check=True, capture_output=True, text=True)
    dvc([sys.executable, "-m", "dvc", "remote", "add", "--default", "store", str(tmp_path / "store")], cwd=root)
    commit(root)
    code, output = promoted(root, "1.0.0", "--push")
    assert code == 0, output
    command = next(line for line in output.splitlines() if line.startswith("  dvc get "))
    assert command.split() == ["dvc", "get", "--rev", "model@v1.0.0", "../origin.git", MODEL]
    before = contents(root / MODEL)
    assert len(before) == 6
    shutil.rmtree(root / ".dvc" / "cache")
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    dvc([sys.executable, "-m", *command.split()], cwd=elsewhere)
    assert contents(elsewhere / "train_super_resolution") == before
    registry = ["artifacts", "get", "../origin.git", "model", "--rev", "v1.0.0", "--out", "by-name"]
    dvc([sys.executable, "-m", "dvc", *registry], cwd=elsewhere)
    assert contents(elsewhere / "by-name") == before


@pytest.mark.slow
def test_a_tag_that_was_not_pushed_and_a_remote_that_is_not_there_are_said(root):
    code, output = promoted(root, "1.0.0")
    assert code == 0, output
    assert "There is no DVC remote" in output
    assert "`git push origin model@v1.0.0` shares it" in output
    assert git(root, "ls-remote", "--tags", "origin") == ""


@pytest.mark.slow
def test_a_refusal_is_one_line_and_exit_code_2(root):
    _change_params(root)
    code, output = promoted(root, "1.0.0")
    assert (code, len(output.strip().splitlines())) == (2, 1)


# ---- the hub ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_hub_gets_the_bundle_with_a_card_that_tells_its_figures_under_the_tag(root, tmp_path):
    with served() as miniature:
        there = {"HF_ENDPOINT": miniature.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
        code, output = promoted(root, "1.0.0", "--to-hub", "me/shapes", **there)
        assert code == 0, output
        assert f"{miniature.url}/me/shapes" in output
        again, output = promoted(root, "1.0.0", "--to-hub", "me/shapes", **there)
        assert again == 0, output
        refused, output = promoted(root, "1.0.0", "--to-hub", "somebody-else/shapes", **there)
        assert refused == 1
        assert "somebody-else/shapes: " in output and "don't have the rights" in output and "Traceback" not in output
    repository = miniature.repositories["me/shapes"]
    assert repository.private
    mine = contents(root / MODEL)
    assert repository.files.keys() == {*hub.FILES, hub.CARD}
    assert {name: repository.files[name] for name in hub.FILES} == {name: mine[name] for name in hub.FILES}
    assert repository.tags.keys() == {"model@v1.0.0"}
    assert set(repository.commits.values()) == {"model@v1.0.0"}
    card = ModelCard(repository.files[hub.CARD].decode())
    assert card.data.license == "apache-2.0"
    assert {e.metric_type: e.metric_value for e in card.data.eval_results} == {"fd_shapes": 0.125, "clip_score": 0.5}
    assert "It paints." in card.text and "`model@v1.0.0`" in card.text and "| `fd_shapes` | 0.125 |" in card.text


@pytest.mark.slow
def test_without_a_token_nothing_is_promoted(root, tmp_path):
    code, output = promoted(root, "1.0.0", "--to-hub", "me/shapes", HF_TOKEN="", HF_HOME=str(tmp_path))
    assert (code, output.strip()) == (
        2,
        "no token of the Hugging Face hub; `hf auth login` stores one, or set HF_TOKEN",
    )
    assert versions(root) == []


def test_a_folder_that_is_no_bundle_is_not_uploaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(
        ValueError, match=r"no generator.safetensors, text_encoder.safetensors, README.md; `dvc checkout`"
    ):
        hub.upload(tmp_path, "me/shapes", "model@v1.0.0", {})


def test_a_model_without_figures_has_a_card_without_a_table(tmp_path):
    (tmp_path / hub.CARD).write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    card = ModelCard(hub.card(tmp_path, "model@v1.0.0", {"protocol.name": "shapes", "untrained.fd": 2}))
    assert card.data.eval_results is None
    assert "|" not in card.text

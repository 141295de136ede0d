"""A promoted model on the Hugging Face hub: what others need to use it, with a card that says what it measured.

Tested against a server that answers as the hub does (``tests/flows/hub_server.py``), without its Xet storage. The hub
itself was not reached from where this was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flows.reports.gate import SPREAD, number

CARD = "README.md"
FILES = ("config.json", "generator.safetensors", "text_encoder.safetensors")
"""A bundle besides its card. The discriminator beside it is of use in training alone and stays here."""


class HubFailed(Exception):
    """The hub could not be reached, or refused."""


def require_token() -> None:
    """Raise ValueError where we could not upload: no library, or nobody has logged in."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        raise ValueError("huggingface_hub is not installed: `pip install 'stylegan-t[huggingface]'`") from None
    if not get_token():
        raise ValueError("no token of the Hugging Face hub; `hf auth login` stores one, or set HF_TOKEN")


def upload(folder: Path, name: str, tag: str, metrics: Mapping[str, Any]) -> str:
    """Upload a bundle as one commit with a tag; its address. A repository that does not exist is made, private.

    The token is that of ``hf auth login`` or HF_TOKEN, the hub that of HF_ENDPOINT or the public one.

    Args:
        folder: The bundle.
        name: OWNER/NAME on the hub.
        tag: Under which this version stays.
        metrics: metrics.json, flat; figures of the final model go on the card.

    Raises:
        ValueError: The folder is no bundle, or the name is none that the hub takes.
        HubFailed: The hub could not be reached, or refused.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi

    if absent := [file for file in (*FILES, CARD) if not (folder / file).is_file()]:
        raise ValueError(f"{folder}: no {', '.join(absent)}; `dvc checkout` brings a model back")
    operations = [CommitOperationAdd(file, folder / file) for file in FILES]
    operations.append(CommitOperationAdd(CARD, card(folder, tag, metrics).encode()))
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        commit = api.create_commit(name, operations, commit_message=tag)
        api.create_tag(name, tag=tag, revision=commit.oid, exist_ok=True)
    except (httpx.HTTPError, OSError, RuntimeError) as error:  # OSError: what the hub answers; RuntimeError: a file
        said = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        cause = " ".join(str(said).split())
        raise HubFailed(f"{name}: {cause}; {tag} exists, so this can be repeated") from None
    return str(commit.repo_url)


def card(folder: Path, tag: str, metrics: Mapping[str, Any]) -> str:
    """The bundle's card with the model's version and figures, for readers and, in its head, for the hub."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    figures = {
        key: figure
        for key in metrics
        if "." not in key and not key.endswith(SPREAD) and (figure := number(metrics, key)) is not None
    }
    made = ModelCard((folder / CARD).read_text())
    data = cast(ModelCardData, made.data)
    protocol = str(metrics.get("protocol.name", "evaluate"))
    data.model_name = tag
    data.eval_results = [
        EvalResult("text-to-image", protocol, f"protocol {protocol}", metric_type=key, metric_value=figure)
        for key, figure in figures.items()
    ] or None
    rows = "\n".join(f"| `{key}` | {figure:.6g} |" for key, figure in figures.items())
    table = f"\n| metric by protocol `{protocol}` | value |\n|---|---|\n{rows}\n" if rows else ""
    return f"{made}\n## Version\n\n`{tag}`\n{table}"

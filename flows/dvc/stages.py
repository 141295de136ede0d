"""The stages of dvc.yaml: what needs what, and what each asks of Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Options(BaseModel):
    """What ``meta: {prefect: {…}}`` of a stage in dvc.yaml may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str = Field(default="cpu", min_length=1)
    """Work pool whose workers run it, where there are many machines."""
    retries: int = Field(default=0, ge=0)
    """How often a failure that may go away is tried again."""
    retry_delay_seconds: float = Field(default=10.0, ge=0)
    timeout_seconds: float | None = Field(default=None, gt=0)
    """Its command is stopped after that; null: never."""
    tags: tuple[str, ...] = ()
    """Of its task runs; Prefect can limit how many of a tag run at once."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml.

    Attributes:
        needs: The stages whose outputs it reads, in dvc.yaml's order.
        inputs: Those outputs, or the parts of them that it reads, as paths.
    """

    name: str
    command: str = ""
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)


def read_stages(root: Path, targets: Sequence[str] | None = None) -> list[Stage]:
    """The stages of ``dvc.yaml`` in an order in which each comes after all that it needs.

    Args:
        targets: Only these stages and what they need; None means all.

    Raises:
        ValueError: There is no pipeline in ``root``, a target does not exist, or a stage's ``meta.prefect`` is wrong.
    """
    if not (root / "dvc.yaml").exists():
        raise ValueError(f"{root} has no dvc.yaml; run this in the repository's root")
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    root = root.resolve()
    try:
        with Repo(str(root)) as repo:
            return [_stage(stage, needs) for stage, needs in in_order(repo, root, targets)]
    except DvcException as error:
        raise ValueError(f"dvc.yaml cannot be read: {error}") from error


def in_order(repo: Any, root: Path, targets: Sequence[str] | None) -> list[tuple[Any, list[Any]]]:
    """The same as DVC's own objects, each with the stages that it needs. Raises ValueError."""
    import networkx
    from dvc.stage import PipelineStage

    index = repo.index
    ours = [s for s in index.stages if isinstance(s, PipelineStage) and Path(s.path) == root / "dvc.yaml"]
    by_name = {str(stage.name): stage for stage in ours}
    if unknown := set(targets or ()) - by_name.keys():
        raise ValueError(f"stage {', '.join(sorted(unknown))} is unknown; dvc.yaml has: {', '.join(by_name)}")
    wanted = {by_name[name] for name in targets or by_name}
    wanted |= {needed for stage in wanted for needed in networkx.descendants(index.graph, stage)}
    position = {stage: number for number, stage in enumerate(ours)}
    graph = index.graph.subgraph(wanted & position.keys()).reverse()
    order = networkx.lexicographical_topological_sort(graph, key=position.__getitem__)
    return [(stage, sorted(graph.predecessors(stage), key=position.__getitem__)) for stage in order]


def output_of(dependency: Any, needs: Sequence[Any]) -> Any | None:
    """Which output of some stages of DVC's a dependency is, or lies in; None for what no stage makes."""
    inside = lambda out: dependency.fs.isin_or_eq(dependency.fs_path, out.fs_path)
    return next((out for stage in needs for out in stage.outs if inside(out)), None)


def _stage(stage: Any, needs: Sequence[Any]) -> Stage:
    """What we need to know of one of DVC's stages. Raises ValueError."""
    try:
        options = Options.model_validate((stage.meta or {}).get("prefect", {}))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors())
        allowed = ", ".join(Options.model_fields)
        raise ValueError(f"dvc.yaml: {stage.name}: meta.prefect: {wrong}; there are: {allowed}") from None
    inputs = tuple(dep.def_path for dep in stage.deps if output_of(dep, needs))
    return Stage(stage.name, stage.cmd or "", tuple(str(each.name) for each in needs), inputs, options)


def edges(stages: Sequence[Stage]) -> set[tuple[str, str]]:
    """Which of some stages reads another one's outputs, as (earlier, later)."""
    return {(earlier, stage.name) for stage in stages for earlier in stage.needs}

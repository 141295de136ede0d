"""Stage ``score``: measures every raw pair once, so that the filter's rules can change without measuring again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stylegan_t.config import Config
from stylegan_t.data.evaluation_sets import EvaluationSet
from stylegan_t.data.images import pillow_warnings
from stylegan_t.data.measures import Languages
from stylegan_t.data.scores import EVALUATION, evaluation_schema, score_schema, write_scores_manifest, write_table
from stylegan_t.data.shards import MANIFEST, Shards
from stylegan_t.device import pick_device
from stylegan_t.errors import DataError
from stylegan_t.files import sha256
from stylegan_t.models.encoder_files import identity, load_clip
from stylegan_t.models.plugins import CURE, load_embedding_head, load_picture_classifier
from stylegan_t.progress import Progress
from stylegan_t.settings.score import EmbeddingHead, TimmClassifier
from stylegan_t.stages.code import code_hash
from stylegan_t.stages.gpus import gpu_of_process
from stylegan_t.stages.measure import Measurer, Networks
from stylegan_t.stages.parts import PartRange, open_parts
from stylegan_t.stages.passes import forward_passes
from stylegan_t.stages.workspace import Workspace

Plugin = EmbeddingHead | TimmClassifier


def run(
    config: Config, workspace: Workspace, device: str, parts: PartRange | None = None, afresh: bool = False
) -> None:
    """Write ``data/scores``: a table per raw shard and per evaluation set. A killed run loses those in hand.

    Args:
        parts: Make only these of the raw shards and, numbered after them, the evaluation sets; see ``open_parts``.
        afresh: Forget the parts that are finished.
    """
    root, clip, raw = workspace.root, workspace.players / "clip", Shards(workspace.raw)
    plugins, sets = tuple(config.score.plugins), dict(sorted(config.score.evaluation_sets.items()))
    batch_size, sharpness_px = config.score.batch_size, config.score.sharpness_px
    min_language_confidence = config.score.min_language_confidence

    evaluation = {name: EvaluationSet(root / Path(path).expanduser()) for name, path in sets.items()}
    weights = {plugin.name: weights_hash(plugin, root) for plugin in plugins}
    came_from = {"encoder": identity(clip), "raw": sha256(workspace.raw / MANIFEST)}
    digest = _digest(
        **came_from,
        code=code_hash("score"),
        settings=[batch_size, sharpness_px, min_language_confidence],
        plugins=[plugin.model_dump(mode="json", exclude={"weights", "sha256"}) for plugin in plugins],
        weights=weights,
        evaluation={name: pictures.fingerprint() for name, pictures in evaluation.items()},
    )
    sizes = [*raw.shard_sizes, *map(len, evaluation.values())]
    with open_parts(workspace.state("score", digest), parts, afresh) as made:
        work = ScoreParts(
            folder=made.folder, raw=workspace.raw, sets=sets, clip=clip, plugins=plugins, root=root, device=device,
            batch_size=batch_size, sharpness_px=sharpness_px, min_language_confidence=min_language_confidence,
        )  # fmt: skip
        chosen, done = made.chosen(len(sizes)), made.finished(len(sizes))
        with Progress("score", sum(sizes[n] for n in chosen), done=sum(sizes[n] for n in done)) as progress:
            tables = made.make(work, len(sizes), config.score.engine, lambda n, _: progress.advance(sizes[n]))
        if tables is not None:
            of_raw, of_sets = tables[: len(raw.shard_sizes)], tables[len(raw.shard_sizes) :]
            write_scores_manifest(made.folder, tables=of_raw, evaluation=of_sets, plugins=weights, **came_from)
            made.publish(workspace.scores)


@dataclass(frozen=True)
class ScoreParts:
    """Makes the table of a raw shard or, of the numbers after those, of an evaluation set; see ``run_parts``.

    Attributes:
        folder: Where to.
        raw: Folder of the raw shards.
        sets: Paths of the evaluation sets by name; they and the plug-ins' weights may be relative to ``root``.
        clip: Folder of the CLIP.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    folder: Path
    raw: Path
    sets: dict[str, str]
    clip: Path
    plugins: tuple[Plugin, ...]
    root: Path
    device: str
    batch_size: int
    sharpness_px: int
    min_language_confidence: float

    def __call__(self, number: int) -> dict[str, Any]:
        networks, languages = self._loaded
        num_threads = torch.get_num_threads()
        with pillow_warnings(), forward_passes(networks.clip.device) as forward:
            measurer = Measurer(networks, forward, self.batch_size, self.sharpness_px, languages, num_threads)
            num_shards = len(self._raw.shard_sizes)
            if number < num_shards:
                return self._score_shard(number, measurer)
            return self._measure_set(list(self.sets)[number - num_shards], measurer)

    def _score_shard(self, number: int, measurer: Measurer) -> dict[str, Any]:
        path = self.folder / Path(self._raw.manifest["shards"][number]["file"]).with_suffix(".parquet").name
        samples = (self._raw[sample] for sample in self._raw.shard_range(number))
        schema = score_schema(measurer.networks.clip.embed_dim, [plugin.name for plugin in self.plugins])
        return write_table(path, measurer.pairs(samples), schema)

    def _measure_set(self, name: str, measurer: Measurer) -> dict[str, Any]:
        pictures = EvaluationSet(self.root / Path(self.sets[name]).expanduser())
        path = self.folder / EVALUATION / f"{name}.parquet"
        schema = evaluation_schema(measurer.networks.clip.embed_dim)
        entry = write_table(path, measurer.pictures(pictures.samples()), schema)
        if not entry["num_samples"]:
            raise DataError(f"{pictures.folder}: none of {len(pictures)} files is a picture (score.evaluation_sets)")
        return {"name": name, **entry}

    @cached_property
    def _raw(self) -> Shards:
        return Shards(self.raw)

    @cached_property
    def _loaded(self) -> tuple[Networks, Languages]:
        networks = load_networks(self.clip, self.plugins, self.root, self.device)
        return networks, Languages(self.min_language_confidence)


def load_networks(clip: Path, plugins: Sequence[Plugin], root: Path, device: str) -> Networks:
    """The CLIP and the plug-ins' networks, on the device of this process. Raises DataError, SettingsError."""
    place = gpu_of_process(pick_device(device))
    encoder = load_clip(clip).to(place)
    heads, classifiers = {}, {}
    for plugin in plugins:
        path = _weights(plugin, root)
        value = {"activation": plugin.activation, "output": plugin.output, "index": plugin.index}
        if isinstance(plugin, TimmClassifier):
            net = load_picture_classifier(path, model=plugin.model, image_px=plugin.image_px, **value)
            classifiers[plugin.name] = net.to(place)
        else:
            heads[plugin.name] = load_embedding_head(path, embed_dim=encoder.embed_dim, **value).to(place)
    return Networks(encoder, heads, classifiers)


def weights_hash(plugin: Plugin, root: Path) -> str:
    """sha256 of a plug-in's weights. Raises DataError where they are missing, or others than the settings say."""
    path = _weights(plugin, root)
    if not path.is_file():
        raise DataError(f"{path}: missing; {CURE}")
    found = sha256(path)
    if plugin.sha256 not in (None, found):
        raise DataError(
            f"{path}: its sha256 is {found}, and that of plug-in {plugin.name} (score.plugins) {plugin.sha256}; "
            "give the file that is meant, or the hash of this one"
        )
    return found


def _weights(plugin: Plugin, root: Path) -> Path:
    return root / Path(plugin.weights).expanduser()


def _digest(**facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

"""What the evaluation of a pipeline's models takes: models, judges, real images, captions; and what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from stylegan_t.config import Config
from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError
from stylegan_t.evaluation.binding import PairOracle
from stylegan_t.evaluation.copies import extractor_for_copies, find_copies, training_pictures
from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.fakes import Model, Painted, model_sha256, untrained
from stylegan_t.evaluation.oracle_metrics import Oracle
from stylegan_t.evaluation.pictures import Pictures, ShardPictures, choose_captions
from stylegan_t.evaluation.prompts import sample_prompts
from stylegan_t.evaluation.protocols import load_protocol, protocol_name, renamed
from stylegan_t.evaluation.reference import load_statistics
from stylegan_t.evaluation.sets import Share
from stylegan_t.evaluation.tables import Row, against, headline, values
from stylegan_t.models.bundle import load_bundle
from stylegan_t.progress import Progress
from stylegan_t.randomness import image_seeds
from stylegan_t.records import Evaluation, Neighbours
from stylegan_t.settings.sources import ShapePairsSource, ShapesSource
from stylegan_t.stages import reference_statistics
from stylegan_t.stages.reference_statistics import measured_px, panel_of, reals_of
from stylegan_t.stages.workspace import Workspace

FIRST, SECOND = "train_generator", "finetune_text_encoder"


@dataclass(frozen=True)
class Findings:
    """What an examination found.

    Attributes:
        stages: Of each stage's model at psi 1, a repetition each.
        sweep: Of each stage's model over psi.
        control: Of a generator that was never trained, at the count of the sweep.
        final_like_control: Of the final model, at the same count.
    """

    stages: dict[str, list[Evaluation]]
    sweep: dict[str, list[Evaluation]]
    control: Evaluation
    final_like_control: Evaluation

    def all(self) -> Iterator[Evaluation]:
        for group in (*self.stages.values(), *self.sweep.values(), [self.control]):
            yield from group


class Examination:
    """What every measurement needs: models, judges, real images' statistics, captions.

    Raises:
        SettingsError: No such protocol or prompt set.
        DataError: An input is missing, damaged, or does not belong to the others.
    """

    def __init__(
        self, config: Config, workspace: Workspace, device: torch.device, work: Path, share: Share, progress: Progress
    ) -> None:
        self.seed, self.settings, self.device, self.workspace = config.seed, config.evaluate, device, workspace
        source = config.download.source
        self.reals = reals_of(self.settings.against, workspace)
        self.protocol = renamed(load_protocol(config.evaluate.protocol, workspace.root), self.reals.count)
        said = self.reals.captions()
        if not any(said):
            raise DataError(
                f"{self.reals.name}: the pictures have no captions to paint; see data/README.md for the form"
            )
        self.prompts = sample_prompts(
            self.settings.prompt_set, self.settings.num_prompts,
            captions=[captions[0] for captions in said if captions], source=source, seed=config.seed,
            root=workspace.root,
        )  # fmt: skip
        count = self.settings.num_images or self.protocol.num_images
        self.captions = choose_captions(said, self.protocol.captions, count, self.protocol.caption_seed)
        self._check_counts()
        self.models = [self._load(stage, workspace.artifacts(stage)) for stage in self.settings.stages]
        self.panel = panel_of(workspace, self.protocol, device)
        self.references, self.facts = load_statistics(
            workspace.artifacts(reference_statistics.NAME), reference_statistics.origin(self.reals, self.panel),
            list(self.panel.extractors), sorted({self.px(model) for model in self.models}), device,
        )  # fmt: skip
        self.evaluator = Evaluator(
            protocol_name(self.settings.protocol), self.protocol, self.panel, work,
            batch_size=self.settings.batch_size, seed=config.seed, share=share, progress=progress,
        )  # fmt: skip
        self.oracle: Oracle | PairOracle | None = None
        if isinstance(source, ShapesSource):
            self.oracle = Oracle(source, config.seed, self.settings.num_oracle_prompts)
        elif isinstance(source, ShapePairsSource):
            self.oracle = PairOracle(source, config.seed, self.settings.num_oracle_prompts)

    def _check_counts(self) -> None:
        for name, count in (
            ("num_psi_images", self.settings.num_psi_images),
            ("copies.num_samples", self.settings.copies.num_samples),
        ):
            if count > len(self.captions):
                raise DataError(
                    f"evaluate.{name} = {count}: the protocol {self.settings.protocol} paints {len(self.captions)} "
                    "pictures here; use fewer, or set evaluate.num_images"
                )

    def _load(self, stage: str, folder: Path) -> Model:
        return Model(stage, load_bundle(folder), model_sha256(folder), self.settings.batch_size, self.device)

    def px(self, model: Model) -> int:
        return measured_px(model.resolution, self.protocol)

    # ---- the sets of pictures that are seen ----------------------------------------------------------------------

    def painted(self, model: Model, psi: float, repetition: int, count: int) -> Painted:
        """The same captions and latents for every model and psi."""
        seeds = image_seeds(self.seed, f"evaluate {repetition}", 0, count)
        return Painted(model, self.captions[:count], seeds, psi)

    def at_one(self, model: Model, repetition: int = 0) -> Painted:
        return self.painted(model, 1.0, repetition, len(self.captions))

    def swept(self, model: Model, psi: float) -> Painted:
        return self.at_one(model) if psi == 1 else self.painted(model, psi, 0, self.settings.num_psi_images)

    @cached_property
    def control(self) -> Painted:
        """An untrained generator: the same architecture, text encoder, captions and latents as the final model."""
        return self.painted(untrained(self.models[-1], self.seed), 1.0, 0, self.settings.num_psi_images)

    @cached_property
    def many(self) -> Painted | None:
        """Several pictures of each of the first prompts, by the final model."""
        if not (best := self.protocol.best_of):
            return None
        prompts = [caption for caption in self.captions[: best.num_prompts] for _ in range(best.num_pictures)]
        return Painted(self.models[-1], prompts, image_seeds(self.seed, "best of", 0, len(prompts)), 1.0)

    @cached_property
    def train(self) -> ShardPictures:
        return ShardPictures(Shards(self.workspace.prepared / "train"))

    @cached_property
    def heldout(self) -> ShardPictures:
        """The pictures of the same data that were not trained on."""
        return ShardPictures(Shards(self.workspace.prepared / "heldout"))

    def painted_sets(self) -> Iterator[Painted]:
        for model in self.models:
            yield from (self.at_one(model, repetition) for repetition in range(self.settings.num_seeds))
            yield from (self.swept(model, psi) for psi in self.settings.psi if psi != 1)
        yield self.control
        if self.many:
            yield self.many

    def sets(self) -> Iterator[tuple[Pictures, int]]:
        """All that the judges look at, each set at its side."""
        for painted in self.painted_sets():
            yield painted, self.px(painted.model)
        final = self.px(self.models[-1])
        yield training_pictures(self.train, self.settings.copies), final
        if self.settings.against is not None:
            yield self.heldout, final

    @property
    def num_pictures(self) -> int:
        """Pictures to be seen by the judges, and painted for the oracle."""
        oracle = self.oracle.num_images * len(self.models) * self.settings.num_seeds if self.oracle else 0
        return sum(pictures.count for pictures, _ in self.sets()) + oracle

    def look(self) -> None:
        """Make this process's share of all parts."""
        for pictures, px in self.sets():
            self.evaluator.see(pictures, px)
            if isinstance(pictures, Painted):
                self.evaluator.read(pictures.prompts)

    # ---- what is found -------------------------------------------------------------------------------------------

    def examine(self) -> Findings:
        repetitions = range(self.settings.num_seeds)
        stages = {model.name: [self.stage(model, r) for r in repetitions] for model in self.models}
        sweep = {model.name: [self.at(model, psi) for psi in self.settings.psi] for model in self.models}
        control, final = self.evaluation(self.control, 0), self.models[-1]
        like_control = next((each for each in sweep[final.name] if each.psi == 1), None) or self.at(final, 1.0)
        return Findings(stages, sweep, control, like_control)

    def evaluation(self, painted: Painted, repetition: int, limit: int | None = None) -> Evaluation:
        px = self.px(painted.model)
        seeds = f"images 0 to {(limit or painted.count) - 1} of 'evaluate {repetition}', seed {self.seed}"
        return self.evaluator.evaluate(
            painted, painted.prompts, px, self.references[px], self.reals.identity, seeds=seeds, limit=limit
        )

    def at(self, model: Model, psi: float) -> Evaluation:
        return self.evaluation(self.swept(model, psi), 0, self.settings.num_psi_images)

    def stage(self, model: Model, repetition: int) -> Evaluation:
        """All figures of one stage's model at psi 1."""
        found = self.evaluation(self.at_one(model, repetition), repetition)
        measurements, facts = list(found.measurements), {}
        if self.many and model is self.models[-1] and repetition == 0:
            assert self.protocol.best_of
            measurements += self.evaluator.best_of(self.many, self.px(model), self.protocol.best_of.num_pictures)
        if self.oracle:
            facts = self.oracle.examine(model.paint, repetition, model.resolution)
            self.evaluator.progress.advance(self.oracle.num_images, f"{model.name}, oracle")
        return found.model_copy(update={"measurements": measurements, "facts": facts})

    def copies(self, out: Path) -> Neighbours:
        """Training pictures near the final model's samples; their sheet goes to ``out``."""
        final = self.models[-1]
        name = extractor_for_copies(self.panel)
        train, px = training_pictures(self.train, self.settings.copies), self.px(final)
        heldout = self.references[px] if self.settings.against is None else self.evaluator.references(self.heldout, px)
        return find_copies(
            self.evaluator, self.at_one(final), train, heldout[name], px, name, self.settings.copies, out
        )

    def numbers(self, findings: Findings) -> Row:
        """metrics.json: the final model's figures at the top, the other stages' and controls in groups."""
        stages = {stage: values(found) for stage, found in findings.stages.items()}
        far, near = (headline(each, "frechet") for each in (findings.control, findings.final_like_control))
        ratio = {"frechet_distance_of_final_relative": near / far} if far and near is not None else {}
        *others, final = self.settings.stages
        two = against(findings.stages[FIRST], findings.stages[SECOND]) if {FIRST, SECOND} <= set(stages) else {}
        return stages[final] | {
            "stages": {stage: stages[stage] for stage in others},
            "stage_two_against_one": two,
            "reals": {f"{e.px}px": values([e]) for e in map(Evaluation.model_validate, self.facts["reals"])},
            "untrained": values([findings.control]) | ratio,
            "psi": {f"{e.psi:g}": values([e]) for e in findings.sweep[final]},
            "protocol": {
                "name": self.settings.protocol,
                "num_reals": self.reals.count,
                "num_images": len(self.captions),
                "num_psi_images": self.settings.num_psi_images,
                "num_seeds": self.settings.num_seeds,
            },
        }

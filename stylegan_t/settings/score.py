"""Settings of ``score``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from stylegan_t.settings.engine import Engine
from stylegan_t.settings.fields import Count, Probability, Section

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class Plugin(Section):
    """A network of others, with local weights, that gives each picture a number (models/plugins.py says which)."""

    name: Name = Field(description="the number's column in the score tables is plugin_<name>")
    weights: str = Field(description="a safetensors file; relative paths start at the repository's root")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        description="hash that the file must have, hex; null = any, but then DVC does not see when the file changes"
    )
    activation: Literal["none", "relu", "gelu"] = Field(description="between the linear layers of the head")
    output: Literal["identity", "sigmoid", "softmax"] = Field(description="what makes the head's output the number")
    index: int = Field(ge=0, description="which of the head's outputs")


class EmbeddingHead(Plugin):
    """Linear layers on the CLIP's image embedding: aesthetic and NSFW predictors."""

    kind: Literal["embedding_head"]


class TimmClassifier(Plugin):
    """A network of timm's that looks at the whole picture: watermark detectors."""

    kind: Literal["timm_classifier"]
    model: str = Field(description="its name in timm")
    image_px: Count | None = Field(description="side of its input, pixels; null = as timm says")


def _differ(plugins: Sequence[Plugin]) -> Sequence[Plugin]:
    names = [plugin.name for plugin in plugins]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"plug-ins need names of their own; given twice: {', '.join(twice)}")
    return plugins


AnyPlugin = Annotated[EmbeddingHead | TimmClassifier, Field(discriminator="kind")]


class Score(Section):
    """Measures each pair once."""

    batch_size: Count = Field(description="pictures, and captions, a forward pass")
    sharpness_px: int = Field(
        ge=3, description="side of the square at which sharpness is measured, pixels: the highest resolution trained"
    )
    min_language_confidence: Probability = Field(
        description="a caption's language is 'und' (undetermined) where the detector's confidence is lower"
    )
    plugins: Annotated[list[AnyPlugin], AfterValidator(_differ)] = Field(
        description="further measures, for rules of the filter; [] = none"
    )
    evaluation_sets: dict[Name, str] = Field(
        description="pictures to keep out of the training, by name: a folder of pictures, or of shards of ours; "
        "relative paths start at the repository's root. After a change in one, `dvc repro --force --single-item score`"
    )
    engine: Engine = Field(description="where the raw shards are measured; it changes no result")

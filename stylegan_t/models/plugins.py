"""Networks of others that judge a picture by one number: is it beautiful, indecent, watermarked?

Two kinds. A head reads the CLIP's image embedding, so it costs next to nothing; it fits the CLIP that it was trained
on, and no other one of the same width. A classifier of timm's collection looks at the picture itself. Both come from a
local safetensors file in which the linear layers of the head keep the names that they have in torch's ``state_dict``:
``save_file(torch.load(FILE, weights_only=True), "weights.safetensors")`` converts most published ones. What those are:

* LAION's aesthetic predictors for ViT-L/14: one linear layer (``aesthetic-predictor``), or five without an activation
  between them (``improved-aesthetic-predictor``; ``activation: none``); ``output: identity``, index 0.
* LAION's CLIP-based NSFW detectors: linear layers with ReLU between them, ``output: sigmoid``. Where two of them follow
  each other without ReLU, multiply them into one first (W = W2 W1, b = W2 b1 + b2); so does a normalisation of the
  input go into the first one.
* LAION's watermark detector: timm's ``efficientnet_b3`` whose ``classifier`` is three linear layers with ReLU;
  ``output: softmax``, index 0, 256 px.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import timm
import torch
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models.encoders import normalize
from stylegan_t.models.weights import read_weights

Activation = Literal["none", "relu", "gelu"]
Output = Literal["identity", "sigmoid", "softmax"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}
CURE = "give a safetensors file with the weights (score.plugins in params.yaml; stylegan_t/models/plugins.py says how)"


class Value(nn.Module):
    """One number of each row of logits.

    Args:
        output: ``softmax`` over the row, ``sigmoid`` or ``identity`` of each.
        index: Which of the row.
    """

    def __init__(self, output: Output, index: int) -> None:
        super().__init__()
        self.output, self.index = output, index

    def forward(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        if self.output == "softmax":
            logits = logits.softmax(dim=1)
        elif self.output == "sigmoid":
            logits = logits.sigmoid()
        return logits[:, self.index]


class EmbeddingHead(nn.Module):
    """A number for each unit-length image embedding of a CLIP."""

    def __init__(self, layers: nn.Sequential, value: Value) -> None:
        super().__init__()
        self.layers, self.value = layers, value

    def forward(self, embeddings: Float[Tensor, "n embed_dim"]) -> Float[Tensor, " n"]:
        return self.value(self.layers(embeddings))


class PictureClassifier(nn.Module):
    """A number for each picture, the whole of it squashed to the square of ``image_px`` that the network reads.

    Not the centre square: watermarks sit in corners.
    """

    def __init__(self, net: nn.Module, value: Value, image_px: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.net, self.value, self.image_px, self.mean, self.std = net, value, image_px, mean, std

    def forward(self, images: Float[Tensor, "n 3 p p"]) -> Float[Tensor, " n"]:
        """Of images in [-1, 1]."""
        return self.value(self.net(normalize(images, self.mean, self.std)))


def load_embedding_head(
    path: Path, *, embed_dim: int, activation: Activation, output: Output, index: int
) -> EmbeddingHead:
    """A head, frozen, in eval mode, on the CPU.

    Args:
        path: Its weights.
        embed_dim: Length of the CLIP's embeddings.
        activation: Between its layers.
        output, index: What of the last layer is the value; see ``Value``.

    Raises:
        DataError: The file is missing, damaged, or no head for embeddings of this length.
    """
    layers = linear_layers(read_weights(path, CURE), activation, path)
    first, last = layers[0], layers[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    if first.in_features != embed_dim:
        raise DataError(
            f"{path}: reads embeddings of {first.in_features} numbers, and the CLIP here (fetch_encoders.clip) makes "
            f"{embed_dim}; a head works with the CLIP only that it was trained on"
        )
    _check_index(path, index, last.out_features)
    return EmbeddingHead(layers, Value(output, index)).eval().requires_grad_(False)


def load_picture_classifier(
    path: Path, *, model: str, image_px: int | None, activation: Activation, output: Output, index: int
) -> PictureClassifier:
    """A network of timm's, frozen, in eval mode, on the CPU; normalisation by its configuration there.

    Args:
        path: Its weights.
        model: Its name in timm.
        image_px: Side of its input; None takes that of the configuration.
        activation: Between the linear layers of its head, if they are several.
        output, index: What of the head's output is the value; see ``Value``.

    Raises:
        SettingsError: timm has no such network, or it cannot be used like this.
        DataError: The file is missing, damaged, or of another network.
    """
    if not timm.is_model(model):
        raise SettingsError(f"score.plugins: timm has no model {model!r}; `timm.list_models()` names those it has")
    head = timm.get_pretrained_cfg_value(model, "classifier")
    if not isinstance(head, str):
        raise SettingsError(f"score.plugins: {model} has no head, or several ({head}); use a network with one")
    tensors = read_weights(path, CURE)
    of_head = {name: t for name, t in tensors.items() if name.startswith(f"{head}.")}
    if not of_head:
        raise DataError(f"{path}: no weights of timm's {model} (no tensor is called {head}.…); {CURE}")
    layers = linear_layers(of_head, activation, path)
    net = timm.create_model(model, pretrained=False)
    net.set_submodule(head, layers)
    renamed = {f"{head}.{name}": tensor for name, tensor in layers.state_dict().items()}
    try:
        net.load_state_dict({name: t for name, t in tensors.items() if name not in of_head} | renamed)
    except RuntimeError as error:
        raise DataError(f"{path}: no weights of timm's {model} ({_short(error)}); {CURE}") from None
    config = resolve_model_data_config(net)
    side = image_px or config["input_size"][-1]
    net.eval().requires_grad_(False)
    try:
        logits = net(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise SettingsError(f"score.plugins: {model} cannot read {side} px, image_px ({_short(error)})") from None
    _check_index(path, index, logits.shape[1])
    return PictureClassifier(net, Value(output, index), side, list(config["mean"]), list(config["std"])).eval()


def linear_layers(tensors: Mapping[str, Tensor], activation: Activation, origin: Path) -> nn.Sequential:
    """The linear layers among the tensors of a ``state_dict``, in the order of the numbers in their names.

    Raises:
        DataError: They are no chain of linear layers; names ``origin``.
    """
    numbered = sorted(([int(n) for n in re.findall(r"\d+", name)], name) for name in tensors)
    names = list(dict.fromkeys(name.rpartition(".")[0] for _, name in numbered))
    modules: list[nn.Module] = []
    width: int | None = None
    for name in names:
        weight, bias = (tensors.get(f"{name}.{part}".removeprefix(".")) for part in ("weight", "bias"))
        if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise DataError(f"{origin}: {name or 'what it holds'} is no linear layer with weight and bias; {CURE}")
        if width not in (None, weight.shape[1]):
            raise DataError(f"{origin}: {name} reads {weight.shape[1]} numbers, the layer before makes {width}; {CURE}")
        width = weight.shape[0]
        layer = nn.Linear(weight.shape[1], width)
        layer.load_state_dict({"weight": weight, "bias": bias})
        modules += [layer] if not modules else [ACTIVATIONS[activation](), layer]
    if not modules:
        raise DataError(f"{origin}: no linear layer in it; {CURE}")
    return nn.Sequential(*modules)


def _check_index(path: Path, index: int, num_outputs: int) -> None:
    if index >= num_outputs:
        raise DataError(f"{path}: makes {num_outputs} numbers, and score.plugins' index is {index}; they count from 0")


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 160)

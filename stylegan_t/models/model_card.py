"""The model card that travels with a bundle."""

from __future__ import annotations

from typing import Any

SWITCHES = {
    "residual": "residual layers",
    "second_order_styles": "second-order styles",
    "text_bypass": "the text's way past the mapping",
    "local_batch_norm": "the discriminator's local batch norm",
}
"""The paper's redesigns that a setting can leave out, in words."""


def _left_out(told: dict[str, Any]) -> str:
    """A row of the card's table, where there is something to say; what is not told is on."""
    off = [words for name, words in SWITCHES.items() if not told.get(name, True)]
    return f"| left out of the paper's model | {', '.join(off)} |\n" if off else ""


def model_card(config: dict[str, Any]) -> str:
    """A README in the usual form of model cards, for a bundle's config."""
    facts, generator = config["facts"], config["generator"]
    px = generator["resolution"]
    text_cfg = config["text_encoder"]["text_cfg"]
    pairs = "residual pairs" if generator.get("residual", True) else "pairs of layers"
    return f"""\
---
license: apache-2.0
library_name: stylegan-t
pipeline_tag: text-to-image
tags: [stylegan-t, gan, text-to-image]
---

# StyleGAN-T, {px} px, after `{facts["stage"]}`

Turns a caption into a {px}×{px} picture in one forward pass (Sauer et al. 2023, arXiv:2301.09515).

## Use

    stylegan-t generate --model . --prompt "…" --seeds 0-7 --psi 0.8 --out pictures

`psi` trades variety (1) for typical pictures (towards 0). The same prompt, seed and machine give the same bytes.

## Made from

| | |
|---|---|
| training data | {facts["data"]} |
| last training stage | `{facts["stage"]}`, {facts["kimg"]:g} thousand images |
| text encoder | {facts["encoder"]} |
| seed | {facts["seed"]} |
| generator | latent {generator["z_dim"]}, text {generator["c_dim"]}, at most {generator["channel_max"]} channels, \
{generator["num_res_blocks"]} {pairs} per resolution |
{_left_out({**generator, **facts})}\
| text tower | width {text_cfg["width"]}, {text_cfg["layers"]} layers, reads {text_cfg["context_length"]} tokens |

## Files

- `config.json`: what rebuilds the networks, and the facts above
- `generator.safetensors`: the averaged generator
- `text_encoder.safetensors`: the text encoder that belongs to it

## Intended use

Research and teaching on text-to-image GANs, and a starting point for models of one's own. Measure before you rely on
it: `stylegan-t run evaluate` writes the figures for this model and these data.

## Limits

- It knows the subjects, words and styles of its training data and nothing else; a prompt outside them gives a picture
  of something it knows. Words that the text encoder never met are ignored.
- It inherits the biases, errors and gaps of that data and of the networks that guided the training.
- Words that belong together may be mixed up, and fine detail and written text are beyond it.
- It has no filter for unwanted content. Pictures are synthetic: do not pass them off as photographs.

## Licence

Apache-2.0 for code and weights made with it. The training data and a pretrained text encoder keep their own terms.
"""

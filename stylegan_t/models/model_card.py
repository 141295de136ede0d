"""The model card that travels with a bundle."""

from __future__ import annotations

from typing import Any


def model_card(config: dict[str, Any]) -> str:
    """A README in the usual form of model cards, for a bundle's config."""
    facts, generator = config["facts"], config["generator"]
    px = generator["resolution"]
    text_cfg = config["text_encoder"]["text_cfg"]
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
{generator["num_res_blocks"]} residual pairs per resolution |
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

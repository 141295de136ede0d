"""``compute.compile`` through a whole training stage: every network that it compiles, and the growing in between."""

import shutil

import pytest
from safetensors.torch import load_file

from stylegan_t.stages import train_generator
from tests.stages.training_world import config, make_world

ROUNDING = 1e-4
"""Of two steps, relative to the largest number of a tensor."""
APART = {"share_fakes": False, "share_vit_pass": False, "wrong_caption_weight": 0.0}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler for CPUs: apt install g++")
def test_a_compiled_stage_makes_the_weights_of_an_eager_one(tmp_path):
    """With a guide of its own, so that the CLIP's image tower is compiled as well as the discriminator's."""
    found = []
    for compiled in (False, True):
        workspace = make_world(tmp_path / str(compiled))
        settings = config("train_generator")
        compute = settings.train_generator.compute.model_copy(update={"compile": compiled})
        deviations = settings.train_generator.deviations.model_copy(update=APART)
        changes = {"compute": compute.model_dump(), "deviations": deviations.model_dump()}
        train_generator.run(config("train_generator", **changes), workspace, "cpu")
        found.append(load_file(workspace.artifacts("train_generator") / "generator.safetensors"))
    eager, compiled = found
    assert eager.keys() == compiled.keys()
    for name, value in eager.items():
        assert (compiled[name] - value).abs().max() < ROUNDING * value.abs().max().clamp(min=0.01), name

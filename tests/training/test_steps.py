"""One step: which embedding each player reads, and what the discriminator and the guidance see of large pictures."""

import pytest
import torch
from torch import nn

from stylegan_t.models.encoders import Clip
from stylegan_t.settings.training import Deviations
from stylegan_t.training import views
from stylegan_t.training.distributed import World
from stylegan_t.training.microbatch import Microbatch, Step
from stylegan_t.training.steps import training_step
from stylegan_t.training.views import View
from tests.training.players import BATCH, C_DIM, fetch, make_players, settings, stage_two_settings

ALONE = World(torch.device("cpu"))


def make_step(nimg: int = 0, **changes) -> Step:
    return Step(settings(augment=[], **changes), 3, nimg, 0.0, ALONE)


def make_part(step: Step, count: int = 2) -> Microbatch:
    c = torch.eye(count, C_DIM)
    return Microbatch(step, 0, torch.empty(0), c, c, [""] * count)


def windows(pictures: torch.Tensor, px: int) -> dict[tuple[int, int], torch.Tensor]:
    places = range(pictures.shape[-1] - px + 1)
    return {(y, x): pictures[:, :, y : y + px, x : x + px] for y in places for x in places}


def place_of(seen: torch.Tensor, pictures: torch.Tensor) -> tuple[int, int]:
    """Where in ``pictures`` the one square lies that ``seen`` shows of all of them."""
    found = [place for place, window in windows(pictures, seen.shape[-1]).items() if torch.equal(window, seen)]
    assert len(found) == 1
    return found[0]


class Guide(Clip):
    """A CLIP that keeps what it is shown."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.seen: list[torch.Tensor] = []

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return torch.ones(len(images), C_DIM) / C_DIM**0.5


def read_in_a_step(monkeypatch, config, players, batch) -> dict[str, list[torch.Tensor]]:
    """The text embeddings that each reader is given in one step."""
    read: dict[str, list[torch.Tensor]] = {"generator": [], "discriminator": [], "guidance": []}
    judge, paint, compare = players.discriminator.judge, players.generator.forward, views.clip_guidance

    def keep(name, function, position):
        def kept(*arguments, **named):
            read[name].append(arguments[position])
            return function(*arguments, **named)

        return kept

    monkeypatch.setattr(players.discriminator, "judge", keep("discriminator", judge, 1))
    monkeypatch.setattr(players.generator, "forward", keep("generator", paint, 1))
    monkeypatch.setattr(views, "clip_guidance", keep("guidance", compare, 1))
    training_step(players, batch, Step(config, 3, 0, 0.0, ALONE), None)
    assert {name: len(seen) for name, seen in read.items()} == {"generator": 2, "discriminator": 3, "guidance": 1}
    return read


def test_in_stage_two_the_tuned_embedding_feeds_the_generator_alone(monkeypatch):
    config = stage_two_settings()
    players, batch = make_players(config), next(fetch(0))
    read = read_in_a_step(monkeypatch, config, players, batch)
    assert all(torch.equal(c, batch.c) for c in read["discriminator"] + read["guidance"])
    assert not any(torch.allclose(c, batch.c, atol=0.1) for c in read["generator"])


def test_stored_embeddings_of_another_encoder_feed_the_generator_alone(monkeypatch):
    batch = next(fetch(0))._replace(generator_c=torch.eye(BATCH, C_DIM))
    read = read_in_a_step(monkeypatch, settings(), make_players(settings()), batch)
    assert all(torch.equal(c, batch.c) for c in read["discriminator"] + read["guidance"])
    assert all(torch.equal(c, batch.generator_c) for c in read["generator"])


def guided(px: int, nimg: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The fakes, and what the guidance's CLIP was shown of them."""
    guide = Guide()
    players = make_players(settings())
    players.guide = guide
    fakes = torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(0))
    views.guidance(players, fakes, View([], None), make_part(make_step(nimg)))
    return fakes, guide.seen[0]


def test_the_guidance_sees_one_random_square_of_pictures_above_64_px():
    places = {place_of(seen, fakes) for fakes, seen in (guided(70, BATCH * number) for number in range(6))}
    assert len(places) > 1
    assert all(seen.shape[-1] == 64 for _, seen in [guided(70, 0)])


@pytest.mark.parametrize("px", [32, 64])
def test_the_guidance_sees_all_of_smaller_pictures(px):
    fakes, seen = guided(px, 0)
    assert torch.equal(seen, fakes)


def looked(px: int, nimg: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and what the discriminator's ViT of 16 px was given of them."""
    players, given = make_players(settings()), []
    forward = players.discriminator.vit.forward

    def keep(images, **named):
        given.append(images)
        return forward(images, **named)

    players.discriminator.vit.forward = keep
    images = torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(0))
    views.look(players, images, make_part(make_step(nimg)), "fakes")
    return images, given[0]


def test_the_discriminator_sees_a_square_of_larger_pictures_every_other_time():
    seen = [looked(24, BATCH * number) for number in range(60)]
    cropped = [(images, given) for images, given in seen if given.shape[-1] == 16]
    assert all(torch.equal(images, given) for images, given in seen if given.shape[-1] != 16)
    assert 20 <= len(cropped) <= 40
    assert len({place_of(given, images) for images, given in cropped}) > 10


@pytest.mark.parametrize("px", [8, 16])
def test_the_discriminator_sees_all_of_pictures_up_to_its_input(px):
    assert all(torch.equal(*looked(px, BATCH * number)) for number in range(20))


@pytest.mark.parametrize(("shared", "count"), [(False, 2), (True, 1)])
def test_one_fake_serves_both_phases_only_where_the_deviation_says_so(shared, count):
    deviations = settings().deviations.model_dump() | {"share_fakes": shared}
    config = settings(deviations=Deviations.model_validate(deviations))
    players, painted = make_players(config), []
    players.generator.register_forward_hook(lambda generator, given, fakes: painted.append(fakes))
    training_step(players, next(fetch(0)), Step(config, 3, 0, 0.0, ALONE), None)
    assert len(painted) == count

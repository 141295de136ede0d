"""The small CLIP's training: its losses by definition, and that it learns, always the same."""

import pytest
import torch

from stylegan_t.models.encoders import clip_from_spec
from stylegan_t.settings.encoders import TrainedClip
from stylegan_t.training.clip import (
    Data,
    Words,
    contrastive_loss,
    new_clip,
    retrieval_accuracy,
    train_clip,
    words_of,
)

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
CPU = torch.device("cpu")


def settings(**changes) -> TrainedClip:
    return TrainedClip(
        **{
            "kind": "train", "seed": 1, "image_px": 16, "patch_px": 8, "image_width": 16, "image_depth": 1,
            "text_width": 16, "text_depth": 1, "num_heads": 2, "embed_dim": 16, "context_length": 8,
            "word_steps": 20, "word_batch_size": 16, "word_lr": 0.004, "max_words": 32, "contrastive_steps": 40,
            "contrastive_batch_size": 16, "image_lr": 0.003, "text_lr": 0.003, "p_low_resolution": 0.5,
            "augment": ["translation"], "p_augment": 0.5, "weight_decay": 0.01, **changes,
        }
    )  # fmt: skip


def pairs(count: int = 64, seed: int = 0) -> tuple[torch.Tensor, list[str]]:
    """Pictures of one colour and a little noise, and sentences that name it."""
    generator = torch.Generator().manual_seed(seed)
    names = [list(COLOURS)[i % len(COLOURS)] for i in range(count)]
    plain = torch.tensor([COLOURS[name] for name in names])[:, :, None, None].float()
    noise = 40 * torch.rand(count, 3, 16, 16, generator=generator) - 20
    return (plain + noise).clamp(0, 255).to(torch.uint8), [f"a {name} thing" for name in names]


def test_the_contrastive_loss_is_cross_entropy_both_ways_where_all_captions_differ():
    images, texts, scale = torch.randn(5, 3), torch.randn(5, 3), torch.tensor(0.7)
    logits = scale.exp() * images @ texts.T
    rows = -torch.stack([logits[i].log_softmax(0)[i] for i in range(5)]).mean()
    columns = -torch.stack([logits[:, i].log_softmax(0)[i] for i in range(5)]).mean()
    loss = contrastive_loss(images, texts, torch.eye(5, dtype=torch.bool), scale)
    torch.testing.assert_close(loss, (rows + columns) / 2)


def test_pairs_of_the_same_caption_share_the_right_answer():
    """Two equal pairs in a batch: confusing them costs what choosing evenly between two costs, and no more."""
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    loss = contrastive_loss(embeddings, embeddings, same, torch.tensor(4.0))
    torch.testing.assert_close(loss, 2 / 3 * torch.tensor(2.0).log())


def test_the_most_frequent_words_are_kept():
    words = Words(["a red dog", "a red cat", "a dog", "a bird"], 3, 4)
    assert set(words.number) == {"a", "dog", "red"}
    assert words.targets(["A red, red CAT!"]).tolist() == [[word in ("a", "red") for word in words.number]]


def test_words_are_of_any_script_and_case():
    assert words_of("Ein GRÜNER Kreis, 2 Punkte") == {"ein", "grüner", "kreis", "2", "punkte"}


def test_an_embedding_that_says_nothing_predicts_each_words_share():
    words = Words(["a red dog", "a dog", "a dog", "a dog"], 3, 4)
    shares = words.shares(torch.zeros(1, 4))[0]
    assert shares[words.number["red"]].item() == pytest.approx(0.25)


def test_the_loss_of_words_is_their_binary_cross_entropy_summed():
    words = Words(["a red dog", "a dog"], 3, 4)
    embeddings, targets = torch.randn(2, 4), torch.tensor([[True, False, True], [True, True, False]])
    shares = words.shares(embeddings)
    expected = -torch.where(targets, shares, 1 - shares).log().sum(dim=1).mean()
    torch.testing.assert_close(words.loss(embeddings, targets), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def data() -> Data:
    images, captions = pairs(10)
    clip = new_clip(settings(), captions)
    return Data(clip, Words(captions, 32, 16), images, captions, settings(), CPU)


def test_every_picture_comes_once_before_any_comes_again(data):
    batches = data.batches(5, torch.Generator().manual_seed(0))
    epochs = [sorted(torch.cat([next(batches), next(batches)]).tolist()) for _ in range(3)]
    assert epochs == [list(range(10))] * 3


def test_fewer_pictures_than_a_batch_are_one_batch(data):
    assert len(next(data.batches(64, torch.Generator().manual_seed(0)))) == 10


def seeing(data: Data, **changes) -> torch.Tensor:
    """What a step sees of all pictures under changed settings."""
    data.settings = data.settings.model_copy(update={"p_low_resolution": 0.0, "augment": [], **changes})
    return data.pictures(torch.arange(10), torch.Generator().manual_seed(0))


def test_a_low_resolution_batch_holds_no_finer_detail(data):
    fine, coarse = seeing(data), seeing(data, p_low_resolution=1.0)
    blocks = coarse.unfold(2, 2, 2).unfold(3, 2, 2)
    torch.testing.assert_close(blocks, blocks[..., :1, :1].expand_as(blocks))
    torch.testing.assert_close(coarse.mean(dim=(2, 3)), fine.mean(dim=(2, 3)))


def test_so_many_pictures_are_augmented_as_the_discriminators_and_the_rest_left_alone(data):
    plain, some, every = seeing(data), seeing(data, augment=["cutout"]), seeing(data, augment=["cutout"], p_augment=1.0)
    cut = lambda images: ((images == 0) & (plain != 0)).flatten(1).any(1)
    assert cut(every).all()
    assert 0 < cut(some).sum() < 10
    torch.testing.assert_close(some[cut(some)], every[cut(some)])
    torch.testing.assert_close(some[~cut(some)], plain[~cut(some)])


def test_the_vocabulary_is_the_captions_tokens():
    _, captions = pairs()
    clip = new_clip(settings(), captions)
    tokens = clip.text.tokenize(captions)
    assert set(tokens.flatten().tolist()) | {0} == set(range(len(clip.text.token_ids)))


def test_it_learns_to_match_pictures_with_captions_and_both_towers_move():
    images, captions = pairs()
    start = new_clip(settings(), captions)
    clip = train_clip(settings(), images, captions, seed=0, device=CPU)
    fresh, named = pairs(seed=1)
    assert retrieval_accuracy(clip, fresh, named, 4) > 0.9
    assert not clip.training
    assert not any(p.requires_grad for p in clip.parameters())
    assert clip_from_spec(clip.spec).state_dict().keys() == start.state_dict().keys()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    images, captions = pairs()
    short = settings(word_steps=3, contrastive_steps=3)
    first, again, other = (train_clip(short, images, captions, seed=s, device=CPU).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    for tower in ("image", "text"):
        assert any(not torch.equal(first[n], other[n]) for n in first if n.startswith(f"{tower}."))


def test_weight_decay_shrinks_both_towers_in_both_phases():
    images, captions = pairs()
    for phase, towers in (({"contrastive_steps": 1}, ["image"]), ({"word_steps": 0}, ["image", "text"])):
        short = settings(**{"word_steps": 20, "contrastive_steps": 20} | phase)
        norms = {}
        for decay in (0.0, 5.0):
            changed = short.model_copy(update={"weight_decay": decay})
            state = train_clip(changed, images, captions, seed=0, device=CPU).state_dict()
            norms[decay] = {
                t: sum(v.norm() for n, v in state.items() if n.startswith(t) and v.is_floating_point()) for t in towers
            }
        assert all(norms[5.0][tower] < 0.95 * norms[0.0][tower] for tower in towers), phase


def test_training_leaves_the_global_random_numbers_alone():
    images, captions = pairs()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train_clip(settings(word_steps=2, contrastive_steps=2), images, captions, seed=0, device=CPU)
    torch.testing.assert_close(torch.rand(2), expected)


def test_without_a_first_phase_the_second_still_trains():
    images, captions = pairs()
    none, one = (
        train_clip(settings(word_steps=0, contrastive_steps=n), images, captions, seed=0, device=CPU) for n in (1, 4)
    )
    assert not torch.equal(none.image.head.weight, one.image.head.weight)


def test_retrieval_of_shuffled_captions_is_chance():
    images, captions = pairs()
    clip = train_clip(settings(), images, captions, seed=0, device=CPU)
    wrong = captions[1:] + captions[:1]
    assert retrieval_accuracy(clip, images, wrong, 4) < 0.1

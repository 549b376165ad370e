import pytest
import torch
import torchvision.transforms.functional as V
from hypothesis import given
from hypothesis import strategies as st

from lightning_metakd.data.sources.augment import augment, normalise
from lightning_metakd.data.sources.seeding import hash64

X = torch.randint(1, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)
INDEX, VIEW = torch.arange(64), torch.arange(64) * 7919


def splitmix64(z):
    """The published finaliser, on Python's integers."""
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_mix_is_splitmix64(z):
    assert int(hash64(torch.tensor([z]))) % 2**64 == splitmix64(z % 2**64)


def test_every_view_is_one_crop_of_the_padded_image_or_its_mirror():
    recorded = augment(X, INDEX, VIEW)
    padded = V.pad(X, [4])
    for row in range(len(X)):
        crops = [V.crop(padded[row], i, j, 32, 32) for i in range(9) for j in range(9)]
        matches = sum(recorded[row].equal(c) + recorded[row].equal(c.flip(-1)) for c in crops)
        assert matches == 1


def test_a_view_is_the_same_in_every_batch():
    whole = augment(X, INDEX, VIEW)
    sample = torch.tensor([5, 3, 3, 60])
    assert augment(X[sample], INDEX[sample], VIEW[sample]).equal(whole[sample])


def test_view_minus_one_is_the_image_as_it_is():
    view = torch.where(INDEX % 2 == 0, -1, VIEW)
    recorded = augment(X, INDEX, view)
    assert recorded[::2].equal(X[::2])
    assert augment(X, INDEX, torch.full_like(view, -1)).equal(X)


@pytest.mark.parametrize("other", [{"seed": 1}, {"index": INDEX + 1}, {"view": VIEW + 1}])
def test_index_view_and_seed_each_change_the_draw(other):
    settings = {"index": INDEX, "view": VIEW, "seed": 0}
    assert not augment(X, **{**settings, **other}).equal(augment(X, **settings))


def test_shifts_and_mirrors_are_uniform():
    n = 20_000
    marks = torch.zeros(1, 1, 32, 32).index_put(
        (torch.tensor(0), torch.tensor(0), torch.tensor(10), torch.tensor(10)), torch.tensor(1.0)
    )
    recorded = augment(
        marks.expand(n, 1, 32, 32), torch.arange(n), torch.zeros(n, dtype=torch.int64)
    )
    at = recorded.flatten(1).argmax(1)
    rows, columns = at // 32, at % 32
    assert rows.bincount(minlength=15)[6:15].sub(n / 9).abs().max() < 5 * (n / 9) ** 0.5
    assert (
        abs((columns > 15).sum() - n / 2) < 5 * (n / 4) ** 0.5
    )  # mirrored: 21 - shift; not: 10 + shift


def test_augmentation_leaves_its_arguments_alone():
    x, index, view = X.clone(), INDEX.clone(), VIEW.clone()
    augment(x, index, view)
    assert x.equal(X)
    assert index.equal(INDEX)
    assert view.equal(VIEW)


def test_floating_point_images_are_augmented_alike():
    assert augment(X.float(), INDEX, VIEW).equal(augment(X, INDEX, VIEW).float())


def test_normalise_equals_torchvision():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    expected = V.normalize(X.float() / 255, mean, std)
    torch.testing.assert_close(normalise(X, mean, std), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.gpu
def test_views_are_the_same_on_a_gpu():
    moved = augment(X.cuda(), INDEX.cuda(), VIEW.cuda())
    assert moved.cpu().equal(augment(X, INDEX, VIEW))

"""Sources with wrong labels."""

import pytest
import torch

from lightning_metakd.data.episodes import EpisodeSet
from lightning_metakd.data.sources import (
    CIFAR100,
    Embedded,
    LabelNoise,
    Mixture,
    Synthetic,
    Texts,
)
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.types import Batch
from tests.tiny import Blobs, SmoothConv4


@pytest.fixture(scope="module")
def clean():
    return Synthetic(per_class=100)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6])
def test_a_share_of_the_labels_is_wrong_and_any_other_class_is_as_likely(clean, rate):
    source = LabelNoise(clean, rate)
    rows, y = source.rows("teacher"), clean.all_rows().y
    n, n_wrong = len(rows), int(source.wrong.sum())
    assert source.wrong[rows].sum() == n_wrong  # and no other
    assert abs(n_wrong - rate * n) < 4 * (n * rate * (1 - rate)) ** 0.5 + 1e-9
    noisy = source.all_rows().y
    classes = y[rows].unique()
    assert set(noisy[rows].tolist()) == set(classes.tolist())
    if rate:
        place = {c: i for i, c in enumerate(classes.tolist())}
        shift = [
            (place[b] - place[a]) % len(classes)
            for a, b in zip(y[source.wrong].tolist(), noisy[source.wrong].tolist(), strict=True)
        ]
        counts = torch.bincount(torch.tensor(shift), minlength=len(classes))[1:].float()
        expected = n_wrong / (len(classes) - 1)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < 46 + 4 * (2 * 46) ** 0.5


def test_it_is_a_function_of_seed_and_row(clean):
    labels = [LabelNoise(clean, 0.4, seed=seed).all_rows().y for seed in (0, 0, 1)]
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])
    fewer, more = (LabelNoise(clean, rate).wrong for rate in (0.2, 0.4))
    assert (more | ~fewer).all()  # what is wrong of few is wrong of many
    by_split = LabelNoise(clean, 0.4).load("teacher")
    assert torch.equal(by_split.y, labels[0][by_split.index])


def test_superclasses_keep_their_rows(clean):
    source = LabelNoise(clean, 0.5, "superclass")
    names, group = source.all_rows().class_names, source.superclasses
    before, after = (s.all_rows().y[source.wrong].tolist() for s in (clean, source))
    assert before
    assert all(group[names[a]] == group[names[b]] for a, b in zip(before, after, strict=True))


def test_a_class_may_be_taken_for_another(clean):
    names = clean.all_rows().class_names
    first, second = (names[c] for c in clean.all_rows().y[clean.rows("teacher")].unique()[:2])
    source = LabelNoise(clean, 0.5, {first: second})
    before, after = (s.all_rows().y[source.wrong] for s in (clean, source))
    assert {names[c] for c in before.tolist()} == {first}
    assert {names[c] for c in after.tolist()} == {second}
    assert 30 < source.wrong.sum() < 70


@pytest.mark.parametrize("trusted", [True, False])
def test_those_that_judge_are_right(trusted):
    source = LabelNoise(Blobs(per_class=40), 0.4, trusted=trusted)
    settings = {"quiz_fraction": 0.25, "val_fraction": 0.25, "test_fraction": 0.25}
    data = SupervisedData(source, split="teacher", batch_size=32, views=0, **settings)
    classes, y = data.train_classes(), Blobs(per_class=40).all_rows().y

    def all_right(batches):
        return all(torch.equal(classes[b.y], y[b.index]) for b in batches if isinstance(b, Batch))

    pairs = list(data.train_dataloader())
    assert not all_right(batch for batch, _ in pairs)
    judging = ([q for _, q in pairs], data.val_dataloader(), data.test_dataloader())
    assert [all_right(batches) for batches in judging] == [trusted] * 3


def test_episodes_are_drawn_by_the_labels_and_judged_by_right_ones():
    source, shape = LabelNoise(Blobs(), 0.5), {"n_way": 3, "k_shot": 4, "n_query": 4, "seed": 0}
    shown, y = source.all_rows().y, Blobs().all_rows().y

    def episodes(split):
        drawn = EpisodeSet(source, split, **shape)
        return [drawn[i] for i in range(5)]

    for split in ("train", "test"):
        for episode in episodes(split):
            for part in (episode.support, episode.query):
                assert torch.equal(episode.classes[part.y], shown[part.index])
    wrong = [(shown != y)[e.support.index].any() for e in episodes("test")]
    assert not any(wrong)


def test_what_is_stored_of_a_row_does_not_depend_on_its_label_and_results_do(clean):
    source = LabelNoise(clean, 0.4)
    assert source.identity == clean.identity
    contents = {s.content for s in (clean, source, LabelNoise(clean, 0.4, seed=1))}
    assert len(contents) == 3
    assert source.name == "Synthetic with 40 % symmetric noise"


def test_vectors_and_mixtures_have_the_labels_of_their_images():
    blobs, noisy = Blobs(), LabelNoise(Blobs(), 0.4)
    embedded = Embedded(noisy, SmoothConv4(0), views=1)
    over = LabelNoise(Embedded(blobs, SmoothConv4(0), views=1), 0.4)
    mixture = Mixture({"noisy": noisy})
    for source in (embedded, over, mixture):
        assert torch.equal(source.all_rows().y, noisy.all_rows().y)
        assert torch.equal(source.true_labels(), blobs.all_rows().y)
    assert over.image_source.name == blobs.name
    assert embedded.image_source is noisy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.0}, "data.source.rate=1.0 must be at least 0 and less than 1"),
        ({"rate": -0.1}, "data.source.rate=-0.1 must be"),
        ({"rate": 0.1, "split": "trian"}, "data.source.split='trian' is not a split of Synthetic"),
        ({"rate": 0.1, "seed": -1}, "data.source.seed=-1 must"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(clean, settings, message):
    with pytest.raises(ValueError, match=message):
        LabelNoise(clean, **settings)


def test_a_class_that_is_not_there_and_missing_superclasses_are_refused(clean, tmp_path):
    with pytest.raises(ValueError, match="kind names the class 'cat', which is none of the 48 of"):
        LabelNoise(clean, 0.2, {"cat": "dog"}).all_rows()
    with pytest.raises(ValueError, match=r"needs superclasses, and Texts.* has none; take 'symm"):
        LabelNoise(Texts(str(tmp_path / "texts.csv")), 0.2, "superclass")


def test_cifar_has_twenty_superclasses_of_five():
    groups = list(CIFAR100().superclasses.values())
    assert len(groups) == 100
    assert {groups.count(group) for group in groups} == {5}

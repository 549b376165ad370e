import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_metakd.data.episodes import EpisodeSet, draw_episode, draw_shots, members
from lightning_metakd.data.sources.seeding import generator
from lightning_metakd.data.sources.synthetic import Synthetic

SHAPE = {"n_way": 5, "k_shot": 2, "n_query": 3, "seed": 0}


@pytest.fixture
def episodes(source):
    return EpisodeSet(source, "train", **SHAPE)


def test_the_same_key_gives_the_same_episode(source, episodes):
    first, again = episodes[7], EpisodeSet(source, "train", **SHAPE)[7]
    assert first.query.index.equal(again.query.index)
    assert first.support.x.equal(again.support.x)
    assert first.classes.equal(again.classes)


def test_an_episode_does_not_depend_on_what_was_drawn_before(episodes):
    alone = episodes[9].query.index
    for i in range(9):
        episodes[i]
    torch.manual_seed(5)
    assert episodes[9].query.index.equal(alone)


@pytest.mark.parametrize("change", [{"seed": 1}, {"split": "val"}])
def test_another_seed_or_split_gives_other_episodes(source, episodes, change):
    settings = {"split": "train", **SHAPE, **change}
    assert not EpisodeSet(source, **settings)[0].query.index.equal(episodes[0].query.index)


def test_episodes_differ_from_one_another(episodes):
    assert len({tuple(episodes[i].query.index.tolist()) for i in range(50)}) == 50


def test_drawing_leaves_the_global_random_state_alone(episodes):
    before = torch.get_rng_state()
    episodes[0]
    assert torch.get_rng_state().equal(before)


@given(st.integers(0, 2**40), st.integers(2, 6), st.integers(2, 8))
def test_rows_are_distinct_and_of_their_classes(index, n_way, n_rows):
    y = torch.arange(8).repeat(9)
    classes, positions = members(y)
    places, rows, views = draw_episode(positions, n_way, n_rows, "train", 0, index)
    assert rows.shape == views.shape == (n_rows, n_way)
    assert rows.unique().numel() == rows.numel()
    assert y[rows].equal(classes[places].expand(n_rows, n_way))


def test_support_and_query_share_no_image(episodes):
    for i in range(20):
        assert not set(episodes[i].support.index.tolist()) & set(episodes[i].query.index.tolist())


def test_rows_are_interleaved_by_class(source, episodes):
    episode = episodes[3]
    assert episode.support.y.tolist() == list(range(5)) * 2
    assert episode.query.y.tolist() == list(range(5)) * 3
    everything = source.all_rows()
    assert everything.y[episode.query.index].equal(episode.classes[episode.query.y])
    assert everything.x[episode.query.index].equal(episode.query.x)


def test_every_class_and_image_is_drawn_sooner_or_later(source, episodes):
    recorded = torch.cat(
        [torch.cat([e.support.index, e.query.index]) for e in map(episodes.__getitem__, range(300))]
    )
    assert recorded.unique().equal(source.rows("train"))


def test_images_without_views_are_as_they_are(episodes):
    assert (episodes[0].query.view == -1).all()


def test_views_stay_below_their_number(source):
    views = EpisodeSet(source, "train", **SHAPE, views=3)[0].query.view
    assert set(views.tolist()) <= {0, 1, 2}


def test_unlimited_views_do_not_repeat(source):
    drawn = EpisodeSet(source, "train", **SHAPE, views=None)
    views = torch.cat([drawn[i].query.view for i in range(50)])
    assert (views >= 0).all()
    assert views.unique().numel() == views.numel()


def test_shots_of_a_range_reach_both_ends_and_are_shared_by_a_step(source):
    episodes = EpisodeSet(source, "train", **{**SHAPE, "k_shot": (1, 4)}, episodes_per_step=4)
    shots = [len(episodes[i].support.y) // 5 for i in range(160)]
    assert set(shots) == {1, 2, 3, 4}
    assert all(len(set(shots[i : i + 4])) == 1 for i in range(0, 160, 4))
    assert draw_shots(3, "train", 0, 0) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"n_way": 20},
            r"n_way=20 exceeds the 16 classes of split 'val' in Synthetic; lower data.n_way",
        ),
        ({"n_way": 1}, "n_way=1 leaves nothing"),
        ({"k_shot": 0}, "k_shot=0 must be 1 or more"),
        ({"k_shot": (3, 2)}, r"k_shot=\(3, 2\) must be a range such as"),
        ({"n_query": 0}, "n_query=0 must be 1 or more"),
        (
            {"n_query": 7},
            r"k_shot \+ n_query = 9 exceeds the 8 images of class '\w+' of split 'val' in Synthetic; lower",
        ),
    ],
)
def test_an_impossible_episode_is_refused(source, change, message):
    with pytest.raises(ValueError, match=message):
        EpisodeSet(source, "val", **{**SHAPE, **change})


def test_an_unknown_split_is_refused(source):
    with pytest.raises(
        ValueError, match="split='tain' is not a split of Synthetic; choose one of train, val"
    ):
        source.rows("tain")


def test_generators_differ_by_type_and_place_of_a_key():
    keys = [("a", 1, 2), ("a", 12), ("a", 2, 1), ("a", "1", 2)]
    assert len({generator(*key).initial_seed() for key in keys}) == len(keys)


def test_a_generator_is_the_same_on_every_machine():
    # this value must never change, or published results cannot be repeated
    assert torch.randint(1000, (4,), generator=generator("val", 0, 3)).tolist() == [
        148,
        982,
        494,
        977,
    ]


def test_splits_are_disjoint_by_class(source):
    named = {split: set(source.load(split).y.tolist()) for split in source.splits}
    assert [len(named[split]) for split in source.splits] == [64, 16, 20, 48, 16]
    assert not named["train"] & named["val"]
    assert not named["test"] & (named["train"] | named["val"])
    assert not named["teacher"] & named["strategy"]
    assert named["teacher"] | named["strategy"] == named["train"]


def test_a_row_has_one_number_through_every_split(source):
    everything = source.load("all")
    for split in source.splits:
        part = source.load(split)
        assert everything.x[part.index].equal(part.x)
        assert everything.y[part.index].equal(part.y)


def test_moments_are_those_of_the_base_classes():
    source = Synthetic(per_class=2)
    x = source.load("train").x.double() / 255
    mean, std = source.normalisation()
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-9)
    assert std == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), abs=1e-9)


def test_classes_may_have_different_numbers_of_images():
    positions = list(torch.arange(60).split([7, 9, 12, 15, 17]))
    for i in range(30):
        classes, rows, _ = draw_episode(positions, 3, 5, "train", 0, i)
        for place, column in zip(classes.tolist(), rows.T, strict=True):
            assert set(column.tolist()) <= set(positions[place].tolist())


def test_support_rows_come_again_in_further_views(source):
    plain = EpisodeSet(source, "test", **SHAPE)[3]
    more = EpisodeSet(source, "test", **SHAPE, support_views=2)[3]
    n = len(plain.support.y)
    assert more.query.index.equal(plain.query.index)
    assert more.support.view.tolist() == [-1] * n + [0] * n + [1] * n
    for field in ("x", "y", "index"):
        rows = getattr(more.support, field).unflatten(0, (3, n))
        assert all(copy.equal(getattr(plain.support, field)) for copy in rows)


def test_a_wrong_label_is_wrong_in_all_views(source):
    settings = SHAPE | {"k_shot": 4, "wrong_support": 0.5}
    episode = EpisodeSet(source, "test", **settings, support_views=1)[0]
    first, second = episode.support.y.unflatten(0, (2, -1))
    assert first.equal(second)
    assert not first.equal(torch.arange(5).repeat(4))

"""Several sources as one."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from lightning_metakd.data.episodes import EpisodeSet
from lightning_metakd.data.sources import Embedded, Mixture, Synthetic
from tests.commands import written
from tests.tiny import Blobs, SmoothConv4

SHAPE = {"n_way": 3, "k_shot": 1, "n_query": 2, "seed": 3}


class Others(Blobs):
    """Other classes, a little brighter."""

    def __init__(self):
        super().__init__()
        names = tuple(f"other {name}" for name in self.all.class_names)
        self.all = self.all._replace(x=self.all.x // 2 + 100, class_names=names)


class Turned(Blobs):
    """The same classes, of which those that Blobs trains on are tested on."""

    of_split = Blobs.of_split | {"train": range(12, 20), "val": range(4), "test": range(4, 12)}


def two(**settings):
    return Mixture({"blobs": Blobs(), "others": Others()}, **settings)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("views", [0, None])
def test_a_mixture_of_one_source_is_that_source_episode_by_episode(split, views):
    mixture, alone = Mixture({"blobs": Blobs()}), Blobs()
    assert mixture.content == alone.content
    pair = [EpisodeSet(source, split, **SHAPE, views=views) for source in (mixture, alone)]
    for i in range(20):
        one, other = (episodes[i] for episodes in pair)
        assert one.classes.equal(other.classes)
        for a, b in ((one.support, other.support), (one.query, other.query)):
            assert a.index.equal(b.index)
            inputs = [s.inputs(r.x, r.index, r.view) for s, r in ((mixture, a), (alone, b))]
            assert inputs[0].equal(inputs[1])


def test_evaluation_has_the_episodes_of_each_source_alone():
    mixture = two()
    episodes = EpisodeSet(mixture, "test", **SHAPE, per_domain=4)
    for k, source in enumerate((Blobs(), Others())):
        alone = EpisodeSet(source, "test", **SHAPE)
        for i in range(4):
            of_domain, expected = episodes[4 * k + i], alone[i]
            assert of_domain.query.x.equal(expected.query.x)
            rows = expected.query.index + mixture.offsets[("blobs", "others")[k]]
            assert of_domain.query.index.equal(rows)


def test_a_training_episode_is_of_one_domain_drawn_by_the_weights():
    mixture = two(weights={"blobs": 3.0, "others": 1.0})
    names = mixture.all_rows().class_names
    episodes = EpisodeSet(mixture, "train", **SHAPE)
    domains = Counter()
    for i in range(400):
        of_episode = {"other" in names[c] for c in episodes[i].classes.tolist()}
        assert len(of_episode) == 1
        domains[of_episode.pop()] += 1
    assert domains[True] / 400 == pytest.approx(0.25, abs=0.06)
    assert episodes[17].query.index.equal(EpisodeSet(mixture, "train", **SHAPE)[17].query.index)


def test_each_source_makes_the_views_of_its_own_rows():
    mixture, others = two(), Others()
    rows = torch.tensor([0, 5, mixture.offsets["others"] + 7, 3])
    view = torch.tensor([4, -1, 2, 9])
    views = mixture.augmented(mixture.all_rows().x[rows], rows, view)
    expected = others.augmented(others.all.x[7:8], torch.tensor([7]), view[2:3])
    assert views[2].equal(expected[0])
    assert views[1].equal(Blobs().all.x[5])


def test_classes_of_one_name_are_one_class():
    mixture = Mixture({"here": Blobs(), "there": Blobs()})
    _, y, _, names = mixture.all_rows()
    assert names == Blobs().all.class_names
    assert y.equal(torch.cat([Blobs().all.y] * 2))
    rows = EpisodeSet(mixture, "train", **SHAPE)[0].query.index
    assert (
        len((rows >= mixture.offsets["there"]).unique()) == 1
    )  # and yet an episode has one domain


def test_a_quiz_is_of_the_domain_of_the_step_that_it_judges():
    mixture = two()
    train, quiz = (EpisodeSet(mixture, split, **SHAPE) for split in ("teacher", "strategy"))
    is_other = [
        [episodes[i].query.index.min() >= mixture.offsets["others"] for i in range(40)]
        for episodes in (train, quiz)
    ]
    assert is_other[0] == is_other[1]
    assert len(set(map(bool, is_other[0]))) == 2


def test_a_held_out_domain_is_tested_on_alone():
    mixture = two(held_out=["others"])
    for split, n in {"train": 1, "val": 1, "strategy": 1, "test": 2}.items():
        assert len(mixture.domains(split)) == n
    assert (mixture.rows("train") < mixture.offsets["others"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": ["blobs", "others"]}, "leaves none of the sources .* to train on"),
        ({"held_out": ["nobody"]}, "'nobody' is none of the sources; choose from blobs, others"),
        ({"weights": {"blobs": 1.0}}, "weights has none for 'others'"),
        ({"weights": {"blobs": 1.0, "others": 0.0}}, "weights=0.0 must be positive"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        two(**settings)


def test_sources_that_do_not_go_together_are_refused():
    with pytest.raises(
        ValueError, match=r"rows of 'b' are \[3, 32, 32\] and those of 'a' \[1, 8, 8\]"
    ):
        Mixture({"a": Blobs(), "b": Synthetic(per_class=2)}).all_rows()
    with pytest.raises(
        ValueError, match=r"class 'blob 0' is in split 'train' of one .* of another"
    ):
        Mixture({"a": Blobs(), "b": Turned()}).all_rows()
    with pytest.raises(ValueError, match="source 'a' holds vectors; mix the sources of the images"):
        Mixture({"a": Embedded(Blobs(), SmoothConv4(0))})


def test_a_test_writes_a_result_for_each_domain(metakd, tmp_path):
    sources = {
        name: {"class_path": f"tests.data.sources.test_mixture.{cls}"}
        for name, cls in {"here": "Blobs", "there": "Others"}.items()
    }
    source = {"class_path": "Mixture", "init_args": {"sources": sources, "held_out": ["there"]}}
    episodes = {"source": source, "n_way": 3, "k_shot": 1, "n_query": 2, "n_episodes": 5}
    it = {
        "model": {
            "class_path": "MetaKD",
            "init_args": {
                "student": {"class_path": "tests.tiny.SmoothConv4", "init_args": {"n_classes": 0}},
                "learner": {"class_path": "ProtoNet"},
            },
        },
        "data": {"class_path": "EpisodicData", "init_args": episodes},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "limit_val_batches": 1},
    }
    written(tmp_path, it=it)
    metakd("fit", "--config", "it.yaml")
    metakd("test", "--ckpt_path", "runs/it/latest/checkpoints/final.ckpt")
    folder = Path("runs/it.test/latest")
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(row["domain"], row["source"], row["episodes"]) for row in rows] == [
        ("here", "Blobs", 5),
        ("there", "Others", 5),
    ]
    for row in rows:
        lines = (folder / f"episodes.test.{row['domain']}.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(5)]
    metakd("report", "--folder", "runs/it.test")


def test_an_embedded_mixture_has_its_domains(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    embedded = Embedded(two(held_out=["others"]), SmoothConv4(0), views=0)
    for split in ("train", "test"):
        domains = embedded.domains(split)
        assert [domain.name for domain in domains] == ["blobs", "others"][: 1 + (split == "test")]
        assert all(
            torch.equal(domain.rows, expected.rows)
            for domain, expected in zip(domains, embedded.source.domains(split), strict=True)
        )

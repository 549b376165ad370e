import io

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_metakd.callbacks.answers import Answers, pictures_of, texts_of
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.mixture import Mixture
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.storage.answer_table import EXTREMES, HARDEST, hardest_episodes, read_answers
from lightning_metakd.teachers.teacher import Teacher
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.tiny import Blobs, SmoothConv4, perturbed


def test_of(folder, recipe, data, *callbacks, **settings):
    runner = trainer(folder, *(callbacks or [Answers()]), **settings)
    runner.test(recipe, data, verbose=False)
    return {path.name: read_answers(path) for path in sorted(folder.rglob("answers.*.npz"))}


test_of.__test__ = False


def student(**settings):
    return MetaKD(SmoothConv4(0), ProtoNet("cosine", 10.0), **settings)


def episodes(source=None, n_episodes=12):
    return EpisodicData(source or Blobs(), 3, k_shot=2, n_query=4, n_episodes=n_episodes)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """(a recipe that was tested, what its student and teacher answered)."""
    torch.manual_seed(0)
    loss = perturbed(MatchGate(LearnedPerSample(), Hinton(4.0)))
    recipe = student(loss=loss, teachers=[Teacher(SmoothConv4(0, width=4))])
    tables = test_of(tmp_path_factory.mktemp("tested"), recipe, episodes())
    assert [*tables] == ["answers.test.npz"]
    return recipe, tables["answers.test.npz"]


def test_the_answers_add_up_to_the_accuracy_of_each_episode(tested):
    recipe, table = tested
    columns, rows = table.columns, recipe.record.episode_rows
    assert len(columns["row"]) == 12 * 12
    for prefix, name in (("", "accuracy"), ("teacher_", "teacher_accuracy")):
        right = columns[f"{prefix}predicted"] == columns["label"]
        for i, accuracy in zip(rows["id"].tolist(), rows[name].tolist(), strict=True):
            assert right[columns["episode"] == i].mean() == pytest.approx(accuracy)
        probability = columns[f"{prefix}probability"]
        assert ((probability >= 1 / 3) & (probability <= 1)).all()


def test_rows_have_their_classes(tested):
    _, table = tested
    _, y, _, names = Blobs().all_rows()
    for columns in (table.columns, table.support):
        actual = [table.classes[c] for c in columns["label"]]
        assert actual == [names[y[row]] for row in columns["row"]]
    assert set(table.classes) <= {f"blob {c}" for c in range(16, 20)}


def test_a_gate_of_each_row_is_kept_now_and_then_with_the_rows_at_its_ends(tested):
    _, table = tested
    gate, episode = table.coefficients["gate"], table.columns["episode"]
    assert (np.isnan(gate) == (episode % 8 != 0)).all()
    assert [*table.coefficients] == ["gate"]  # the temperature is the same for all rows
    order = np.argsort(gate[~np.isnan(gate)])
    rows = table.columns["row"][~np.isnan(gate)][order]
    assert {*rows[:3], *rows[-3:]} <= table.pictures.keys()


def test_the_first_ten_episodes_have_pictures(tested):
    _, table = tested
    shown = table.columns["row"][table.columns["episode"] < 10]
    assert {*shown, *table.support["row"]} <= table.pictures.keys()
    assert set(table.support["episode"]) >= set(range(10))


def test_the_hardest_episodes_have_pictures_of_what_was_learned_from_and_asked(tested):
    recipe, table = tested
    hardest, rows = hardest_episodes(table.columns), recipe.record.episode_rows
    order = rows["accuracy"].sort(stable=True).indices
    assert [*hardest] == rows["id"][order][:HARDEST].tolist()
    places = [place for places in hardest.values() for place in places]
    assert {*table.columns["row"][places]} <= table.pictures.keys()
    of_hardest = np.isin(table.support["episode"], [*hardest])
    assert of_hardest.sum() == HARDEST * 6
    assert {*table.support["row"][of_hardest]} <= table.pictures.keys()
    n_episodes = len({*table.support["episode"]})
    assert n_episodes <= 10 + HARDEST
    x = Blobs().all_rows().x
    assert len(table.pictures) <= n_episodes * (12 + 6) + 2 * EXTREMES
    row, picture = next(iter(table.pictures.items()))
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    assert pixels.shape == (8, 8)
    assert abs(pixels.astype(int) - x[row, 0].numpy()).mean() < 16  # WebP is not exact
    assert table.texts == {}


def test_pictures_may_be_left_out_and_a_student_may_be_alone(tmp_path):
    tables = test_of(tmp_path, student(), episodes(), Answers(pictures=False))
    (table,) = tables.values()
    assert (table.pictures, table.texts, table.coefficients) == ({}, {}, {})
    assert (table.columns["teacher_predicted"] == -1).all()
    assert np.isnan(table.columns["teacher_probability"]).all()


def test_each_domain_has_a_file_of_its_own(tmp_path):
    mixture = Mixture({"blobs": Blobs(), "brighter": Renamed(level=100)})
    tables = test_of(tmp_path, student(), episodes(mixture, n_episodes=3))
    assert [*tables] == ["answers.test.blobs.npz", "answers.test.brighter.npz"]
    for name, table in tables.items():
        assert sorted(set(table.columns["episode"])) == [0, 1, 2]
        kind = "bright" if "brighter" in name else "blob"
        assert all(c.startswith(kind) for c in table.classes)
        assert set(table.support["episode"]) == {0, 1, 2}


class Renamed(Blobs):
    def __init__(self, level):
        super().__init__(level=level)
        self.all = self.all._replace(class_names=tuple(f"bright {c}" for c in range(20)))


def test_a_single_task_has_rows_of_no_episode(tmp_path):
    source = Synthetic(per_class=8)
    data = SupervisedData(source, split="train", val_fraction=0.25, batch_size=32)
    recipe = SingleTask(Conv4(width=4, n_classes=64))
    (table,) = test_of(tmp_path, recipe, data).values()
    assert (table.columns["episode"] == -1).all()
    assert (np.diff(table.columns["row"]) > 0).all()
    right = table.columns["predicted"] == table.columns["label"]
    assert right.mean() == pytest.approx(recipe.record.result["accuracy"])
    assert 0 < len(table.pictures) <= 150


def test_a_rehearsal_and_a_module_that_says_nothing_leave_none(tmp_path):
    assert test_of(tmp_path, student(), episodes(), fast_dev_run=1) == {}
    runner = trainer(tmp_path, Answers())
    runner.test(Tiny(), batches(), verbose=False)
    assert list(tmp_path.rglob("answers*")) == []


class Sentences(Blobs):
    row_title, row_names = "text", tuple("x" * 999 for _ in range(240))


def test_texts_are_kept_in_part_and_vectors_not_at_all():
    assert texts_of([4], Sentences()) == {4: "x" * 300}
    assert texts_of([4], Blobs()) == {}
    vectors = Blobs()
    vectors.all = vectors.all._replace(x=torch.zeros(240, 5))
    assert pictures_of([4], vectors) == {}

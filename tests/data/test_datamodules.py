import hashlib
import json
import re
from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_metakd.data.batches import partition
from lightning_metakd.data.distributed_sampling import TrainingSampler, evaluation_indices
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources.augment import augment, normalise
from lightning_metakd.data.sources.cifar import CIFAR100
from lightning_metakd.data.sources.label_noise import LabelNoise
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.types import Batch, Episode, TrainBatch

EXPECTED = (  # of Lightning: what these tests do on purpose
    "Using ModelCheckpoint with manual optimization",
    "The dirpath has changed",
    "Total length of `list` across ranks is zero",
)
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in EXPECTED]
NAN, INF, HUGE = float("nan"), float("inf"), 10**30
EPISODIC = {"n_way": 3, "k_shot": 1, "n_query": 2, "meta_batch_size": 2, "n_episodes": 7}


class Diary(LightningModule):
    """Steps an optimiser by hand and writes down what it was given."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = nn.Parameter(torch.zeros(()))
        self.recorded, self.validated = [], []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch, batch_idx):
        self.recorded.append((self.trainer.global_step, what(batch)))
        self.manual_backward(self.weight * first(batch).x.mean())
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        self.validated.append(what(batch))

    def test_step(self, batch, batch_idx):
        self.validated.append(what(batch))


def first(batch):
    while not isinstance(batch, Batch):
        batch = batch[0]
    return batch


def what(batch):
    if isinstance(batch, TrainBatch):
        batch = batch.train
    if isinstance(batch, Episode):
        return batch.id.tolist()
    return hashlib.sha256(first(batch).x.numpy().tobytes()).hexdigest()


def trainer(folder, steps, **settings):
    return Trainer(
        max_epochs=-1,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"enable_checkpointing": False, **settings},
    )


def saving(folder, **settings):
    settings = {"filename": "{step}", "save_top_k": -1, **(settings or {"every_n_train_steps": 1})}
    return {"callbacks": [ModelCheckpoint(folder, **settings)], "enable_checkpointing": True}


def ranks(world, step=0, overfit_batches=0):
    common = {"world_size": world, "global_step": step, "overfit_batches": overfit_batches}
    common["loggers"] = []
    return [SimpleNamespace(global_rank=r, **common) for r in range(world)]


@pytest.fixture
def episodic(source):
    return lambda **other: EpisodicData(source, **{**EPISODIC, "steps_per_epoch": 4, **other})


@pytest.fixture
def supervised(source):
    return lambda **other: SupervisedData(source, **{"batch_size": 128, **other})


def test_overfitting_gives_every_rank_the_same_items_each_epoch():
    whole = [list(TrainingSampler(place, 3, 5)) for place in ranks(2, overfit_batches=2)]
    for rank in (0, 1):
        first = [3 * rank + k for k in range(3)] + [6 + 3 * rank + k for k in range(3)]
        assert whole[rank] == (first * 3)[:15]
    resumed = [
        list(TrainingSampler(place, 3, 4)) for place in ranks(2, step=3, overfit_batches=0.5)
    ]
    assert [drawn[:6] for drawn in resumed] == [drawn[9:15] for drawn in whole]


@pytest.mark.parametrize("kind", ["episodic", "supervised"])
@pytest.mark.parametrize("share", [2, 0.5])
def test_overfitting_trains_on_the_same_batches_each_epoch(kind, share, request, tmp_path):
    data, whole, resumed = request.getfixturevalue(kind), Diary(), Diary()  # epochs of 4 steps
    settings = {"overfit_batches": share}
    other = {"k_shot": (1, 3)} if kind == "episodic" else {"quiz_fraction": 0.25, "batch_size": 96}
    run = trainer(tmp_path, 7, **saving(tmp_path / "run"), **settings)
    run.fit(whole, data(**other))
    recorded = [what for _, what in whole.recorded]
    assert recorded == (recorded[:2] * 4)[:7]
    assert recorded[0] != recorded[1]
    checkpoint = tmp_path / "run" / "step=3.ckpt"
    again = trainer(tmp_path, 7, **saving(tmp_path / "again"), **settings)
    again.fit(resumed, data(**other), ckpt_path=str(checkpoint))
    assert resumed.recorded == whole.recorded[3:]


def test_ranks_share_the_slots_of_each_step_without_overlap():
    drawn = [list(TrainingSampler(place, 3, 5)) for place in ranks(4, step=2)]
    per_step = [sorted(i for d in drawn for i in d[3 * s : 3 * s + 3]) for s in range(5)]
    assert per_step == [list(range((2 + s) * 12, (3 + s) * 12)) for s in range(5)]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_evaluation_has_each_episode_once_on_any_number_of_ranks(episodic, world):
    ids = []
    for place in ranks(world):
        data = episodic()
        data.trainer = place
        ids += [int(episode.id) for episode in data.val_dataloader()]
    assert sorted(ids) == list(range(7))


def test_more_ranks_than_episodes_are_refused():
    with pytest.raises(
        ValueError, match=r"7 episodes or batches .* cannot be shared by 8 processes"
    ):
        evaluation_indices(ranks(8)[0], 7)


def test_a_training_batch_is_a_stack_of_episodes(episodic):
    data = episodic()
    batch, _ = next(iter(data.train_dataloader()))
    assert batch.id.tolist() == [0, 1]
    assert batch.support.x.shape == (2, 3, 3, 32, 32)
    assert batch.query.y.tolist() == [[0, 1, 2, 0, 1, 2]] * 2
    assert batch.query.teacher_outputs == ()
    alone = data.training_episodes("train", 3, 2)[1]
    assert batch.query.x[1].equal(alone.query.x)


def test_a_strategy_split_comes_beside_the_training_episodes(episodic):
    data = episodic(
        train_split="teacher", strategy_split="strategy", train_n_way=6, train_n_query=1
    )
    train, strategy = next(iter(data.train_dataloader()))
    assert train.classes.shape == (2, 6)
    assert strategy.classes.shape == (2, 3)
    assert train.query.y.shape == strategy.query.y.shape == (2, 6)
    assert torch.isin(train.classes, data.classes("teacher")).all()
    assert torch.isin(strategy.classes, data.classes("strategy")).all()


def test_the_evaluation_does_not_depend_on_training_settings(episodic):
    one, other = episodic(), episodic(seed=5, views=3, meta_batch_size=1, train_n_way=9)
    for a, b in zip(one.val_dataloader(), other.val_dataloader(), strict=True):
        assert a.query.index.equal(b.query.index)
        assert (a.query.view == -1).all()


def test_stages_use_their_own_classes(episodic):
    data = episodic()
    for split, loader in (
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
        ("test", data.predict_dataloader()),
    ):
        classes = torch.cat([episode.classes for episode in loader])
        assert torch.isin(classes, data.classes(split)).all()


def test_fitting_does_not_open_the_test_split(episodic, monkeypatch, tmp_path):
    data = episodic()
    select = data.source.select
    monkeypatch.setattr(
        data.source, "select", lambda split: {"test": pytest.fail}.get(split, select)(split)
    )
    trainer(tmp_path, 2).fit(Diary(), data)


def test_pixels_are_augmented_in_training_only_and_normalised_always(episodic):
    data = episodic()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        raw = next(iter(loader))
        raw = raw.train if isinstance(raw, TrainBatch) else raw
        done = data.on_after_batch_transfer(raw, 0)
        moments = data.source.normalisation()
        for before, after in ((raw.support, done.support), (raw.query, done.query)):
            x = before.x.flatten(0, -4)
            views = augment(x, before.index.flatten(), before.view.flatten())
            assert after.x.equal(normalise(views, *moments).view_as(before.x))
    assert done.query.x.equal(normalise(raw.query.x, *moments))


def test_a_pair_of_batches_is_normalised_whole(supervised):
    data = supervised(quiz_fraction=0.25)
    batch, quiz = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.x.dtype == quiz.x.dtype == torch.float32
    assert (quiz.view == -1).all()


def test_rows_of_the_quiz_may_train_with_their_right_labels(source):
    noisy = LabelNoise(source, rate=0.9, split="train")
    data = SupervisedData(noisy, batch_size=16, quiz_fraction=0.25, views=1, quiz_in_training=2)
    batches = data.train_dataloader().loader.dataset.train
    drawn = torch.cat([batches[i].index for i in range(len(batches))])
    labels = torch.cat([batches[i].y for i in range(len(batches))])
    train, quiz = data.parts["train"], data.parts["quiz"]
    assert len(drawn) // 16 == (len(train) + 2 * len(quiz)) // 16
    judges, of_quiz = torch.isin(drawn, quiz), data.train_classes()[labels]
    assert of_quiz[judges].equal(source.all_rows().y[drawn[judges]])
    assert of_quiz[~judges].equal(noisy.all_rows().y[drawn[~judges]])
    assert data.cache_views("fit")[0][0].equal(torch.cat([train, quiz]).sort().values)
    assert not data.has_quiz
    assert next(iter(data.train_dataloader())).quiz is None


def test_without_augmentation_the_images_are_as_they_are(episodic):
    assert (next(iter(episodic(augment=False).train_dataloader())).train.query.view == -1).all()


@pytest.mark.parametrize(
    ("kind", "stop", "workers"),
    [
        ("episodic", 2, 0),
        ("episodic", 5, 0),
        ("episodic", 6, 1),
        ("supervised", 2, 0),
        ("supervised", 5, 0),
    ],
)
def test_a_run_resumed_inside_an_epoch_continues_as_if_it_had_not_stopped(
    kind, stop, workers, request, tmp_path
):
    data = request.getfixturevalue(kind)  # epochs of 4 steps
    whole, before, after = Diary(), Diary(), Diary()
    trainer(tmp_path, 9).fit(whole, data())
    trainer(tmp_path, stop, **saving(tmp_path / "before")).fit(before, data())
    resumed = trainer(tmp_path, 9, **saving(tmp_path / "after"))
    checkpoint = tmp_path / "before" / f"step={stop}.ckpt"
    resumed.fit(after, data(num_workers=workers), ckpt_path=str(checkpoint))
    assert before.recorded + after.recorded == whole.recorded
    assert [step for step, _ in whole.recorded] == list(range(9))
    if kind == "episodic":
        assert [ids for _, ids in whole.recorded] == [[2 * step, 2 * step + 1] for step in range(9)]


def test_a_checkpoint_of_an_epochs_end_resumes_too(episodic, tmp_path):
    before, after = Diary(), Diary()
    settings = {"every_n_epochs": 1, "filename": "end"}
    first = trainer(tmp_path, 4, **saving(tmp_path / "before", **settings))
    first.fit(before, episodic())
    resumed = trainer(tmp_path, 6, **saving(tmp_path / "after", **settings))
    resumed.fit(after, episodic(), ckpt_path=str(tmp_path / "before" / "end.ckpt"))
    assert [step for step, _ in before.recorded + after.recorded] == list(range(6))


def test_lightning_adds_no_sampler_of_its_own(episodic, tmp_path):
    diary = Diary()
    trainer(tmp_path, -1).validate(diary, episodic(), verbose=False)
    assert diary.validated == list(range(7))


def test_parts_divide_every_class_and_share_no_row(source):
    rows = source.rows("train")
    parts = partition(source.all_rows().y[rows], rows, {"quiz": 0.25, "val": 0.125}, seed=0)
    assert torch.cat(list(parts.values())).sort().values.equal(rows)
    for part, share in (("quiz", 2), ("val", 1), ("train", 5)):
        counts = source.all_rows().y[parts[part]].unique(return_counts=True)[1]
        assert counts.tolist() == [share] * 64


def test_classes_are_divided_alike_whatever_others_are_beside_them(source):
    y, rows = source.all_rows().y, source.rows("train")
    third = rows[y[rows] % 3 == 0]
    whole, part = (partition(y[of], of, {"quiz": 0.25}, seed=0) for of in (rows, third))
    assert 0 < len(third) < len(rows)
    for name, chosen in part.items():
        assert chosen.equal(whole[name][torch.isin(whole[name], third)])


def test_few_labels_are_the_first_of_many_and_leave_the_other_parts_as_they_are(supervised):
    whole, three, one = (supervised(val_fraction=0.25, rows_per_class=n) for n in (None, 3, 1))
    for data, n in ((three, 3), (one, 1)):
        labels = data.source.all_rows().y[data.parts["train"]]
        assert labels.unique(return_counts=True)[1].tolist() == [n] * 64
        assert data.parts["val"].equal(whole.parts["val"])
    rows = [set(data.parts["train"].tolist()) for data in (one, three, whole)]
    assert rows[0] < rows[1] < rows[2]


def test_the_division_does_not_depend_on_the_training_seed(supervised):
    one, other = supervised(val_fraction=0.25), supervised(val_fraction=0.25, seed=9)
    assert one.parts["val"].equal(other.parts["val"])
    assert not one.parts["val"].equal(supervised(val_fraction=0.25, split_seed=1).parts["val"])


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(supervised):
    data = supervised(batch_size=64, views=4)
    batches = data.train_dataloader().loader.dataset.train
    epochs = [torch.cat([batches[b].index for b in range(8 * e, 8 * e + 8)]) for e in (0, 1)]
    assert epochs[0].sort().values.equal(data.parts["train"])
    assert epochs[1].sort().values.equal(data.parts["train"])
    assert not epochs[0].equal(epochs[1])


def test_labels_count_the_classes_of_the_split(supervised):
    data = supervised(split="strategy")
    batch, _ = next(iter(data.train_dataloader()))
    assert data.train_classes()[batch.y].equal(data.images().y[batch.index])
    assert batch.y.unique().tolist() == list(range(16))


def test_ranks_of_a_step_take_different_rows(source):
    drawn = []
    for place in ranks(2):
        data = SupervisedData(source, batch_size=32)
        data.trainer = place
        drawn.append([batch.index for batch, _ in data.train_dataloader()])
    assert len(drawn[0]) == 8
    assert torch.cat([torch.cat(d) for d in drawn]).unique().numel() == 512


def test_validation_has_every_row_once(supervised):
    data = supervised(val_fraction=0.25, batch_size=50)
    assert torch.cat([batch.index for batch in data.val_dataloader()]).equal(data.parts["val"])
    assert torch.cat([batch.index for batch in data.test_dataloader()]).equal(data.parts["val"])
    assert supervised().val_dataloader() == []


def test_a_source_with_ordinary_test_rows_is_tested_on_them(source, monkeypatch):
    everything = source.all_rows()
    ordinary = CIFAR100("unused")
    monkeypatch.setattr(CIFAR100, "all_rows", lambda self: everything)
    monkeypatch.setattr(
        CIFAR100, "select", lambda self, split: torch.arange(split == "test", 800, 2)
    )
    data = SupervisedData(ordinary, val_fraction=0.25)
    assert torch.cat([batch.index for batch in data.test_dataloader()]).equal(
        torch.arange(1, 800, 2)
    )


def test_classes_that_a_source_keeps_for_tests_are_not_tested_on_what_was_trained_on(supervised):
    data = supervised(split="test", val_fraction=0.25, test_fraction=0.25, rows_per_class=3)
    parts = [data.parts[part] for part in ("train", "val", "test")]
    assert torch.cat(parts).unique().numel() == sum(map(len, parts))
    assert torch.cat([batch.index for batch in data.test_dataloader()]).equal(data.parts["test"])
    without = supervised(split="test", val_fraction=0.25)
    tested = torch.cat([batch.index for batch in without.test_dataloader()])
    assert tested.equal(without.parts["val"])
    assert without.parts["val"].equal(
        data.parts["val"]
    )  # a part more leaves the others as they are


def test_the_manifest_tells_what_was_trained_on(supervised, tmp_path):
    data = supervised(split="teacher", val_fraction=0.25, batch_size=16)
    logger = CSVLogger(tmp_path)
    run = Trainer(
        max_steps=1, accelerator="cpu", logger=logger, enable_checkpointing=False, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.fit(Diary(), data)
    manifest = json.loads((tmp_path / "lightning_logs" / "version_0" / "manifest.json").read_text())
    assert manifest == data.manifest()
    assert manifest["source"] == "Synthetic"
    assert manifest["class_ids"] == data.train_classes().tolist()
    assert manifest["rows"] == {"quiz": 0, "val": 96, "test": 0, "train": 288}
    expected = hashlib.sha256(data.parts["train"].numpy().astype("<i8").tobytes()).hexdigest()
    assert manifest["rows_sha256"]["train"] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"batch_size": 1000},
            r"batch_size=1000 on 1 rank\(s\) exceeds the 512 rows to train on of split 'train'",
        ),
        (
            {"quiz_fraction": 0.5, "val_fraction": 0.49},
            r"quiz_fraction=0.5, val_fraction=0.49, test_fraction=0.0 of the 8 images of class",
        ),
    ],
)
def test_nothing_to_train_on_is_an_error(supervised, settings, message):
    with pytest.raises(ValueError, match=message):
        supervised(**settings).train_dataloader()


WRONG = {
    "n_way": (0, 1, -1, None, 2.5, True, NAN, INF, HUGE),
    "k_shot": (0, -1, None, 1.5, NAN, INF, (1,), (1, 2, 3), (0, 3), (3, 2), (1, NAN), ()),
    "n_query": (0, -1, None, 2.5, NAN, INF, HUGE),
    "train_n_way": (0, 1, -1, 2.5, NAN, HUGE),
    "train_n_query": (0, -1, 2.5, NAN, HUGE),
    "meta_batch_size": (0, -1, None, 2.5, NAN, HUGE),
    "steps_per_epoch": (0, -2, None, 2.5, NAN, HUGE),
    "n_episodes": (0, -1, None, 2.5, NAN, HUGE),
    "batch_size": (0, -3, None, 2.5, NAN, HUGE),
    "rows_per_class": (0, -3, 2.5, NAN, HUGE),
    "quiz_in_training": (-1, None, 2.5, NAN, HUGE),
    "quiz_fraction": (-0.1, 1, 1.5, None, NAN, INF, HUGE),
    "support_views": (-1, 0.5, NAN, HUGE),
    "wrong_support": (-0.1, 1, 1.5, None, NAN, INF, HUGE),
    "val_fraction": (-0.1, 1, 1.5, None, NAN, INF, HUGE),
    "test_fraction": (-0.1, 1, 1.5, None, NAN, INF, HUGE),
    "split_seed": (-1, None, 0.5, NAN, HUGE),
    "seed": (-1, None, 0.5, NAN, HUGE),
    "eval_seed": (-1, None, 0.5, NAN, HUGE),
    "views": (-1, 1.5, NAN, HUGE),
    "num_workers": (-1, None, 1.5, NAN, HUGE),
    "split": ("tain",),
    "train_split": ("tain",),
    "strategy_split": ("tain",),
}


@pytest.mark.parametrize("kind", [EpisodicData, SupervisedData])
def test_a_wrong_argument_is_refused_at_once_by_its_name(kind, monkeypatch, as_users_run_it):
    source = Synthetic()
    monkeypatch.setattr(source, "all_rows", lambda: pytest.fail("the data were read"))
    taken = set(signature(kind).parameters) - {"source", "augment"}
    for name in taken:
        for value in WRONG[name]:
            shown = f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}"
            with pytest.raises(ValueError, match=re.escape(shown) + " .*(must|leaves|is not)"):
                kind(source, **{name: value})


def test_arguments_at_their_bounds_mean_something(source):
    SupervisedData(source, batch_size=1, quiz_fraction=0.0, views=1, seed=2**32 - 1)
    data = EpisodicData(source, 2, (1, 1), 1, 1, 1, 1, train_n_way=2, train_n_query=1, views=0)
    assert (next(iter(data.train_dataloader())).train.query.view == -1).all()
    with pytest.raises(
        ValueError,
        match=r"quiz_fraction=0.5, val_fraction=0.7, test_fraction=0.0 leave nothing to train on",
    ):
        SupervisedData(source, quiz_fraction=0.5, val_fraction=0.7)


@pytest.mark.parametrize(("share", "k_shot"), [(0.4, 1), (0.1, 5), (0.2, (1, 2))])
def test_a_share_of_wrong_support_labels_that_is_none_is_refused(source, share, k_shot):
    with pytest.raises(ValueError, match=r"wrong_support=0\..* none of the [125] support rows"):
        EpisodicData(source, k_shot=k_shot, wrong_support=share)
    EpisodicData(source, k_shot=(1, 10), wrong_support=share)


def test_labels_by_which_episodes_are_judged_stay_right(source):
    with pytest.raises(ValueError, match=r"source\.split=test makes labels wrong .* are judged"):
        EpisodicData(LabelNoise(source, 0.4, split="test"))
    EpisodicData(LabelNoise(source, 0.4, split="test", trusted=False))
    data = EpisodicData(LabelNoise(source, 0.4), n_way=2, k_shot=1, n_query=1)
    assert not data.source.wrong[data.source.rows("test")].any()
    assert data.source.wrong.any()


def test_nothing_to_test_on_is_an_error(supervised):
    with pytest.raises(
        ValueError,
        match="test_fraction=0 leave nothing to test on: Synthetic has no test rows of the classes of",
    ):
        supervised().test_dataloader()


@pytest.mark.parametrize("views", [0, 3])
def test_what_is_shown_to_teachers_is_what_the_loaders_yield(episodic, supervised, views):
    few = episodic(train_split="teacher", strategy_split="strategy", views=views)
    rows = supervised(quiz_fraction=0.25, val_fraction=0.25, views=views)
    loaders = [
        (few, "fit", [pair for batch in few.train_dataloader() for pair in batch]),
        (few, "fit", few.val_dataloader()),
        (few, "test", few.test_dataloader()),
        (rows, "fit", [batch for batch, _ in rows.train_dataloader()]),
    ]
    for data, stage, items in loaders:
        result = [(set(which.tolist()), recorded) for which, recorded in data.cache_views(stage)]
        for item in items:
            for part in [item] if isinstance(item, Batch) else item[:2]:
                drawn = zip(
                    part.index.flatten().tolist(), part.view.flatten().tolist(), strict=True
                )
                assert all(
                    any(i in which and v in recorded for which, recorded in result)
                    for i, v in drawn
                )
    assert rows.cache_views("test") == []
    assert len(few.cache_views("test")) == 2


def test_other_data_must_say_what_a_cache_stores_and_on_what_a_student_trains(source):
    with pytest.raises(TypeError, match="abstract methods cache_views, has_quiz, train_classes"):
        SourceData(source, 0)

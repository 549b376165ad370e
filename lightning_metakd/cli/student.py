"""A student in a few lines of Python: distil one, load one, and let it name images or texts of one's own."""

import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor, nn

from lightning_metakd.cli.command import build
from lightning_metakd.cli.command_words import add_config_of_checkpoint
from lightning_metakd.cli.trainer import Trainer
from lightning_metakd.data import SupervisedData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources import text_rows
from lightning_metakd.data.sources.augment import normalise
from lightning_metakd.data.sources.source import Source
from lightning_metakd.learners import Learner, ProtoNet
from lightning_metakd.losses import Hinton, Loss, MatchGate
from lightning_metakd.models.weights import load_origin, load_weights
from lightning_metakd.recipes import MetaKD, SingleTask
from lightning_metakd.recipes.head_size import size_heads
from lightning_metakd.storage.picture import square_pixels
from lightning_metakd.storage.read_checkpoint import read_checkpoint, student_weights
from lightning_metakd.teachers import SlicedHead, Teacher
from lightning_metakd.types import Batch, Episode, Vocabulary

ROWS = 256
"""Examples that pass through the network at once."""
SIDE = 32
"""Of images in pixels, where a source does not say it."""
OF_A_STUDENT = ("student", "learner", "norm", "teacher_at_test")
"""What of a recipe's settings a trained student needs."""

Examples = Sequence[Any] | np.ndarray | Tensor
"""Texts, or their tokens as tensors [n, l]; or images: paths, Pillow's images, arrays of 0 to 255
[n, h, w, 3], or tensors [n, ch, h, w]."""


class Student:
    """A trained student in the manner of scikit-learn: it adapts to a few examples and names others.

    Args:
        recipe: what trained it; the student of SingleTask adapts by its nearest class mean.
        size: side of images in pixels, to which files and Pillow's images are brought.

    Attributes:
        classes_: the labels of `fit`, sorted.
    """

    def __init__(self, recipe: MetaKD | SingleTask, size: int = SIDE) -> None:
        if isinstance(recipe, SingleTask):
            network = deepcopy(recipe.eval_student)
            network.resize_head(0)
            network.reading = recipe.student.reading  # an average does not have it
            recipe = MetaKD(network, ProtoNet(metric="cosine", scale=10.0), norm="running")
        if recipe.teacher_at_test or recipe.learner.needs_teacher:
            raise ValueError(
                f"learner={type(recipe.learner).__name__} with teacher_at_test={recipe.teacher_at_test} "
                "asks a teacher while it adapts, and there is none here; judge it by metakd test."
            )
        self.recipe, self.size = recipe, size
        self.network = recipe.eval_student.eval()
        self.network.reading = recipe.student.reading
        self.classes_: list[Any] = []

    def fit(self, examples: Examples, labels: Sequence[Hashable]) -> "Student":
        """Adapt to labelled examples, one at least of each class; what was adapted to before is forgotten.

        Raises:
            ValueError: if their numbers differ, there is one class alone, or the student tells apart a fixed
                number of classes that is another.
        """
        labels = list(labels)
        if len(labels) != len(examples):
            raise ValueError(f"{len(examples)} examples have {len(labels)} labels; give each one.")
        self.classes_ = sorted(set(labels), key=lambda label: (str(type(label)), label))
        n_way = len(self.classes_)
        if n_way < 2:
            raise ValueError(
                f"labels={self.classes_} are one class; give examples of two at least."
            )
        logits = getattr(self.network.head, "out_features", n_way)
        if self.recipe.learner.needs_head and logits != n_way:
            raise ValueError(
                f"labels are of {n_way} classes, and {type(self.recipe.learner).__name__} tells {logits} "
                "apart; give these many, or train with this data.n_way."
            )
        y = torch.tensor([self.classes_.index(label) for label in labels])
        support = batch(self.inputs(examples), y)
        episode = Episode(support, support, torch.arange(n_way), torch.tensor(0))
        self.adapted = self.recipe.evaluator.adapt(self.network, episode)
        return self

    def predict_proba(self, examples: Examples) -> np.ndarray:
        """Probability of each of `classes_` for each example, [n, c].

        Raises:
            RuntimeError: if there was no `fit`.
        """
        if not self.classes_:
            raise RuntimeError(
                "the student has adapted to nothing; call fit(examples, labels) first."
            )
        with torch.no_grad():
            parts = [self.adapted.predict(x).logits for x in self.inputs(examples).split(ROWS)]
        return np.asarray(torch.cat(parts).softmax(-1))

    def predict(self, examples: Examples) -> np.ndarray:
        """The most probable label of each example."""
        return np.asarray(self.classes_)[self.predict_proba(examples).argmax(-1)]

    def score(self, examples: Examples, labels: Sequence[Hashable]) -> float:
        """Part of the examples that it names rightly."""
        return float(np.mean(self.predict(examples) == np.asarray(list(labels))))

    def inputs(self, examples: Examples) -> Tensor:
        """What the network reads of some examples.

        Raises:
            ValueError: if there are none.
        """
        if not len(examples):
            raise ValueError("examples are empty; give one at least.")
        reading = self.network.reading
        if isinstance(reading, Vocabulary):
            if isinstance(examples, Tensor):
                return examples
            return text_rows.tokens(text_rows.encode(list(examples), reading.max_tokens), reading)
        pixels = examples if isinstance(examples, Tensor) else as_pixels(examples, self.size)
        return pixels.float() if reading is None else normalise(pixels, *reading)


def batch(x: Tensor, y: Tensor) -> Batch:
    """Rows that are of no source."""
    return Batch(x, y, torch.arange(len(y)), torch.full_like(y, -1))


def as_pixels(examples: Sequence[Any] | np.ndarray, size: int) -> Tensor:
    """Images as uint8 [n, ch, h, w].

    Args:
        size: side to which files and Pillow's images are brought; arrays stay as large as they are.
    """
    if isinstance(examples, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(examples.transpose(0, 3, 1, 2)))
    return torch.stack([one_image(example, size) for example in examples])


def one_image(example: Any, size: int) -> Tensor:
    """An image as uint8 [ch, h, w]."""
    if isinstance(example, Tensor):
        return example
    if isinstance(example, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(example.transpose(2, 0, 1)))
    if isinstance(example, Image.Image):
        return torch.tensor(square_pixels(example, size))
    with Image.open(example) as opened:
        return torch.tensor(square_pixels(opened, size))


def load(path: str | Path) -> Student:
    """The student of a checkpoint, built as the configuration of its run says.

    Args:
        path: `runs/<experiment>/latest/checkpoints/final.ckpt`, or another of a run.

    Raises:
        ValueError: if it is no file, or no configuration lies beside it.
    """
    _, config, *_ = add_config_of_checkpoint(["test", f"--ckpt_path={path}"])
    settings = yaml.safe_load(Path(config.removeprefix("--config=")).read_text())
    arguments = settings["model"]["init_args"]
    settings["model"]["init_args"] = {n: arguments[n] for n in OF_A_STUDENT if n in arguments}
    with TemporaryDirectory() as folder:
        file = Path(folder, "student.yaml")
        file.write_text(yaml.safe_dump({name: settings[name] for name in ("model", "data")}))
        with isolate_rng(), without_announcements():
            words = ("--seed_everything=false", "--trainer.accelerator=cpu")
            built = build([f"--config={file}", *words], run=False)
    recipe: MetaKD | SingleTask = built.model
    checkpoint, who = read_checkpoint(path), f"path={path}"
    weights = student_weights(checkpoint)
    fits = "head.weight" in weights and recipe.student.head_fits_task
    if fits and size_heads(recipe.students(), len(weights["head.weight"]), False, "data.n_way"):
        recipe.on_head_resized()
    if isinstance(recipe, MetaKD):
        recipe.load_student(weights, checkpoint["state_dict"], who, "test")
    else:
        load_weights(recipe.student, weights, who)
    load_origin(recipe.student, checkpoint, who)
    recipe.eval_student.load_state_dict(recipe.student.state_dict())
    return Student(recipe, side_of(built.datamodule.source))


@contextmanager
def without_announcements() -> Iterator[None]:
    """Inside, nothing below a warning is logged, such as the devices of a Trainer that runs nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def side_of(source: Source) -> int:
    """Side in pixels to which a source has brought its images."""
    return int(getattr(source.image_source, "size", SIDE))


def distil(
    student: nn.Module,
    teacher: nn.Module | Teacher,
    data: SourceData,
    learner: Learner | None = None,
    loss: Loss | None = None,
    *,
    experiment: str = "distil",
    max_steps: int = 1000,
    **settings: Any,
) -> Student:
    """Train a student beside a teacher, test it, and keep both as the command does, under `runs/`.

    Args:
        student: any network; a copy of it is trained.
        teacher: a network, on a single task one of the same classes in the same order; or a Teacher.
        data: EpisodicData for a student that adapts to new tasks, SupervisedData for a single task.
        learner: how it adapts; by default its nearest class mean, cosine. A single task has none.
        loss: how it is taught; by default half the labels, half the teacher at temperature 4.
        experiment: name of the run's folder.
        max_steps: outer steps.
        settings: what else the Trainer takes.

    Raises:
        ValueError: if a learner is given for a single task.
    """
    loss = MatchGate(gate=0.5, match=Hinton(temperature=4.0)) if loss is None else loss
    single = isinstance(data, SupervisedData)
    if not isinstance(teacher, Teacher):
        names = data.train_class_names() if single else None
        head = SlicedHead() if single else None
        teacher = Teacher(teacher, head=head, classes=names)
    recipe: MetaKD | SingleTask
    if single:
        if learner is not None:
            raise ValueError(
                f"learner={type(learner).__name__} adapts to episodes, and data=SupervisedData is a single "
                "task; leave the learner out, or take EpisodicData."
            )
        recipe = SingleTask(student, loss, [teacher])
    else:
        learner = ProtoNet(metric="cosine", scale=10.0) if learner is None else learner
        recipe = MetaKD(student, learner, loss, [teacher])
    trainer = Trainer(experiment, max_steps=max_steps, **settings)
    trainer.fit(recipe, data)
    trainer.test(recipe, data, verbose=False)
    return Student(recipe, side_of(data.source))

"""What of a recipe is exported: which student, which head, and what it reads."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_metakd.data.source_data import SourceData
from lightning_metakd.export.network import NORMS, EpisodeNetwork, RowNetwork, deployed
from lightning_metakd.export.onnx_heads import HEADS
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import EpisodicNorm
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.types import Normalisation, Reading, Vocabulary

Head = Literal["auto", "prototypes", "none"]
Kind = Literal["adaptable", "classifier", "features"]
MODES = {1: "L", 3: "RGB"}


class Plan(NamedTuple):
    """What is exported.

    Attributes:
        kind: whether it adapts, tells fixed classes apart, or embeds alone.
        student: the network in evaluation mode, as the recipe has it.
        learner: how it adapts; None where it does not.
        reading: mean and deviation of its pictures, or the vocabulary of its texts.
        size: side of its pictures, in pixels; most tokens of a text.
        channels: of its pictures; 0 of texts.
        classes: of a classifier, in the order of its logits; those of the training otherwise.
    """

    kind: Kind
    student: Model
    learner: Learner | None
    reading: Reading
    size: int
    channels: int
    classes: tuple[str, ...]

    @property
    def row_by_row(self) -> bool:
        """Whether a picture has the same embedding beside any others."""
        norms = (m for m in self.student.modules() if isinstance(m, EpisodicNorm))
        return all(norm.form != "support" for norm in norms)

    @property
    def inputs(self) -> str:
        """What its inputs are called."""
        return "images" if isinstance(self.reading, Normalisation) else "tokens"

    def examples(self, n: int) -> Tensor:
        """Black pictures, or texts of a token."""
        if isinstance(self.reading, Normalisation):
            return torch.zeros(n, self.channels, self.size, self.size, dtype=torch.uint8)
        return torch.ones(n, self.size, dtype=torch.int64)

    def network(self) -> RowNetwork | EpisodeNetwork:
        """The student as a module over whole pixels."""
        student = deployed(self.student)
        if self.row_by_row:
            return RowNetwork(student, self.reading, self.kind == "classifier").eval()
        return EpisodeNetwork(student, self.reading).eval()


def plan_for(recipe: Recipe, data: SourceData, head: Head) -> Plan:
    """What of a tested recipe is exported.

    Args:
        recipe: with the weights that are exported.
        data: on which it was tested.
        head: `auto` is the student's own way of adapting or classifying, `prototypes` the nearest class mean
            of its embeddings, `none` the embeddings alone.

    Raises:
        ValueError: if a file cannot do what the student does.
    """
    student = recipe.eval_student.eval()
    check_norms(student)
    reading = data.source.reading(recipe.student.reading)
    size, channels = size_of_rows(data, reading)
    student.reading = reading  # an average does not have it
    learner = learner_for(recipe, head)
    kind: Kind = "adaptable" if learner else "features" if head == "none" else "classifier"
    classes = tuple(data.train_class_names())
    plan = Plan(kind, student, learner, reading, size, channels, classes)
    if kind == "features" and not plan.row_by_row:
        raise ValueError(
            "head=none: the student's norms take the statistics of a support set (norm=support), and "
            "features have none; take --head auto or prototypes."
        )
    return plan


def size_of_rows(data: SourceData, reading: Reading | None) -> tuple[int, int]:
    """Side and channels of pictures; most tokens of texts, and 0.

    Raises:
        ValueError: if a file does not take such rows.
    """
    if isinstance(reading, Vocabulary):
        return reading.max_tokens, 0
    shape = data.source.all_rows().x.shape
    if reading is None or len(shape) != 4 or shape[1] not in MODES:
        raise ValueError(
            f"data.source={data.source.name} has rows that are neither pictures nor texts, and only students "
            "of these are exported; take the checkpoint itself."
        )
    if shape[2] != shape[3]:
        raise ValueError(
            f"data.source={data.source.name} has pictures of {shape[2]}x{shape[3]}, and a file reads "
            "square ones; take a source of square pictures."
        )
    return shape[2], shape[1]


def learner_for(recipe: Recipe, head: Head) -> Learner | None:
    """How the exported student adapts; None where it does not.

    Raises:
        ValueError: if a file cannot adapt so.
    """
    if head == "none":
        return None
    own_learner = recipe.learner if isinstance(recipe, MetaKD) else None
    if own_learner is not None and type(own_learner) in HEADS:
        asks_for_more = more_than_support(own_learner, recipe.teacher_at_test)
        if asks_for_more and head == "auto":
            raise ValueError(asks_for_more)
        if not asks_for_more and (head == "auto" or isinstance(own_learner, ProtoNet)):
            return own_learner
    if head == "prototypes":
        return ProtoNet(metric="cosine", scale=10.0)
    if own_learner is not None:
        raise ValueError(
            f"learner={type(own_learner).__name__} adapts by gradients of the whole network, which a file "
            f"does not take; {' and '.join(kind.__name__ for kind in HEADS)} adapt in one. Add --head "
            "prototypes, which classifies by the nearest class mean of the student's embeddings (its "
            "accuracy is measured, and is not that of the learner), or --head none."
        )
    return None


def more_than_support(learner: Learner, teacher_at_test: bool) -> str | None:
    """What adapting asks for beside support pictures and their labels, and the way out; None if nothing."""
    name = type(learner).__name__
    way_out = (
        "; add --head prototypes, which classifies by the nearest class mean of its embeddings, all rows "
        "alike (its accuracy is measured), or --head none."
    )
    if teacher_at_test or learner.needs_teacher:
        return f"learner={name} asks a teacher when it adapts, and a file has none{way_out}"
    if getattr(learner, "support_weight", None) is not None:
        return (
            f"learner={name} weighs its support rows by a coefficient (support_weight), which a file does "
            f"not have{way_out}"
        )
    return None


def check_norms(student: Model) -> None:
    """Raise where query pictures would depend on one another."""
    for name, norm in student.named_modules():
        if isinstance(norm, EpisodicNorm) and norm.form not in NORMS:
            raise ValueError(
                f"norm={norm.form!r} of {name!r} normalises query pictures by one another, and a file reads "
                f"them one by one; train with norm={', '.join(NORMS)}."
            )

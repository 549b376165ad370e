"""From a support set's embeddings to a classifier.

A head is fitted on a few embedded rows and then answers for others. The same heads serve teachers
(which cannot name an episode's new classes by themselves), metric learners and export.

A row that sits inside its own class mean is answered with near-certainty, and there is nothing
left to distil. So on the rows it was fitted on, every head answers leave-one-out.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.arguments.ranges import check_choice, check_positive
from lightning_metakd.losses.calibration import likeliest_scale
from lightning_metakd.models.model import listed
from lightning_metakd.models.prototypes import (
    Metric,
    class_means,
    leave_one_out_means,
    metric_logits,
    unit,
)
from lightning_metakd.types import Output, Params

Classifier = Callable[[Output], Tensor]
Unknown = Literal["refuse", "mark", "least"]
LARGEST_SCALE = math.exp(9.0)
"""Calibration looks for the factor on the logits between its inverse and this."""


class Head(nn.Module, ABC, Configured):
    """Answers for an episode's classes with logits times a scale, which `calibrate` sets.

    Args:
        scale: factor on the logits, > 0; None leaves it to calibration on held-out episodes or rows.
    """

    scale: Tensor
    needs_support: bool = True
    adapts_network: bool = False
    reads_names: bool = False
    centre: bool = False

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        check_positive("scale", scale, "or left out to have it calibrated", optional=True)
        self.register_buffer("scale", torch.tensor(math.nan if scale is None else scale))

    def check_use(self, cache: bool, has_top: bool) -> None:
        """Raise where a teacher with this head cannot have a cache, or a top.

        Raises:
            ValueError: says what to set instead.
        """
        if has_top and self.centre:
            raise ValueError(
                "head.centre=true centres the embeddings of the teacher's model, and its top has others; set "
                "the head's centre to false, or leave top out."
            )
        if cache and self.adapts_network and not has_top:
            raise ValueError(
                "cache=true keeps a teacher's answers, and network=true of its head changes them in each "
                "episode; set the teacher's cache to false, or give it a top, which adapts over the cache."
            )
        if cache and self.reads_names:
            raise ValueError(
                "cache=true keeps a teacher's answers for images, and head=NameHead reads the names of their "
                "classes, which costs nothing; set the teacher's cache to false."
            )

    @property
    def calibrated(self) -> bool:
        """Whether the scale is known, from the configuration, a checkpoint or `calibrate`."""
        return not bool(self.scale.isnan())

    def calibrate(self, logits: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> None:
        """Set the scale to the likeliest for unscaled logits of held-out rows."""
        self.scale.copy_(likeliest_scale(logits, y, LARGEST_SCALE, 1 / LARGEST_SCALE))

    def set_classes(self, trained_on: Sequence[str], class_names: Sequence[str]) -> None:
        """Told before it is asked about a source which classes there are; most heads do not ask.

        Args:
            trained_on: class of each of the network's own logits.
            class_names: classes of the source, by number.
        """

    def is_known(self, classes: Int[Tensor, " c"]) -> Bool[Tensor, " c"]:
        """Which of these classes it answers for by what its network has learned of them."""
        return torch.ones_like(classes, dtype=torch.bool)

    def centre_on(self, mean: Float[Tensor, " d"]) -> None:
        """Told before it is asked the mean embedding of the base classes, where `centre` is true."""

    def set_names(self, embedding: Float[Tensor, "c d"]) -> None:
        """Told before it is asked the embedding of the name of each class, where it `reads_names`."""

    def rows(self, class_id: Int[Tensor, " n"]) -> Output:
        """What stands for the network's output of rows of these classes, where the head `reads_names`."""
        raise NotImplementedError

    @abstractmethod
    def fit(self, support: Output, y: Tensor, classes: Tensor) -> Classifier:
        """A function from outputs to unscaled logits over `classes`."""

    def adapt(
        self,
        embed: Callable[[Params], Output],
        params: Params,
        support: Output,
        y: Tensor,
        classes: Tensor,
    ) -> tuple[Params, Classifier]:
        """Parameters with which the network answers for other rows, and what their outputs are classified by.

        Args:
            embed: the network's output for the support rows, by its parameters.
            params: the network's, all of them where the head adapts the network.
        """
        return params, self.fit(support, y, classes)

    @abstractmethod
    def held_out(
        self, support: Output, y: Tensor, classes: Tensor, other: Output
    ) -> Float[Tensor, "s c"]:
        """Unscaled logits of the support rows themselves, without what was fitted on them.

        Args:
            other: the teacher's answer for an augmented view of the same rows, for one shot.
        """


class PrototypeHead(Head):
    """Similarity to the class means of the support embeddings (Snell 2017, arXiv:1703.05175).

    With `centre`, the class means are those of centred embeddings of length one (CL2N of SimpleShot, Wang et
    al. 2019, arXiv:1911.04623): for a network that was trained elsewhere, all of whose embeddings point the
    same way.

    Args:
        metric: `cosine` of the angle, or minus the squared `euclidean` distance.
        scale: factor on the logits, > 0; None leaves it to calibration.
        centre: subtract from each embedding the mean over images of the source's split `train`, the base
            classes, and bring it to length one. Nothing is taken from the split that is tested on.
    """

    mean: Tensor

    def __init__(
        self, metric: Metric = "cosine", scale: float | None = None, centre: bool = False
    ) -> None:
        super().__init__(scale)
        check_choice("metric", metric, get_args(Metric))
        self.metric, self.centre = metric, centre
        self.register_buffer("mean", torch.empty(0), persistent=False)

    def centre_on(self, mean: Float[Tensor, " d"]) -> None:
        self.mean = mean.to(self.scale)

    def compared(self, embedding: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What stands for an embedding: itself, or with `centre` its direction from the mean."""
        if not self.centre:
            return embedding
        if not len(self.mean):
            raise ValueError(
                "centre=true subtracts a mean embedding, which is not known; call Teacher.centre first."
            )
        return unit(embedding - self.mean)

    def fit(self, support: Output, y: Tensor, classes: Tensor) -> Classifier:
        prototypes = class_means(self.compared(support.embedding), y, len(classes))[None]
        return lambda output: metric_logits(
            self.compared(output.embedding), prototypes, self.metric
        )

    def held_out(
        self, support: Output, y: Tensor, classes: Tensor, other: Output
    ) -> Float[Tensor, "s c"]:
        if len(y) == len(
            classes
        ):  # one shot: nothing is left without the row, so another view of it
            return self.fit(other, y, classes)(support)
        embedding = self.compared(support.embedding)
        means = leave_one_out_means(embedding, y, len(classes))
        return metric_logits(embedding, means, self.metric)


class SlicedHead(Head):
    """The network's own logits, restricted and re-ordered to the episode's classes.

    Classes are known by their names, whatever their numbers are in the data at hand.

    Args:
        scale: factor on the logits, > 0; None leaves it to calibration, on rows of the classes it knows.
        unknown: what of classes that the network was not trained on: `refuse` them, `mark` them by a logit of
            minus infinity, for KnownClasses to leave them out, or give them the `least` of its logits, as a
            specialist does that takes whatever it is shown for something of its own.
    """

    needs_support = False
    columns: Tensor

    def __init__(self, scale: float | None = 1.0, unknown: Unknown = "refuse") -> None:
        super().__init__(scale)
        check_choice("unknown", unknown, get_args(Unknown))
        self.unknown = unknown
        self.trained_on: tuple[str, ...] = ()
        self.class_names: tuple[str, ...] = ()
        self.register_buffer("columns", torch.empty(0, dtype=torch.long), persistent=False)

    def set_classes(self, trained_on: Sequence[str], class_names: Sequence[str]) -> None:
        self.trained_on, self.class_names = tuple(trained_on), tuple(class_names)
        column = {name: k for k, name in enumerate(trained_on)}
        self.columns = self.columns.new_tensor([column.get(name, -1) for name in class_names])

    def is_known(self, classes: Int[Tensor, " c"]) -> Bool[Tensor, " c"]:
        return self.position(classes) >= 0

    def position(self, classes: Int[Tensor, " c"]) -> Int[Tensor, " c"]:
        """Column of each class among the network's logits; -1 where it has none.

        Raises:
            ValueError: if the network was not trained on one of them, or on none where they are marked.
        """
        columns = self.columns.to(classes.device)[classes]
        unknown = columns < 0
        if unknown.all() or (self.unknown == "refuse" and unknown.any()):
            missing = [self.class_names[c] for c in classes[columns < 0].tolist()]
            raise ValueError(
                f"head=SlicedHead cannot answer for {', '.join(missing[:5])}: the teacher was trained on "
                f"{len(self.trained_on)} other classes ({listed(self.trained_on, 5)}); use PrototypeHead, or "
                "episodes of its classes."
                if self.trained_on
                else "head=SlicedHead answers with the network's own logits, and nothing says which classes "
                "they stand for; name them in the teacher's classes, or use PrototypeHead."
            )
        return columns

    def fit(self, support: Output, y: Tensor, classes: Tensor) -> Classifier:
        columns, width = self.position(classes), support.logits.shape[-1]
        if width != len(self.trained_on):
            raise ValueError(
                f"head=SlicedHead reads one logit for each of the {len(self.trained_on)} classes that the "
                f"teacher was trained on, and its network has {width}; use PrototypeHead, or the n_classes "
                "of the training."
            )

        def classify(output: Output) -> Tensor:
            least = output.logits.amin(-1, keepdim=True)  # [n 1]
            other = least if self.unknown == "least" else least.new_tensor(-math.inf)
            return torch.where(columns < 0, other, output.logits[:, columns])

        return classify

    def held_out(
        self, support: Output, y: Tensor, classes: Tensor, other: Output
    ) -> Float[Tensor, "s c"]:
        return self.fit(support, y, classes)(support)  # it was fitted on none of these rows

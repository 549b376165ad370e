"""The nouns that travel between the rooms, as named tuples of tensors.

`torch.func`, `DataLoader` and Lightning all walk a named tuple; an absent field is the empty tuple
`()`, because `None` and `int` leaves break `torch.func.vmap`.

Dimension letters, the same everywhere: `n` rows, `s` support rows = n_way * k_shot, `q` query rows
= n_way * n_query, `c` classes, `d` embedding, `t` tasks (episodes of a meta-batch), `ch h w` an
image, `k` teachers.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Params = Mapping[str, Tensor]
"""Parameters by name, never mutated."""


NOTHING: Mapping[str, Tensor] = {}


class Normalisation(NamedTuple):
    """What a network's input is made with: (x - mean) / std of each channel, in units of [0, 1].

    Attributes:
        mean: of each channel, or one number for all of them.
        std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Vocabulary(NamedTuple):
    """What a network's input is made with: the tokens of texts.

    Attributes:
        tokeniser: as the library `tokenizers` writes it, in JSON.
        size: numbers of tokens lie below it.
        max_tokens: of a text; what is longer is cut.
        pad: number of the token that fills up shorter texts.
    """

    tokeniser: str
    size: int
    max_tokens: int
    pad: int = 0


Reading = Normalisation | Vocabulary
"""What makes a network's input of the rows of a source; it belongs to the weights and is kept beside them."""


class Output(NamedTuple):
    """What a network says of `n` inputs.

    Attributes:
        logits: unnormalised class scores.
        embedding: the pooled vector in front of the head.
        features: what the tapped modules returned, by module path.
        hints: features as the student's adapters project them to a teacher's width, by `hint_name`.
    """

    logits: Float[Tensor, "n c"]
    embedding: Float[Tensor, "n d"]
    features: Mapping[str, Tensor] = NOTHING
    hints: Mapping[str, Tensor] = NOTHING


class Batch(NamedTuple):
    """Labelled rows.

    Attributes:
        x: inputs, normalised and on the device once they reach a recipe.
        y: label inside the episode (or inside the training classes), 0 .. c-1.
        index: row over all splits of the source; the key under which outputs are stored.
        view: seed of the augmentation that made `x`; -1 is the image as it is.
        teacher_outputs: of each teacher for these rows, `()` before there are any.
    """

    x: Tensor
    y: Int[Tensor, " n"]
    index: Int[Tensor, " n"]  # type: ignore[assignment]  # hides tuple.index
    view: Int[Tensor, " n"]
    teacher_outputs: tuple[Output, ...] = ()


class Episode(NamedTuple):
    """One sampled task instance; inside a meta-batch every tensor has a leading `t`.

    Rows are interleaved by class (0 1 2 .. 0 1 2 ..): any multiple of `n_way` rows is balanced.

    Attributes:
        support: what the student adapts on, n_way * k_shot rows.
        query: what it is evaluated on, n_way * n_query rows.
        classes: dataset class of each label.
        id: the episode's index; with split and seed it determines everything else.
    """

    support: Batch
    query: Batch
    classes: Int[Tensor, " c"]
    id: Int[Tensor, ""]


class QuizEpisodes(NamedTuple):
    """What judges a strategy: rows of a pilot step, and rows of the quiz after it.

    Attributes:
        train: its query rows are those of the pilot.
        quiz: its query rows are the quiz.
    """

    train: Episode
    quiz: Episode


class Context(NamedTuple):
    """What a coefficient may know of a row beside the batch.

    Attributes:
        class_id: dataset class of each row.
        progress: how far the student is in this task, in [0, 1].
        student_detached: the student's output, through which no gradient of the loss passes.
        teacher_support_accuracy: part of the episode's support rows that each teacher names rightly, held out
            of what it was fitted on; `()` where there is no support set.
    """

    class_id: Int[Tensor, " n"]
    progress: Float[Tensor, ""]
    student_detached: Output
    teacher_support_accuracy: Float[Tensor, " k"] | tuple[()] = ()


class BatchLoss(NamedTuple):
    """A teaching loss over one batch, its labels and its teachers' outputs.

    Attributes:
        teach: (strategy, student, batch, context) -> loss of each row.
        strategy: parameters of its coefficients.
        batch: the rows on which it acts.
        class_id: dataset class of each row.
        teacher_support_accuracy: as in `Context`.
    """

    teach: Callable[..., Tensor]
    strategy: Params
    batch: Batch
    class_id: Int[Tensor, " n"]
    teacher_support_accuracy: Float[Tensor, " k"] | tuple[()] = ()

    def __call__(
        self, student: Output, student_detached: Output, progress: Tensor
    ) -> Float[Tensor, " n"]:
        """The loss of each row, for a student's output and the same output undifferentiated.

        Raises:
            ValueError: if it is not one number a row.
        """
        context = Context(self.class_id, progress, student_detached, self.teacher_support_accuracy)
        loss = self.teach(self.strategy, student, self.batch, context)
        if loss.shape != self.class_id.shape:
            raise ValueError(
                f"the loss returned a tensor of shape {list(loss.shape)} for {len(self.class_id)} rows; "
                "return one number a row, not their mean."
            )
        return loss


class TrainBatch(NamedTuple):
    """What one training step gets.

    Attributes:
        train: what the student is trained on: rows, or a meta-batch, an episode with a leading `t`.
        quiz: of the same kind, what judges the strategy; None where the data keep none.
    """

    train: Episode | Batch
    quiz: Episode | Batch | None = None


@runtime_checkable
class Forward(Protocol):
    """A network as a pure function of its parameters."""

    def __call__(self, params: Params, x: Tensor) -> Output:
        """The network's answer for `x` with these parameters."""

    def observe(self, params: Params, x: Tensor) -> tuple[Output, Params]:
        """The answer for `x`, and the norm statistics of `x`.

        Joined to `params`, the statistics make the network answer row by row.
        """

    def statistics(self, params: Params, x: Tensor) -> Params:
        """The norm statistics of `x` alone; nothing is computed where no norm wants them."""

    def classify(self, params: Params, embedding: Tensor) -> Tensor:
        """The logits of the network's own head for an embedding [n, d]."""

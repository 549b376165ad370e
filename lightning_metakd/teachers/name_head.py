"""What the names of classes say of them: knowledge of another modality.

A language model embeds the name of each class, and classes of similar names are similar: the teacher answers
for a row with how its class stands to the others of the episode, as in the semantic label embeddings of
Frome et al. (2013), "DeViSE". It sees no image, and reads the row's label, so it teaches and is not judged.
"""

import re
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_metakd.arguments.ranges import check_positive
from lightning_metakd.data.sources.source import Source
from lightning_metakd.data.sources.text_rows import encode, tokens
from lightning_metakd.models.model import Model
from lightning_metakd.models.prototypes import metric_logits
from lightning_metakd.teachers.heads import Classifier, Head
from lightning_metakd.types import Batch, Output, Vocabulary


class NameHead(Head):
    """Cosine of the embedding of a row's class name to those of the episode's classes.

    The teacher's model is a SentenceEncoder, or any other that reads texts. What it answers is a soft label:
    the class itself is always the likeliest.

    Args:
        scale: factor on the cosines, > 0. It is no matter of calibration, as the answers are never wrong.
    """

    needs_support = False
    reads_names = True
    embedding: Tensor

    def __init__(self, scale: float = 10.0) -> None:
        check_positive("scale", scale, "for instance 10")
        super().__init__(scale)
        self.register_buffer("embedding", torch.empty(0), persistent=False)

    def set_names(self, embedding: Float[Tensor, "c d"]) -> None:
        """Know the embedding of the name of each class of a source, by number."""
        self.embedding = embedding.to(self.scale)

    def rows(self, class_id: Int[Tensor, " n"]) -> Output:
        """What stands for the network's output of rows of these classes."""
        embedding = self.embedding[class_id]
        return Output(embedding[:, :0], embedding)

    def fit(self, support: Output, y: Tensor, classes: Tensor) -> Classifier:
        names = self.embedding[classes][None]
        return lambda output: metric_logits(output.embedding, names, "cosine")

    def held_out(
        self, support: Output, y: Tensor, classes: Tensor, other: Output
    ) -> Float[Tensor, "s c"]:
        return self.fit(support, y, classes)(support)  # it was fitted on none of these rows


class NameTable:
    """What a network says of the names of a source's classes, in the place of stored answers for its rows.

    Args:
        model: the network, which reads texts.
        head: of the same teacher; it is told the embedding of each name.
        source: whose classes and rows.
    """

    def __init__(self, model: Model, head: Head, source: Source) -> None:
        self.tokens, self.head, self.source = name_inputs(model, source), head, source
        with torch.no_grad():
            head.set_names(model(self.tokens).embedding)

    def __call__(self, batch: Batch) -> Output:
        """What stands for the network's output for the rows of a batch."""
        classes = self.source.all_rows().y[batch.index.cpu()]
        return self.head.rows(classes.to(batch.index.device))

    def other_view(self, batch: Batch) -> Output:
        """The same: a class has one name."""
        return self(batch)

    def typical_inputs(self) -> Tensor:
        """What the network reads."""
        return self.tokens


def readable(names: Sequence[str], source: str) -> list[str]:
    """Names of classes as words.

    Raises:
        ValueError: if one has no words, or they differ in numbers alone.
    """
    words = [" ".join(re.findall(r"[^\W\d_]{2,}", name)) for name in names]
    empty = [name for name, text in zip(names, words, strict=True) if not text]
    alike = [text for text, n in Counter(words).items() if n > 1]
    if empty or alike:
        fault = (
            f"{empty[0]!r} has no word"
            if empty
            else f"{sum(text == alike[0] for text in words)} are called {alike[0]!r} but for numbers"
        )
        raise ValueError(
            f"head=NameHead reads the names of the {len(names)} classes of {source}, and of these {fault}; "
            "rename the classes to what they are, or leave the teacher out."
        )
    return [re.sub(r"[\W_]+", " ", name).strip() for name in names]


def name_inputs(model: Model, source: Source) -> Int[Tensor, "c l"]:
    """What a network reads of the names of a source's classes.

    Raises:
        ValueError: if it reads no texts, or the names say nothing.
    """
    names = readable(source.all_rows().class_names, source.name)
    if not isinstance(reading := model.reading, Vocabulary):
        raise ValueError(
            f"head=NameHead reads names of classes, and the teacher's model {type(model).__name__} "
            "reads no texts; give it a SentenceEncoder."
        )
    device = next(model.parameters()).device
    return tokens(encode(names, reading.max_tokens).to(device), reading)

"""The contract of a source of texts: its rows are bytes, and a network reads their tokens."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_metakd.arguments.ranges import check_integer, check_number
from lightning_metakd.data.sources import text_rows
from lightning_metakd.data.sources.class_splits import class_ids, rows_of
from lightning_metakd.data.sources.source import Labelled, Source
from lightning_metakd.models.reading import LONGEST, MOST_TOKENS, in_words
from lightning_metakd.types import Normalisation, Reading, Vocabulary


class LabelledTexts(NamedTuple):
    """All texts of a source with the name of the class of each."""

    texts: list[str]
    labels: list[str]


class TextSource(Source):
    """Texts in named classes. A member reads them, and divides their classes.

    Args:
        n_tokens: most tokens of the vocabulary, which is made of the texts of split `train` alone.
        max_tokens: of a text, as many words at most; what is longer is cut.
        word_dropout: part of the words that an augmented view leaves out.
    """

    def __init__(self, n_tokens: int, max_tokens: int, word_dropout: float) -> None:
        hint = "256 single bytes, one that fills up, and whole words"
        check_integer("data.source.n_tokens", n_tokens, text_rows.FEWEST_TOKENS, MOST_TOKENS, hint)
        check_integer("data.source.max_tokens", max_tokens, 1, LONGEST)
        check_number("data.source.word_dropout", word_dropout, 0.0, 1.0)
        self.n_tokens, self.max_tokens, self.word_dropout = n_tokens, max_tokens, word_dropout

    row_title = "text"

    @abstractmethod
    def read_texts(self) -> LabelledTexts:
        """All texts, in the order of their rows."""

    @property
    @abstractmethod
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split."""

    @cached_property
    def examples(self) -> LabelledTexts:
        """All texts, and how many of them are cut is said."""
        examples = self.read_texts()
        cut = sum(len(text.split()) > self.max_tokens for text in examples.texts)
        if cut:
            rank_zero_warn(
                f"{cut} of the {len(examples.texts)} texts of {self.name} have more than {self.max_tokens} "
                "words and are cut there; raise data.source.max_tokens to read more."
            )
        return examples

    def all_rows(self) -> Labelled:
        """All rows; `x` holds the bytes of each text."""
        return self._all_rows

    @cached_property
    def _all_rows(self) -> Labelled:
        texts, labels = self.examples
        names = tuple(sorted(set(labels)))
        ids = {name: i for i, name in enumerate(names)}
        y = torch.tensor([ids[label] for label in labels])
        return Labelled(text_rows.encode(texts, self.max_tokens), y, torch.arange(len(y)), names)

    def select(self, split: str) -> Int[Tensor, " n"]:
        labelled = self.all_rows()
        return rows_of(labelled.y, class_ids(split, self.split_names, labelled.class_names))

    @property
    def row_names(self) -> Sequence[str]:
        """The texts."""
        return self.examples.texts

    def read(self, views: UInt8[Tensor, "n bytes"], reading: Vocabulary) -> Int[Tensor, "n l"]:
        return text_rows.tokens(views, reading)

    def augmented(
        self, x: UInt8[Tensor, "n bytes"], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> UInt8[Tensor, "n bytes"]:
        """Each text without some of its words."""
        return text_rows.drop_words(x, index, view, self.word_dropout)

    def augmented_inputs(
        self, inputs: Int[Tensor, "n l"], index: Int[Tensor, " n"], view: Int[Tensor, " n"]
    ) -> Int[Tensor, "n l"]:
        """Each text without some of its tokens."""
        return text_rows.drop_tokens(inputs, index, view, self.word_dropout)

    def check_live(self, student: Reading | None, teacher: Reading | None) -> None:
        """Raise where teacher and student have other tokens."""
        if student != teacher:
            raise ValueError(
                f"the teacher is asked live and reads other tokens of {self.name} than the student; set the "
                "teacher's cache to true (it then reads the texts themselves), and take a loss that reads "
                "no layers."
            )

    def reading(self, reading: Reading | None) -> Vocabulary:
        if reading is None:
            return self.vocabulary
        if isinstance(reading, Normalisation):
            raise ValueError(
                f"{in_words(reading)}, by which a network was trained, are of images, and rows of "
                f"{self.name} are texts; take another network, or another data.source."
            )
        return reading

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the texts of split `train`.

        Raises:
            ValueError: if there are none.
        """
        rows = self.rows("train").tolist()
        if not rows:
            raise ValueError(
                f"split 'train' of {self.name} has no texts to make a vocabulary of; name a checkpoint, "
                "which knows that of its training."
            )
        texts = text_rows.decode(self.all_rows().x[rows])
        return text_rows.trained_vocabulary(texts, self.n_tokens, self.max_tokens)

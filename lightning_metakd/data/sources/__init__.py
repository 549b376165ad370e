"""Sources of labelled rows, and the files that keep decoded images and teachers' outputs."""

from lightning_metakd.data.sources.cifar import CIFAR100, CIFARFS, FC100, ByClass
from lightning_metakd.data.sources.cifar_by_class import CIFAR100ByClass
from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.data.sources.folder import Folder
from lightning_metakd.data.sources.intents import Intents
from lightning_metakd.data.sources.label_noise import LabelNoise
from lightning_metakd.data.sources.mixture import Mixture
from lightning_metakd.data.sources.omniglot import Omniglot
from lightning_metakd.data.sources.source import Source
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.data.sources.text_source import TextSource
from lightning_metakd.data.sources.texts import Texts

__all__ = [
    "CIFAR100",
    "CIFARFS",
    "FC100",
    "ByClass",
    "CIFAR100ByClass",
    "Embedded",
    "Folder",
    "Intents",
    "LabelNoise",
    "Mixture",
    "Omniglot",
    "Source",
    "Synthetic",
    "TextSource",
    "Texts",
]

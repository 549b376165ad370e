"""Networks: a body and a head."""

from lightning_metakd.models.bag_of_embeddings import BagOfEmbeddings
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.efficientnet_lite0 import EfficientNetLite0
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.model import Model
from lightning_metakd.models.preprocessed import Preprocessed
from lightning_metakd.models.resnet import ResNet
from lightning_metakd.models.resnet12 import ResNet12
from lightning_metakd.models.sentence_encoder import SentenceEncoder
from lightning_metakd.models.text_transformer import TextTransformer
from lightning_metakd.models.vit import ViT
from lightning_metakd.models.wide_resnet import WideResNet
from lightning_metakd.models.wrapped import Wrapped

__all__ = [
    "MLP",
    "BagOfEmbeddings",
    "Conv4",
    "EfficientNetLite0",
    "Model",
    "Preprocessed",
    "ResNet",
    "ResNet12",
    "SentenceEncoder",
    "TextTransformer",
    "ViT",
    "WideResNet",
    "Wrapped",
]

"""Losses of a student: published ones, sums of several, and the coefficients in them."""

from lightning_metakd.losses.adapters import Adapters, Pointwise
from lightning_metakd.losses.attention_transfer import AttentionTransfer
from lightning_metakd.losses.born_again import BornAgain
from lightning_metakd.losses.calibration import likeliest_scale
from lightning_metakd.losses.coefficient import (
    Coefficient,
    Constant,
    Learned,
    LearnedPerClass,
    Scheduled,
)
from lightning_metakd.losses.crd import CRD
from lightning_metakd.losses.dist import DIST
from lightning_metakd.losses.dkd import DKD
from lightning_metakd.losses.example_rows import example_rows
from lightning_metakd.losses.fitnets import FitNets
from lightning_metakd.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.known_classes import KnownClasses
from lightning_metakd.losses.layer_weights import LayerWeights
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.learning_to_reweight import LearningToReweight
from lightning_metakd.losses.logit_matching import LogitMatching
from lightning_metakd.losses.logit_standardisation import LogitStandardisation
from lightning_metakd.losses.loss import CalibratedCrossEntropy, CrossEntropy, Loss, WeightedSum
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.losses.meta_weight_net import MetaWeightNet
from lightning_metakd.losses.multi_teacher import (
    Choice,
    Heaviest,
    MostAccurate,
    MultiTeacher,
    OfTeacher,
    Weights,
)
from lightning_metakd.losses.pkt import PKT
from lightning_metakd.losses.prototype_matching import PrototypeMatching
from lightning_metakd.losses.rkd import RKD
from lightning_metakd.losses.rules import Confidence, KnownLabel, Posterior, Threshold
from lightning_metakd.losses.similarity_preserving import SimilarityPreserving
from lightning_metakd.losses.symmetric_cross_entropy import SymmetricCrossEntropy
from lightning_metakd.losses.what_where import (
    ChannelWeights,
    LearnedPerChannel,
    LearnedPerMap,
    UniformChannels,
    WhatWhere,
)

__all__ = [
    "CRD",
    "DIST",
    "DKD",
    "PKT",
    "RKD",
    "Adapters",
    "AttentionTransfer",
    "BornAgain",
    "CalibratedCrossEntropy",
    "ChannelWeights",
    "Choice",
    "Coefficient",
    "Confidence",
    "Constant",
    "CrossEntropy",
    "FitNets",
    "GeneralisedCrossEntropy",
    "Heaviest",
    "Hinton",
    "KnownClasses",
    "KnownLabel",
    "LayerWeights",
    "Learned",
    "LearnedPerChannel",
    "LearnedPerClass",
    "LearnedPerMap",
    "LearnedPerSample",
    "LearningToReweight",
    "LiteralMatchGate",
    "LogitMatching",
    "LogitStandardisation",
    "Loss",
    "MatchGate",
    "MetaWeightNet",
    "MostAccurate",
    "MultiTeacher",
    "OfTeacher",
    "Pointwise",
    "Posterior",
    "PrototypeMatching",
    "Scheduled",
    "SimilarityPreserving",
    "SymmetricCrossEntropy",
    "Threshold",
    "UniformChannels",
    "WeightedSum",
    "Weights",
    "WhatWhere",
    "example_rows",
    "likeliest_scale",
]

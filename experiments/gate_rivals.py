"""Rivals of a learned gate: constants, rules, losses made for wrong labels, searches, and the gate itself."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

EVERY_STEP = ("--model.strategy_training.every=1",)
PLAIN_QUIZ = ("--model.strategy_training.quiz=CrossEntropy",)
SLOWLY = ("--model.strategy_training.lr=0.005",)
AS_PUBLISHED = (*SLOWLY, *EVERY_STEP, *PLAIN_QUIZ)
ANEW = (
    "--model.strategy_training.lr=1",
    "--model.optimisation.strategy_optimiser=sgd",
    *PLAIN_QUIZ,
)
CALIBRATED = ("--model.strategy_training.quiz=CalibratedCrossEntropy",)
SHUFFLED = ("--model.strategy_training.control=shuffled",)
FINAL = ("--model.strategy_training.control=final_constant",)


def part(class_path: str, **settings: Any) -> dict[str, Any]:
    """A component of the configuration."""
    return {"class_path": class_path, "init_args": settings}


class Row(NamedTuple):
    """A way to train a student.

    Args:
        loss: as a configuration has it.
        words: further words of the command.
        carried: row of other classes whose strategy it takes, as it is: of perceptrons and the base classes,
            beside as many wrong labels.
        learned_at: percent of wrong labels beside which that row is learned instead, by students and teachers
            of its own kind and on the validation classes; 0 has none.
        pool: its teachers, by what their labels are like.
    """

    loss: dict[str, Any]
    words: tuple[str, ...] = ()
    carried: str = ""
    learned_at: int = 0
    pool: tuple[str, ...] = ()


SAME, MIXED_UP = "same", "mixed up"
"""Labels of a teacher: those of the student, or those of the class before."""


def gated(
    gate: Any,
    words: tuple[str, ...] = (),
    *,
    temperature: Any = 4.0,
    carried: str = "",
    alone: dict[str, Any] | None = None,
) -> Row:
    """A row by Match-Gate; its label term is cross-entropy where none is given."""
    parts = {"gate": gate, "match": part("Hinton", temperature=temperature)}
    loss = part("MatchGate", **parts, **({"alone": alone} if alone else {}))
    return Row(loss, words, carried, pool=(SAME,))


ALONE = {
    "alone": Row(part("CrossEntropy")),
    "label smoothing": Row(part("CrossEntropy", label_smoothing=0.1)),
}
WEIGHED = {
    name: Row(
        part(
            "WeightedSum",
            terms={"labels": part("CrossEntropy")},
            weights={"labels": part(weight)},
        ),
        words,
    )
    for name, weight, words in (
        ("Meta-Weight-Net", "MetaWeightNet", AS_PUBLISHED),
        ("learning to reweight", "LearningToReweight", ANEW),
    )
}
ROBUST = {
    f"{name}, lr {lr}": Row(loss, (f"--model.optimisation.lr={lr}",))
    for lr in ("0.05", "0.2")
    for name, loss in {
        "GCE 0.4": part("GeneralisedCrossEntropy", q=0.4),
        "GCE 0.7": part("GeneralisedCrossEntropy", q=0.7),
        "SCE": part("SymmetricCrossEntropy", alpha=6.0, beta=0.1),
    }.items()
}
"""Losses made for wrong labels; where they are small for most rows they want longer steps."""
DEFAULT = "constant 0.5"
CONSTANTS = {f"constant {gate:g}": gated(gate) for gate in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)}
TRUSTED = {
    f"constant {gate:g}, trusted rows thrice": gated(gate, ("--data.quiz_in_training=3",))
    for gate in (0.1, 0.5, 0.9)
}
"""The rows that judge, used plainly: they train, and choose nothing."""
RULES = {"rule, threshold 0.1": gated(part("Threshold", threshold=0.1))}
OWN_RULE = {
    "rule by the student, threshold 0.1": gated(part("Threshold", threshold=0.1, judge="student"))
}
PER_ROW = "learned per row"
LEARNED = {
    "learned scalar": gated(part("Learned")),
    PER_ROW: gated(part("LearnedPerSample")),
}
"""By no option: the defaults are the claim."""
BY_PLAIN_QUIZ = f"{PER_ROW}, quiz by cross-entropy"
BY_SHUFFLED = f"{PER_ROW}, shuffled quiz"
VARIANTS = {
    f"{PER_ROW}, every step": gated(part("LearnedPerSample"), EVERY_STEP),
    BY_PLAIN_QUIZ: gated(part("LearnedPerSample"), PLAIN_QUIZ),
    f"{PER_ROW}, calibrated quiz": gated(part("LearnedPerSample"), CALIBRATED),
    BY_SHUFFLED: gated(part("LearnedPerSample"), SHUFFLED),
}
OVER_ROBUST = {
    f"{PER_ROW}, over GCE 0.4, lr 0.2": gated(
        part("LearnedPerSample"),
        ("--model.optimisation.lr=0.2",),
        alone=part("GeneralisedCrossEntropy", q=0.4),
    )
}
"""Whether a gate adds to the loss for wrong labels that is the best in most regimes."""
STARTS = {
    f"{PER_ROW}, from gate {gate} and temperature {temperature:g}": gated(
        part("LearnedPerSample", init=gate), temperature=part("Learned", init=temperature)
    )
    for gate, temperature in ((0.05, 16.0), (0.95, 1.0))
}
"""A gate and a temperature that begin where they do harm."""
CARRIED = {
    "carried": gated(part("LearnedPerSample"), carried=PER_ROW),
    "carried, its mean alone": gated(part("LearnedPerSample"), FINAL, carried=PER_ROW),
    "carried, shuffled quiz": gated(part("LearnedPerSample"), carried=BY_SHUFFLED),
}
LEARNED_AT = 40
"""Percent of wrong labels beside which a gate of images is learned: who takes it does not know their own."""
CARRIED_ALIKE = {
    name.replace("carried", "carried from images"): row._replace(learned_at=LEARNED_AT)
    for name, row in CARRIED.items()
}
CARRIED_AT_20 = {
    "carried from images, learned at a rate of 20": CARRIED["carried"]._replace(learned_at=20)
}


def drawn(n: int) -> dict[str, Row]:
    """A random search: gates of (0, 1) and temperatures of 1 to 16, on a scale of logarithms."""
    generator = random.Random(0)
    pairs = [(round(generator.random(), 2), round(16 ** generator.random(), 2)) for _ in range(n)]
    return {
        f"random {i}, gate {gate:g}, temperature {temperature:g}": gated(
            gate, temperature=temperature
        )
        for i, (gate, temperature) in enumerate(pairs)
    }


SEARCHED = drawn(8)
MANY = ("labels", "hinton", "rkd", "similarity", "dkd", "mixed up")
"""Terms of a loss of many coefficients; the last follows a teacher whose classes are mixed up."""


def many(weights: Mapping[str, Any], temperature: Any, words: tuple[str, ...] = ()) -> Row:
    """A row of all terms by two teachers."""
    soft = part("Hinton", temperature=temperature)
    of_teacher = {
        "hinton": (0, soft),
        "rkd": (0, part("RKD", distance=25.0, angle=0.0)),
        "similarity": (0, part("SimilarityPreserving", weights=50.0)),
        "dkd": (0, part("DKD")),
        "mixed up": (1, soft),
    }
    terms = {"labels": part("CrossEntropy")}
    terms |= {
        name: part("OfTeacher", teacher=k, loss=loss) for name, (k, loss) in of_teacher.items()
    }
    loss = part("WeightedSum", terms=terms, weights=dict(weights))
    return Row(loss, words, pool=(SAME, MIXED_UP))


def drawn_many(n: int) -> dict[str, Row]:
    """A random search over all coefficients, on a scale of logarithms: weights of 0.02 to 2."""
    generator = random.Random(0)
    draws = [
        ({name: round(0.02 * 100 ** generator.random(), 3) for name in MANY}, generator.random())
        for _ in range(n)
    ]
    return {f"many, random {i}": many(w, round(16**t, 2)) for i, (w, t) in enumerate(draws)}


ALL_LEARNED = dict.fromkeys(MANY, part("Learned", init=1 / len(MANY)))
OF_MANY = {
    "many, uniform": many(dict.fromkeys(MANY, 1 / len(MANY)), 4.0),
    "many, uniform, twice as large": many(dict.fromkeys(MANY, 2 / len(MANY)), 4.0),
    "many, uniform, four times as large": many(dict.fromkeys(MANY, 4 / len(MANY)), 4.0),
    "many, halves": many(dict.fromkeys(MANY, 0.0) | {"labels": 0.5, "hinton": 0.5}, 4.0),
    "many, learned": many(ALL_LEARNED, part("Learned", init=4.0)),
    "many, learned, at 0.005 a step": many(ALL_LEARNED, part("Learned", init=4.0), SLOWLY),
    "many, learned, shuffled quiz": many(ALL_LEARNED, part("Learned", init=4.0), SHUFFLED),
}
"""Larger weights are larger steps, which weights that are learned may also find."""
SEARCHED_MANY = drawn_many(64)
ROWS = {
    **ALONE,
    **WEIGHED,
    **ROBUST,
    **CONSTANTS,
    **TRUSTED,
    **RULES,
    **OWN_RULE,
    **LEARNED,
    **VARIANTS,
    **OVER_ROBUST,
    **STARTS,
    **CARRIED,
    **CARRIED_ALIKE,
    **CARRIED_AT_20,
    **SEARCHED,
    **OF_MANY,
    **SEARCHED_MANY,
}

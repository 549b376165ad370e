"""What a student has of its teachers' weights: to start from, to keep as they are, or to hold in common.

Modules are named by path, as layers are, and the head is `head`. What is kept or held in common is no part
of what the student trains: neither the outer loop nor an inner loop or a pilot step moves it. Weights of the
student's own may be kept as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_choice, check_integer
from lightning_metakd.models.model import Model, listed
from lightning_metakd.models.weights import shapes
from lightning_metakd.teachers.teacher_pool import TeacherPool

How = Literal["copy", "freeze", "tie"]


@dataclass(frozen=True)
class Share:
    """Modules of a student that take their weights from a teacher.

    Args:
        modules: module path in the student -> module path in the teacher, of the same shapes.
        teacher: its number in model.teachers, from 0.
        how: `copy` copies weights and norm statistics when training begins; `freeze` also keeps them;
            `tie` has student and teacher hold the same weights, which move if the teacher learns.
    """

    modules: dict[str, str]
    teacher: int = 0
    how: How = "copy"

    def __post_init__(self) -> None:
        check_choice("how", self.how, get_args(How))
        check_integer("teacher", self.teacher, 0, hint="a place in model.teachers counted from 0")


class Pair(NamedTuple):
    """A module of the student and that of a teacher whose weights it takes.

    Attributes:
        name: of both, for messages.
    """

    name: str
    how: How
    student_module: nn.Module
    teacher_module: nn.Module


BODY = "body"
"""Stands for all of a student but its head."""


class Sharing:
    """All that a student takes of its teachers, and what of its own it keeps.

    Args:
        shares: what it takes.
        student: the network.
        teachers: of none, it takes nothing and keeps what it has.
        freeze: paths of modules that stay as they begin.

    Attributes:
        shares: as they were given.
        kept: paths from the student itself of the modules that it does not train.

    Raises:
        ValueError: if a module or a teacher does not exist, two modules differ in shape, one is taken twice,
            or nothing is left to train.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        student: Model,
        teachers: TeacherPool,
        freeze: Sequence[str] = (),
    ) -> None:
        self.shares = shares
        self.pairs = [p for share in shares if teachers for p in pairs_of(share, student, teachers)]
        check_disjoint(self.pairs)
        kept = [
            module_at(student, path, "the student")
            for share in shares
            for path in share.modules
            if share.how != "copy"
        ]
        kept += [module for path in freeze for module in own_modules(student, path)]
        self.kept = [path for path, m in student.named_modules() if any(m is k for k in kept)]
        for module in kept:
            module.requires_grad_(False).eval()
        if BODY in freeze:
            of_head = {id(p) for p in student.head.parameters()}
            for p in student.parameters():
                p.requires_grad_(p.requires_grad and id(p) in of_head)
        if kept and not any(p.requires_grad for p in student.parameters()):
            raise ValueError(
                f"share and freeze keep all of the student ({listed(self.kept)}) and leave nothing to train; "
                "leave a module out, or take how=copy."
            )

    def untie(self) -> None:
        """Give the student weights of its own, so that what is loaded into it does not reach a teacher."""
        for pair in self.of("tie"):
            hold(
                pair.student_module,
                {n: alone(p) for n, p in pair.student_module.named_parameters()},
            )

    def apply(self) -> None:
        """Copy weights, over which a checkpoint may be loaded, and join."""
        for pair in self.pairs:
            pair.student_module.load_state_dict(pair.teacher_module.state_dict())
        self.join()

    def join(self) -> None:
        """Have student and teacher hold the same weights, where they are to."""
        for pair in self.of("tie"):
            hold(pair.student_module, dict(pair.teacher_module.named_parameters()))

    def of(self, how: How) -> list[Pair]:
        """The pairs of one kind."""
        return [pair for pair in self.pairs if pair.how == how]

    def fixed(self, student: Model) -> frozenset[str]:
        """Names of the student's parameters that do not move, and of buffers beside those that are kept."""
        frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
        prefixes = tuple(f"{path}." for path in self.kept)
        return frozenset(
            frozen | {n for n in student.state_dict() if n.startswith(prefixes or "\0")}
        )

    def freeze_modes(self, student: Model) -> None:
        """Put what is kept into evaluation mode."""
        for path in self.kept:
            student.get_submodule(path).eval()


def own_modules(student: Model, path: str) -> list[nn.Module]:
    """The module of a path, or the smallest ones of all beside the head."""
    if path != BODY:
        return [module_at(student, path, "the student", "freeze")]
    of_head = {id(module) for module in student.head.modules()}
    smallest = [module for module in student.modules() if not list(module.children())]
    return [module for module in smallest if id(module) not in of_head]


def pairs_of(share: Share, student: Model, teachers: TeacherPool) -> list[Pair]:
    """The modules which a share names, found and checked."""
    k = share.teacher
    if not 0 <= k < len(teachers):
        raise ValueError(
            f"teacher={k} of share is not among the {len(teachers)} of model.teachers; they are counted "
            "from 0."
        )
    pairs, network = [], list(teachers)[k].model
    for student_path, teacher_path in share.modules.items():
        pair = Pair(
            f"{student_path!r} of the student and {teacher_path!r} of teachers[{k}]",
            share.how,
            module_at(student, student_path, "the student"),
            module_at(network, teacher_path, f"teachers[{k}]"),
        )
        check_pair(pair)
        pairs.append(pair)
    return pairs


def module_at(model: Model, path: str, who: str, argument: str = "share") -> nn.Module:
    """The module at a path, as layers are named; an error names the argument."""
    modules = {name: m for name, m in model.tapped.named_modules() if name} | {"head": model.head}
    if path not in modules:
        raise ValueError(
            f"{argument} names {path!r}, which is no module of {who}; choose from {listed(list(modules))}."
        )
    return modules[path]


def check_pair(pair: Pair) -> None:
    """Raise where two modules have not the same weights by name and shape, or none at all."""
    student_shapes, teacher_shapes = (
        shapes(m.state_dict()) for m in (pair.student_module, pair.teacher_module)
    )
    if not student_shapes and not teacher_shapes:
        raise ValueError(f"share names {pair.name}, which have no weights; leave them out.")
    faults = [
        f"{name} is {student_shapes.get(name, 'missing')} and {teacher_shapes.get(name, 'missing')}"
        for name in {**student_shapes, **teacher_shapes}
        if student_shapes.get(name) != teacher_shapes.get(name)
    ]
    if faults:
        raise ValueError(
            f"share names {pair.name}, which differ: {'; '.join(faults[:3])}; name modules of the same "
            "shapes, or build the student as wide as the teacher there."
        )


def check_disjoint(pairs: Sequence[Pair]) -> None:
    """Raise where a weight of the student would come from two places, or hold in common with two others."""
    claimed: set[nn.Parameter] = set()
    for pair in pairs:
        taken = set(pair.student_module.parameters())
        taken |= set(pair.teacher_module.parameters()) if pair.how == "tie" else set()
        if taken & claimed:
            raise ValueError(
                f"share names {pair.name}, of which a part is named already; name it once."
            )
        claimed |= taken


def hold(module: nn.Module, params: Mapping[str, nn.Parameter]) -> None:
    """Let a module hold these very parameters."""
    for name, p in params.items():
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, p)


def alone(p: Tensor) -> nn.Parameter:
    """A frozen parameter of the same values."""
    return nn.Parameter(p.detach().clone(), requires_grad=False)

"""Several teachers beside one another."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_metakd.teachers.teacher import Teacher


class TeacherPool(nn.ModuleList):
    """Teachers, in the order of the configuration."""

    def __iter__(self) -> Iterator[Teacher]:
        return super().__iter__()  # type: ignore[return-value]


@contextmanager
def without_counting(teachers: Iterable[Any]) -> Iterator[None]:
    """What teachers are asked inside is not for training, and does not count."""
    before = [(teacher, teacher.forwards) for teacher in teachers]
    yield
    for teacher, forwards in before:
        teacher.forwards = forwards


def first_that_sees(teachers: Iterable[Teacher]) -> int | None:
    """Place of the first teacher that reads rows and not their labels; None where there is none."""
    return next((k for k, teacher in enumerate(teachers) if not teacher.head.reads_names), None)

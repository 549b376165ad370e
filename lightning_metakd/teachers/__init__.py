"""Teachers: a network, usually frozen, and a head that makes it answer for an episode's classes."""

from lightning_metakd.teachers.adapted_head import AdaptedHead
from lightning_metakd.teachers.heads import Head, PrototypeHead, SlicedHead
from lightning_metakd.teachers.name_head import NameHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import TeacherPool, first_that_sees, without_counting

__all__ = [
    "AdaptedHead",
    "Head",
    "NameHead",
    "PrototypeHead",
    "SlicedHead",
    "Teacher",
    "TeacherPool",
    "first_that_sees",
    "without_counting",
]

"""Teachers: a network, usually frozen, and a head that makes it answer for an episode's classes."""

from lightning_metakd.teachers.adapted_head import AdaptedHead
from lightning_metakd.teachers.heads import Head, PrototypeHead, SlicedHead
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import TeacherPool, without_counting

__all__ = [
    "AdaptedHead",
    "Head",
    "PrototypeHead",
    "SlicedHead",
    "Teacher",
    "TeacherPool",
    "without_counting",
]

"""Teachers: a network, usually frozen, and a head that makes it answer for an episode's classes."""

from lightning_metakd.teachers.heads import Head, PrototypeHead, SlicedHead
from lightning_metakd.teachers.teacher import Teacher, TeacherPool

__all__ = ["Head", "PrototypeHead", "SlicedHead", "Teacher", "TeacherPool"]

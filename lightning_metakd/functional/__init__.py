"""Pure functions of parameters: binding a network, descending, and differentiating a root."""

from lightning_metakd.functional.bind import bind

__all__ = ["bind"]

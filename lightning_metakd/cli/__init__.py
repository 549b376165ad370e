"""The command `metakd`, and the Trainer that writes what it writes."""

from lightning_metakd.cli.trainer import Trainer

__all__ = ["Trainer"]

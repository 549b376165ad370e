"""The command `metakd`, and the Trainer that writes what it writes."""

import lazy_loader

# `metakd report` and `metakd list` import no torch, which the Trainer does
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Accuracies with their uncertainty, calibration, forgetting and cost."""

import lazy_loader

# intervals are of numbers alone, and wanted where torch is not
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

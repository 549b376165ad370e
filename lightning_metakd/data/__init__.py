"""Episodes and batches of a source."""

from lightning_metakd.data.datamodules import EpisodicData, SourceData, SupervisedData

__all__ = ["EpisodicData", "SourceData", "SupervisedData"]

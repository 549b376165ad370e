"""Episodes and batches of a source."""

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.stream_data import StreamData
from lightning_metakd.data.supervised_data import SupervisedData

__all__ = ["EpisodicData", "SourceData", "StreamData", "SupervisedData"]

import csv

import pytest
import torch
from lightning import LightningDataModule

from lightning_metakd.callbacks.predictions import Predictions
from tests.callbacks.tiny import Tiny, batches, trainer
from tests.tiny import Blobs


class Named(Blobs):
    row_names = tuple(f"blobs/{i:03d}.png" for i in range(240))


class Rows(LightningDataModule):
    def __init__(self, source):
        super().__init__()
        self.source = source

    def predict_dataloader(self):
        return batches(1)


class Asked(Tiny):
    def predict_step(self, batch, index):
        probs, rows = torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([30, 2])
        return {"classes": torch.tensor([2, 0]), "index": rows, "y": rows * 0, "probs": probs}


@pytest.mark.parametrize("source", [Named(), Blobs()], ids=["files", "no files"])
def test_predictions_name_the_files_and_their_run_is_the_latest(source, tmp_path, capsys):
    runner = trainer(tmp_path, Predictions())
    runner.predict(Asked(), datamodule=Rows(source), return_predictions=False)
    run = tmp_path / "tiny" / "latest"
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == [2, 30]
    named = ["blobs/002.png", "blobs/030.png"]
    assert [row["file"] for row in rows] == (named if source.row_names else ["", ""])
    assert [(row["class"], row["predicted"]) for row in rows] == [("blob 2", "blob 2")] * 2
    assert "2 predictions written to" in capsys.readouterr().out


def test_a_rehearsal_is_no_latest_run(tmp_path):
    runner = trainer(tmp_path, Predictions(), fast_dev_run=True)
    runner.predict(Asked(), datamodule=Rows(Blobs()), return_predictions=False)
    assert not (tmp_path / "tiny").exists()

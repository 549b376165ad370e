"""The smallest module that keeps what callbacks expect of a recipe."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call, grad
from torch.utils.data import DataLoader, TensorDataset

from lightning_metakd.loggers.run_logger import RunLogger
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.coefficient_log import CoefficientLog
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.training_record import TrainingRecord
from lightning_metakd.types import Output


class Linear(Model):
    def __init__(self, width=4, n_classes=3):
        super().__init__()
        self.weight = nn.Linear(5, width, bias=False)
        self.head = nn.Linear(width, n_classes)

    def body(self, x) -> tuple:
        return self.weight(x), {}


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.forwards = Linear(width=8).requires_grad_(False), 0
        self.checkpoint = None

    def typical_inputs(self):
        return None


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(()))


class Tiny(LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.student, self.loss = Linear(), Gate()
        self.teachers = nn.ModuleList([Teacher()])
        self.initialisation = Initialisation()
        self.record, self.coefficient_log = TrainingRecord(), CoefficientLog(self)

    @property
    def eval_student(self):
        return self.student

    def configure_optimizers(self):
        return torch.optim.SGD([*self.student.parameters(), *self.loss.parameters()], lr=0.1)

    def batch_loss(self, batch):
        x, y = batch
        answer: Output = self.student(x)
        gate = self.loss.raw.sigmoid()
        loss = nn.functional.cross_entropy(answer.logits, y)
        return gate * loss + (1 - gate) * answer.logits.square().mean()

    def training_step(self, batch, index):
        optimiser = self.optimizers()
        optimiser.zero_grad()
        self.manual_backward(self.batch_loss(batch))
        optimiser.step()
        self.coefficient_log.values = {"gate_mean": float(self.loss.raw.detach().sigmoid())}
        self.log("train/outer_loss", 0.5)

    def test_step(self, batch, index):
        self.student(batch[0])

    validation_step = test_step

    def on_test_epoch_end(self):
        self.record.episode_rows = {
            "id": torch.arange(3),
            "accuracy": torch.tensor([0.1, 0.2, 1 / 3], dtype=torch.float64),
        }
        self.record.result.update(
            accuracy=0.5, ci95=0.01, episodes=3, teacher_accuracy=torch.tensor(0.75)
        )

    def on_validation_epoch_end(self):
        self.on_test_epoch_end()
        self.log("val/student_accuracy", 0.625)

    def save_strategy(self, path: Path):
        save_file(self.loss.state_dict(), path)

    def adaptation(self):
        x = torch.ones(7, 5)

        def loss(params):
            return functional_call(self.student, params, (x,)).logits.square().mean()

        return lambda: grad(loss)(dict(self.student.named_parameters()))


def batches(n=6):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2 * n, 5, generator=generator), torch.arange(2 * n) % 3
    return DataLoader(TensorDataset(x, y), batch_size=2)


def trainer(folder, *callbacks, **options):
    return Trainer(
        **{
            "logger": RunLogger("tiny", str(folder)),
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "log_every_n_steps": 1,
            "callbacks": list(callbacks),
            **options,
        }
    )

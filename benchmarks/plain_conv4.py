"""The four-block network in plain PyTorch, as any other library would be given it."""

import torch
from torch import Tensor, nn

from lightning_metakd.models.conv4 import Conv4


class PlainConv4(nn.Module):
    """Four blocks of convolution, batch norm, ReLU and max-pool, and a linear layer.

    Args:
        student: the network of this package whose size and weights it takes; with n_classes=0 it has no
            linear layer either.
    """

    def __init__(self, student: Conv4) -> None:
        super().__init__()
        width = student.width
        blocks = [
            nn.Sequential(
                nn.Conv2d(width if i else 3, width, 3, padding=1),
                nn.BatchNorm2d(width, track_running_stats=False),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for i in range(4)
        ]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        classes = len(student.head.bias) if len(student.head.state_dict()) else 0
        self.head = nn.Linear(student.embedding_width, classes) if classes else nn.Identity()
        self.to(next(student.parameters()))
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.copy_(student.get_parameter(its_name(name)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def its_name(name: str) -> str:
    """What this package calls a parameter of the plain network."""
    if name.startswith("head."):
        return name
    _, block, layer, kind = name.split(".")
    return f"{('convs', 'norms')[int(layer)]}.{block}.{kind}"

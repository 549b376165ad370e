"""Which rows a student would remember of the classes that it has learned."""

import torch

from lightning_metakd.data.memory import herd
from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.data.stream_data import StreamData
from lightning_metakd.models.model import Model


def herded_rows(student: Model, data: StreamData) -> list[int]:
    """Rows of all classes so far, as many of each as of every other, ascending."""
    candidates = torch.cat([data.parts[part] for part in ("train", "memory", "quiz")]).sort().values
    classes, y = data.train_classes().tolist(), data.source.all_rows().y
    most = len(candidates) if data.memory_size is None else data.memory_size // len(classes)
    training = student.training
    cache = OutputCache(student.eval(), "", data.source)
    cache.fill(candidates, view=-1)
    student.train(training)
    rows: list[int] = []
    for c in classes:
        of_class = candidates[y[candidates] == c]
        embedding = cache.look_up(of_class, torch.full_like(of_class, -1)).embedding
        rows += of_class[herd(embedding.cpu(), most)].tolist()
    return sorted(rows)

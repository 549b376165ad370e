"""Which tensors of a checkpoint a recipe loads."""

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_metakd.models.model import listed
from lightning_metakd.models.weights import shapes
from lightning_metakd.recipes.episode_objective import TEACHERS

log = logging.getLogger(__name__)


def state_to_load(
    state: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    frozen: Sequence[str],
    teaches: bool,
    has_adapters: bool,
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, completed by what a recipe has from other files.

    Args:
        state: of the checkpoint.
        present: of the recipe.
        frozen: names of the networks of frozen teachers, which come from their own files.
        teaches: whether the teaching loss is computed; otherwise strategy and teachers stay as they are.
        has_adapters: whether the recipe has adapters; otherwise those of the checkpoint are left out.
    """
    loaded = {name: present[name] for name in frozen} | dict(state)
    if not teaches:
        loaded = without_teaching(loaded, present)
    return {n: t for n, t in loaded.items() if has_adapters or not n.startswith("adapters.")}


def without_teaching(
    state: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of a checkpoint with the strategy and the teachers that are present, for a stage without.

    Args:
        state: of the checkpoint.
        present: of the recipe.
    """
    of_teaching = ("loss.", TEACHERS)
    kept = {name: t for name, t in present.items() if name.startswith(of_teaching)}
    kept_shapes = shapes(kept)
    unused = [
        name
        for name, shape in shapes(state).items()
        if name.startswith(of_teaching) and kept_shapes.get(name) != shape
    ]
    if unused:
        log.warning(
            f"The student is judged alone; of its checkpoint, {listed(unused, 3)} is not used."
        )
    return kept | {name: t for name, t in state.items() if name not in unused}

"""One training procedure each: MetaKD and SingleTask."""

from lightning_metakd.recipes.episodic import Episodic
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.outer_update import OuterLoop
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.recipes.single_task import SingleTask

__all__ = ["Episodic", "MetaKD", "OuterLoop", "Recipe", "SingleTask"]

"""One training procedure each: MetaKD and SingleTask, and the groups of their settings."""

from lightning_metakd.recipes.execution import Execution
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.mixing import Mixing
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.recipes.rotation import Rotation
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.recipes.strategy_training import StrategyTraining

__all__ = [
    "Execution",
    "Initialisation",
    "MetaKD",
    "Mixing",
    "Optimisation",
    "Recipe",
    "Rotation",
    "SingleTask",
    "StrategyTraining",
]

from .cli.student import Student as Student
from .cli.student import distil as distil
from .cli.student import load as load
from .cli.trainer import Trainer as Trainer
from .data.episodic_data import EpisodicData as EpisodicData
from .data.supervised_data import SupervisedData as SupervisedData
from .recipes.meta_kd import MetaKD as MetaKD
from .recipes.single_task import SingleTask as SingleTask
from .teachers.teacher import Teacher as Teacher

__version__: str

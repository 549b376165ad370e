"""The command `metakd classify`: an exported student needs no torch, a checkpoint brings it."""

import importlib
from pathlib import Path

from lightning_metakd.classify.classify import AnyStudent, sort_rows
from lightning_metakd.classify.onnx_student import OnnxStudent

CHECKPOINT = ".ckpt"


def classify(
    model: Path,
    query: Path,
    support: Path | None = None,
    output: Path = Path("classified"),
    teacher: Path | None = None,
) -> None:
    """Classify the pictures in a folder, or the texts in a file, by a student.

    Args:
        model: file that metakd export wrote as onnx or onnx-int8, or a run's checkpoint (.ckpt).
        query: folder of pictures, of any size and format; where they lie in folders that are called as the
            classes, the student is judged. Of texts: a .csv or .tsv file with a column text (and label, by
            which the student is judged), or a .txt file with one in each line.
        support: folder with a folder for each class, and a few pictures in it; of texts a table with the
            columns text and label. A classifier needs none.
        output: folder for predictions.csv, and for contact_sheet.png and confusion.png.
        teacher: another such file, whose answers stand beside those of the model.
    """
    paths = {"model": model} if teacher is None else {"model": model, "teacher": teacher}
    students = {argument: opened(path, argument) for argument, path in paths.items()}
    sort_rows(students, paths, query, support, output)


def opened(path: Path, argument: str) -> AnyStudent:
    """The student of a file.

    Args:
        argument: that names the file, for messages.
    """
    if path.suffix != CHECKPOINT:
        return OnnxStudent(path, argument=argument)
    module = importlib.import_module("lightning_metakd.cli.checkpoint_student")
    student: AnyStudent = module.CheckpointStudent(path, argument)
    return student

"""The main table: a teacher, a start, four students from it for the same time, and their tests.

Each student is tested by nearest class mean, once more after fine-tuning on the support rows, and, where a
teacher taught it, with the teacher's help in fine-tuning.
"""

from experiments.plan import Run, fit, images, initial_checkpoint, loss, report, strategy_of
from experiments.runner import main

PLAIN, ALONE = "single_task_cifar_fs_plain", "meta_kd_cifar_fs_5w5s_alone"
CONSTANT, GATE = "meta_kd_cifar_fs_5w5s_constant", "meta_kd_cifar_fs_5w5s_match_gate"
CONFIGS = {
    "evaluate": "meta_kd_cifar_fs_5w5s_evaluate",
    "fine_tune": "meta_kd_cifar_fs_5w5s_fine_tune",
    "with_teacher": "meta_kd_cifar_fs_5w5s_fine_tune",
}
LOSSES = {CONSTANT: "match_gate_constant", GATE: "match_gate_per_sample"}


def helped(student: str) -> tuple[str, ...]:
    """How the teacher helps a student in a test: as it taught it."""
    words = ("--model.teacher_at_test=true", loss(LOSSES[student]))
    return (*words, strategy_of(f"runs/{GATE}/latest")) if student == GATE else words


def plan(data: str) -> list[Run]:
    """The trainings, twenty tests and their table."""
    teacher = fit("single_task_cifar_fs_teacher", data)
    start = fit("single_task_cifar_fs_start", data)
    students = [fit(PLAIN, data, start), fit(ALONE, data, start)]
    students += [fit(name, data, teacher, start) for name in LOSSES]
    tests = []
    for shots in (1, 5):
        for student in students:
            for way, config in CONFIGS.items():
                if way == "with_teacher" and student.folder not in LOSSES:
                    continue
                options = (
                    *(initial_checkpoint(student), f"--data.k_shot={shots}", images(data)),
                    *(helped(student.folder) if way == "with_teacher" else ()),
                )
                folder = f"table/{way}_{shots}shot/{student.folder}"
                tests.append(Run("test", folder, config, options, (teacher, student)))
    return [report("table", "cifar-fs", "cifar-fs", tests, f"--baseline={PLAIN}")]


if __name__ == "__main__":
    main(plan)

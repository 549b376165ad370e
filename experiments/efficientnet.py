"""A teacher that was trained on ImageNet and reads images in its own way, and the student that it taught."""

from experiments.plan import Run, fit, images, report
from experiments.runner import main

NAME = "meta_kd_cifar_fs_5w5s_efficientnet"


def plan(data: str) -> list[Run]:
    """The training, two tests and their table."""
    student = fit(NAME, data)
    tests = [
        Run(
            *("test", f"{NAME}.test/{shots}shot/{NAME}", NAME),
            (f"--ckpt_path={student.mark}", f"--data.k_shot={shots}", images(data)),
            (student,),
        )
        for shots in (1, 5)
    ]
    return [report(f"{NAME}.test", "efficientnet", "cifar-fs-efficientnet", tests)]


if __name__ == "__main__":
    main(plan)

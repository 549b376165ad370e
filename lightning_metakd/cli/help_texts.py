"""What `metakd --help` and `metakd fit --help` say, without building a parser of every class."""

from collections.abc import Mapping

FIT_OPTIONS = {
    "--config": "FILE  what is trained (`metakd list`); later ones go over earlier ones",
    "--data.source": "CLASS|FILE  where examples are from: Folder, Texts, CIFARFS, ...",
    "--data.source.path": "FOLDER|FILE  of your own; of published data --data.source.root",
    "--data.k_shot": "N  examples of a class in a support set",
    "--model.student": "CLASS|FILE  a network: Conv4, torchvision.models.resnet18, yours.Net",
    "--model.learner": "CLASS|FILE  how it adapts to a task: ProtoNet, MAML, Ridge, ...",
    "--model.loss": "CLASS|FILE  how teachers teach: Hinton, MatchGate, ...",
    "--model.optimisation.lr": "X  learning rate of the outer steps",
    "--trainer.max_time": "DD:HH:MM:SS  how long",
    "--experiment": "NAME  of the run's folder under runs/",
    "--seed_everything": "N  of the training",
    "--resume": "go on where it was stopped",
}
"""The options of fit that people use, with what follows each."""


def overview(with_trainer: Mapping[str, str], others: Mapping[str, tuple[str, str, str]]) -> str:
    """The commands in a line each."""
    summaries = {**with_trainer, **{name: command[-1] for name, command in others.items()}}
    return "\n".join(
        [
            "metakd: meta-learning applied to knowledge distillation",
            "",
            "usage: metakd COMMAND [options]",
            "",
            "commands:",
            *(f"  {name:<12}{summary}" for name, summary in summaries.items()),
            "",
            "`metakd COMMAND --help` says the options of a command, `metakd --version` the version.",
        ]
    )


def fit_help() -> str:
    """What people use of fit, and where the rest is."""
    return "\n".join(
        [
            "usage: metakd fit --config FILE [--config FILE ...] [--NAME=VALUE ...]",
            "",
            "  metakd fit --config configs/experiment/meta_kd_synthetic_5w5s.yaml --data.k_shot=1",
            "",
            *(f"  {name:<25}{text}" for name, text in FIT_OPTIONS.items()),
            "",
            "`metakd fit --help-all` lists all options, --model.learner.help=MAML those of a class, and",
            "--print_config behind all others the settings of a run.",
        ]
    )

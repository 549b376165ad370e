"""Small students of texts, alone and taught by a sentence encoder of forty times their size, on new intents.

Every row is tested at its best checkpoint by validation, as a student alone knows its 50 or 25 intents by
heart after a hundred steps.
"""

from experiments.plan import Run, report, shipped
from experiments.runner import main

NAME = "meta_kd_clinc150"
BAG, TRANSFORMER = "bag_of_embeddings", "text_transformer"
DATA_SETS = ("clinc150", "banking77")
SEEDS = {BAG: (0, 1, 2), TRANSFORMER: (0,)}
WAYS, SHOTS = (5, 10), (1, 5)
ALONE = ("--model.teachers=null", "--model.loss=null")
LEARNED = "taught_by_a_learned_gate"
ROWS = {BAG: ("alone", "taught", LEARNED), TRANSFORMER: ("alone", "taught")}


def options_of(row: str) -> tuple[str, ...]:
    """What a row changes, as it is called from the working directory."""
    if row == LEARNED:
        loss = shipped("configs/loss/match_gate.yaml")
        return f"--model.loss={loss}", "--model.strategy_training.lr=0.02"
    return ALONE if row == "alone" else ()


def component(kind: str, name: str) -> str:
    """The option that names the file of a source or a student."""
    argument = {"source": "data.source", "model": "model.student"}[kind]
    return f"--{argument}={shipped(f'configs/{kind}/{name}.yaml')}"


def training(data_set: str, student: str, row: str, seed: int, data: str) -> Run:
    """One training of a row."""
    options = (
        *(f"--seed_everything={seed}", f"--data.seed={seed}"),
        *(component("source", data_set), component("model", student)),
        *(f"--data.source.root={data}", *options_of(row)),
    )
    return Run("fit", f"intents/fit/{data_set}/seed{seed}/{student}_{row}", NAME, options)


def test(student: Run, data_set: str, model: str, n_way: int, shots: int, data: str) -> Run:
    """A test of the best checkpoint, beside the teacher."""
    best = student.mark.with_name("best.ckpt")
    options = (
        *(component("source", data_set), component("model", model)),
        *(f"--data.source.root={data}", f"--model.initialisation.checkpoint={best}"),
        *(f"--data.n_way={n_way}", f"--data.k_shot={shots}", "--data.n_episodes=600"),
    )
    folder = student.folder.replace("/fit/", f"/test/{n_way}way{shots}shot/")
    return Run("test", folder, NAME, options, (student,))


def plan(data: str) -> list[Run]:
    """The trainings, their tests and the table."""
    trainings = {
        (data_set, student): [
            training(data_set, student, row, seed, data)
            for row in ROWS[student]
            for seed in SEEDS[student]
        ]
        for data_set in DATA_SETS
        for student in SEEDS
    }
    tests = [
        test(run, data_set, student, n_way, shots, data)
        for (data_set, student), runs in trainings.items()
        for run in runs
        for n_way in WAYS
        for shots in SHOTS
    ]
    return [report("intents/test", "intents", "intents", tests, f"--baseline={BAG}_alone")]


if __name__ == "__main__":
    main(plan)

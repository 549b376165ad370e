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


def test(
    student: Run, data_set: str, options: tuple[str, ...], n_way: int, shots: int, data: str
) -> Run:
    """A test of the best checkpoint on intents of a data set."""
    best = student.mark.with_name("best.ckpt")
    words = (
        *(component("source", data_set), *options),
        *(f"--data.source.root={data}", f"--model.initialisation.checkpoint={best}"),
        *(f"--data.n_way={n_way}", f"--data.k_shot={shots}", "--data.n_episodes=600"),
    )
    _, _, trained_on, rest = student.folder.split("/", 3)
    where = data_set if data_set == trained_on else f"{trained_on}_to_{data_set}"
    return Run("test", f"intents/{where}/{n_way}way{shots}shot/{rest}", NAME, words, (student,))


def table(trained_on: str, data_set: str, data: str) -> Run:
    """The table of students that were trained on one data set, and are tested on one.

    The teacher is asked in one row, which is enough to show what it knows.
    """
    tests = []
    for student, seeds in SEEDS.items():
        if trained_on != data_set and student != BAG:
            continue
        for row in ROWS[student]:
            for seed in seeds:
                run = training(trained_on, student, row, seed, data)
                with_teacher = (student, row, seed) == (BAG, "taught", 0)
                teachers = () if with_teacher else ("--model.teachers=null",)
                options = (component("model", student), "--model.loss=null", *teachers)
                tests += [
                    test(run, data_set, options, n_way, shots, data)
                    for n_way in WAYS
                    for shots in SHOTS
                ]
    where = data_set if data_set == trained_on else f"{trained_on}_to_{data_set}"
    section = f"intents-{where.replace('_', '-')}"
    return report(f"intents/{where}", "intents", section, tests, f"--baseline={BAG}_alone")


def plan(data: str) -> list[Run]:
    """Both data sets, and the students of the first on the second, a domain that they have not seen."""
    first, second = DATA_SETS
    return [table(first, first, data), table(second, second, data), table(first, second, data)]


if __name__ == "__main__":
    main(plan)

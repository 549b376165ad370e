"""Examples to look at: episodes with their answers, and the rows that a coefficient tells apart most."""

from html import escape

import numpy as np

from lightning_metakd.reporting.answers import Answered, title_of
from lightning_metakd.reporting.page_elements import breakable, paragraphs, picture_html
from lightning_metakd.storage.answer_table import (
    EPISODES,
    EXTREMES,
    QUERY_ROWS,
    SUPPORT_ROWS,
    AnswerTable,
)


def row_html(table: AnswerTable, row: int, words: str) -> str:
    """The picture or the text of a row."""
    if row in table.pictures:
        return picture_html(table.pictures[row], words)
    return f"<q>{escape(table.texts.get(row, f'row {row}'))}</q>"


def kind_of(table: AnswerTable) -> str:
    """How rows are laid out: texts need more room than pictures."""
    return "" if len(table.pictures) >= len(table.texts) else " texts"


def answer_html(who: str, name: str, right: bool) -> str:
    """An answer, with a sign that needs no colour."""
    sign, word = ("✓", "right") if right else ("✗", "wrong")
    return (
        f'<span class="{word}"><span aria-hidden="true">{sign}</span> {who}: {breakable(name)}'
        f'<span class="hidden"> ({word})</span></span>'
    )


def query_html(answers: Answered, i: int) -> str:
    """A query row with its class and what student and teacher answered."""
    table, columns = answers.table, answers.table.columns
    y, names = columns["label"][i], table.classes
    replies = [
        answer_html(who, names[columns[key][i]], bool(columns[key][i] == y))
        for who, key in (("student", "predicted"), ("teacher", "teacher_predicted"))
        if columns[key][i] >= 0
    ]
    picture = row_html(table, int(columns["row"][i]), names[y])
    kind = "wrong" if columns["predicted"][i] != y else "right"
    return (
        f'<li class="{kind}">{picture}<span class="class">{breakable(names[y])}</span>'
        f"{''.join(replies)}</li>"
    )


def with_content(table: AnswerTable, places: np.ndarray) -> list[int]:
    """Those of some query rows that have a picture or a text."""
    rows = table.columns["row"]
    return [
        i for i in places.tolist() if int(rows[i]) in table.pictures or int(rows[i]) in table.texts
    ]


def episodes_html(answers: Answered) -> str:
    """Ten episodes, or some rows where there are none."""
    table = answers.table
    episode = table.columns["episode"]
    numbers = sorted({int(e) for e in episode if e < EPISODES})
    parts: list[str] = []
    for number in numbers[:EPISODES]:
        places = np.flatnonzero(episode == number)
        shown = with_content(table, places)[: QUERY_ROWS if number >= 0 else 3 * QUERY_ROWS]
        if not shown:
            continue
        columns = table.columns
        right = columns["predicted"][places] == columns["label"][places]
        title = f"Episode {number}" if number >= 0 else "Some rows"
        summary = f"{title}: {right.sum()} of {len(right)} right"
        if answers.has_teacher:
            teacher = columns["teacher_predicted"][places] == columns["label"][places]
            summary += f", teacher {teacher.sum()}"
        queries = "".join(query_html(answers, i) for i in shown)
        opened = " open" if not parts else ""
        parts.append(
            f"<details{opened}><summary>{summary}</summary>{support_html(table, number)}"
            f'<h5>Asked</h5><ul class="rows{kind_of(table)}">{queries}</ul></details>'
        )
    if not parts:
        return ""
    return f"<h3>{escape(title_of(answers))}</h3>{''.join(parts)}"


def support_html(table: AnswerTable, number: int) -> str:
    """What the student adapted to in an episode."""
    places = np.flatnonzero(table.support["episode"] == number)[:SUPPORT_ROWS]
    pairs = [(int(table.support["row"][i]), table.support["label"][i]) for i in places]
    rows = "".join(
        f"<li>{row_html(table, row, table.classes[y])}"
        f'<span class="class">{breakable(table.classes[y])}</span></li>'
        for row, y in sorted(pairs, key=lambda pair: int(pair[1]))
    )
    return (
        f'<h5>Learned from</h5><ul class="rows support{kind_of(table)}">{rows}</ul>' if rows else ""
    )


def extremes_html(answers: Answered) -> str:
    """The rows with the lowest and the highest value of each coefficient that differs from row to row."""
    table, parts = answers.table, []
    for name, values in table.coefficients.items():
        there = np.flatnonzero(~np.isnan(values))
        order = there[np.argsort(values[there], kind="stable")]
        _, first = np.unique(
            table.columns["row"][order], return_index=True
        )  # a row may be in several
        order = order[np.sort(first)]
        lowest = with_content(table, order[:EXTREMES])
        highest = with_content(table, order[::-1][:EXTREMES])
        if not lowest:
            continue
        low, high = ends_of(name)
        parts.append(f"<h4>{escape(name)} of single rows</h4>")
        parts.append(paragraphs(spread(values[there])))
        for title, shown in ((low, lowest), (high, highest)):
            rows = "".join(
                query_html(answers, i).replace(
                    "</li>", f'<span class="value">{escape(name)} {values[i]:.3f}</span></li>'
                )
                for i in shown
            )
            parts.append(f'<h5>{escape(title)}</h5><ul class="rows{kind_of(table)}">{rows}</ul>')
    return f"<h3>{escape(title_of(answers))}</h3>{''.join(parts)}" if parts else ""


def ends_of(name: str) -> tuple[str, str]:
    """What the lowest and the highest values of a coefficient mean."""
    if name.rpartition(".")[2] == "gate":
        return "Trusted most to the teacher (lowest gate)", "Trusted least (highest gate)"
    return f"Lowest {name}", f"Highest {name}"


def spread(values: np.ndarray) -> str:
    """How far a coefficient differs from row to row."""
    low, middle, high = np.quantile(values.astype(float), [0, 0.5, 1])
    return (
        f"Of {len(values)} rows of test classes the lowest value is {low:.3f}, the median {middle:.3f}, "
        f"the highest {high:.3f}."
    )

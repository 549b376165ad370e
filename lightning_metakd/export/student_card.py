"""The card of an exported student: what it is, what it costs, what it is worth, and what it was made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_metakd.reporting.markdown import count, markdown, percent

LICENCES = {
    "CIFAR": "CIFAR-100 (Krizhevsky 2009) is published without a licence text.",
    "FC100": "CIFAR-100 (Krizhevsky 2009) is published without a licence text.",
    "Omniglot": "Omniglot (Lake 2015) is published under the MIT licence.",
    "CLINC150": "CLINC150 (Larson 2019) is published under CC BY 3.0.",
    "BANKING77": "BANKING77 (Casanueva 2020) is published under CC BY 4.0.",
    "Synthetic": "Its images are drawn by this program.",
}
"""What is known of the terms of sources, by the beginning of their names."""
TITLES = {
    "torch": "torch",
    "onnx": "onnxruntime, fp32",
    "onnx-int8": "onnxruntime, int8",
    "torch-export": "torch.export",
    "safetensors": "safetensors",
    "executorch": "executorch",
}
PURPOSE = {
    "adaptable": "It takes support rows, their labels and query rows, and returns logits, for any number of "
    "classes and of rows of each.",
    "classifier": "It takes rows and returns logits of fixed classes.",
    "features": "It takes rows and returns embeddings.",
}
ALONE = {
    "executorch": "The file takes one row and returns its embedding; the head that adapts is not in it.",
    "safetensors": "The file has weights alone.",
}
"""What a file is that has no head which adapts, by its format."""


def licence_notes(source: str, external_data: Sequence[str]) -> list[str]:
    """What is known of the terms under which data may be used."""
    notes = [note for name, note in LICENCES.items() if source.startswith(name)]
    notes = notes or [
        f"The terms of {source} are those of whoever published it; none are on record here."
    ]
    notes += [f"It was trained with {name}, whose terms hold too." for name in external_data]
    return ["The program that trained it is licensed under Apache-2.0.", *notes]


def as_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    parts = [
        f"# Student card: {card['name']}",
        purpose(card),
        "## What it is worth",
        accuracies(card),
    ]
    parts += [parity_note(card), "## What it costs", costs(card)]
    if card["latency"]:
        parts += [latency_table(card), latency_note(card)]
    parts += ["## What it was made of", bullets(made_of(card)), "## Files", file_table(card)]
    parts += ["## Licences", bullets(card["licences"])]
    return "\n\n".join(parts) + "\n"


def purpose(card: Mapping[str, Any]) -> str:
    """What the student does, in a few sentences."""
    who = "The student" if card["format"] in ALONE else "It"
    head = f" {who} adapts by {card['head']}." if card["head"] else ""
    what = f"pictures of {card['size']}x{card['size']} pixels"
    what = {"RGB": f"colour {what}", "L": f"grey {what}"}.get(card["mode"], "texts")
    end = (
        " Pixels go in as they are, 0 to 255, and are normalised inside."
        if what != "texts" and card["format"] != "safetensors"
        else ""
    )
    does = PURPOSE[card["kind"]]
    if card["format"] == "safetensors" or card["kind"] == "adaptable":
        does = ALONE.get(card["format"], does)
    return f"A {card['network']} for {what}, exported as {card['format']}. {does}{head}{end}"


def accuracies(card: Mapping[str, Any]) -> str:
    """Accuracy and calibration of each form, and of the teacher."""
    rows = []
    for name, result in card["results"].items():
        rows.append(
            {
                "student in": TITLES[name],
                "accuracy": percent(result.get("accuracy"), result.get("ci95")),
                "calibration error": percent(result.get("ece"), None),
                "same class as torch": percent(result.get("agreement"), None),
                "largest difference": "-"
                if "largest_difference" not in result
                else f"{result['largest_difference']:.1e}",
            }
        )
    if (teacher := card["teacher"]).get("accuracy") is not None:
        numbers = {"accuracy": percent(teacher["accuracy"], teacher["ci95"])}
        rows.append(dict.fromkeys(rows[0], "-") | {"student in": "its teacher"} | numbers)
    return markdown(rows)


def parity_note(card: Mapping[str, Any]) -> str:
    """On what the student was judged."""
    where = card["judged_on"]
    if not any("accuracy" in result for result in card["results"].values()):
        return f"Embeddings of {where}; there are no logits to judge."
    return (
        f"In percent with the 95 % half-width, on {where}. Differences are of logits. Calibration error is "
        "the mean gap of confidence and accuracy over 15 bins."
    )


def costs(card: Mapping[str, Any]) -> str:
    """Parameters, multiply-adds and bytes, beside the teacher's."""
    columns = {"parameters": "params", "multiply-adds": "macs", "FLOPs": "flops"}
    rows = [
        {"": "student"} | {title: count(card["cost"].get(key)) for title, key in columns.items()}
    ]
    rows[0]["bytes of weights"] = count(card["cost"].get("bytes"))
    if card["teacher"].get("params") is not None:
        teacher = {title: count(card["teacher"].get(key)) for title, key in columns.items()}
        rows.append(
            {"": "its teacher", **teacher, "bytes of weights": count(card["teacher"]["bytes"])}
        )
    return markdown(rows)


def latency_table(card: Mapping[str, Any]) -> str:
    """Milliseconds for a batch in each form."""
    rows, title = [], f"{'texts' if card['mode'] == 'text' else 'pictures'} at once"
    for row in card["latency"]:
        times = {
            f"{TITLES[name]}": f"{cell['p50_ms']:.2f} / {cell['p95_ms']:.2f}"
            for name, cell in row.items()
            if name != "batch"
        }
        gain = row["torch"]["p50_ms"] / row["onnx"]["p50_ms"]
        rows.append({title: str(row["batch"]), **times, "times as fast": f"{gain:.2f}"})
    return markdown(rows)


def latency_note(card: Mapping[str, Any]) -> str:
    """What the milliseconds are of."""
    machine = card["machine"]
    return (
        "Milliseconds to embed a batch, median / 95th percentile; the columns take turns, pass by pass. "
        f"`times as fast` is onnxruntime in fp32 beside torch. {machine['device']}, {machine['threads']} "
        f"thread{'' if machine['threads'] == 1 else 's'}, on a machine that may do other things besides; "
        "`metakd export` measures anew."
    )


def made_of(card: Mapping[str, Any]) -> list[str]:
    """Recipe, seed, data, versions."""
    training = card["training"]
    facts = {
        "recipe": f"{training['recipe']}, loss {training['loss']}",
        "trained on": training["trained_on"],
        "external data": ", ".join(training["external_data"]) or "none",
        "seed": training["seed"],
        "steps": training["steps"],
        "begins from": training["begins_from"],
        "teachers": training["teachers"],
        "checkpoint (SHA-256)": training["checkpoint_sha256"],
        "made with": ", ".join(f"{name} {v}" for name, v in card["versions"].items() if v),
    }
    return [f"{name}: {value}" for name, value in facts.items() if value is not None]


def file_table(card: Mapping[str, Any]) -> str:
    """The files, their sizes and what they are."""
    rows = [
        {
            "file": f"`{name}`",
            "bytes": f"{about['bytes']:,}",
            "SHA-256 begins": about["sha256"][:12],
        }
        for name, about in card["files"].items()
    ]
    text = markdown(rows)
    sizes = {name: about["bytes"] for name, about in card["files"].items()}
    if {"student.onnx", "student.int8.onnx"} <= sizes.keys():
        part = sizes["student.int8.onnx"] / sizes["student.onnx"]
        text += f"\n\nThe file in eight bits has {part:.2f} of the bytes of the other."
    return text


def bullets(lines: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)

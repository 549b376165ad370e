"""The benchmarks measure what they say, on sizes where that takes seconds."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from benchmarks import data, gpu, scaling, steps
from benchmarks.contestants import Setting
from benchmarks.turns import KEEPING, compete, peak
from lightning_metakd.data.sources.synthetic import Synthetic

TRIED_OUT = ("--device=cpu", "--widths=4", "--meta_batches=1")
TINY = {"width": 4, "inner_steps": 2, "k_shot": 1, "n_query": 1}


def row(name, median_s, peak_mib=None, **settings):
    return {
        **{"algorithm": "anil", "name": name, "width": 32, "inner_steps": 5, "tasks": 4},
        **{"median_s": median_s, "min_s": median_s, "max_s": median_s, "first_s": 1.0},
        **{"peak_mib": peak_mib, **settings},
    }


def cell(table, name, column):
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    header = next(line for line in lines if line[0] in ("contestant", "data path"))
    return next(line for line in lines if line[0] == name)[header.index(column)]


@pytest.mark.slow
def test_contestants_take_turns_in_processes_of_their_own():
    names = ["lightning_metakd", "lightning_metakd, recomputed"]
    actual = compete(names, Setting("second order", **TINY), [1, 2], rounds=2, threads=1)
    assert [(r["name"], r["tasks"]) for r in actual] == [(n, t) for n in names for t in (1, 2)]
    for r in actual:
        assert 0 < r["min_s"] <= r["median_s"] <= r["max_s"] < r["first_s"] + 60
        assert (r["peak_mib"] is None) == (r["tasks"] == 2)


def held_by_a_step():
    kept = torch.ones(10 * 2**18)  # 10 MiB
    return peak(lambda: torch.ones(40 * 2**18).sum()), len(kept)


@pytest.mark.thorough
def test_memory_is_what_a_step_holds_beside_what_was_there():
    # in a process of its own, as benchmarks are: this one's allocator may hold free blocks
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        held, _ = pool.submit(held_by_a_step).result()
    assert 39 < held < 50


def test_a_contestant_is_compared_with_the_fastest_peer_as_its_users_have_it():
    rows = [
        row("learn2learn", 3.0, 10.0),
        row("higher", 2.0, 20.0),
        row(f"learn2learn{KEEPING}", 0.5, 1.0),
        row("lightning_metakd", 1.0, 5.0),
        row("torchopt", 0.1, algorithm="first order"),
    ]
    table = steps.table(rows)
    assert cell(table, "lightning_metakd", "times as fast") == "2.00"
    assert cell(table, "lightning_metakd", "of the peers' least") == "0.50"
    assert cell(table, "learn2learn", "times as fast") == "0.67"
    mine = row("lightning_metakd, compiled", 0.8, 4.0)
    (line,) = steps.summary([*rows, mine]).splitlines()[2:]
    actual = [text.strip() for text in line.strip("|").split("|")]
    alone, compiled = ["1000 ms", "2.00", "0.50"], ["800 ms", "2.50", "0.40"]
    assert actual[1:] == ["higher 2000 ms", *alone, *compiled, "1 s"]


def test_one_algorithm_measured_again_leaves_the_others(tmp_path, monkeypatch):
    result, page = tmp_path / "steps.json", tmp_path / "page.md"
    page.write_text("<!-- results:begin steps -->\n<!-- results:end -->\n")
    monkeypatch.setattr(
        steps,
        "measure",
        lambda algorithm, options: [row("lightning_metakd", 1, 2, algorithm=algorithm)],
    )
    for algorithm in ("anil", "protonet", "anil"):
        steps.main(["--algorithm", algorithm, f"--result={result}", f"--output={page}"])
    rows = json.loads(result.read_text())["rows"]
    assert [r["algorithm"] for r in rows] == ["protonet", "anil"]
    assert "**protonet**" in page.read_text()


def test_peers_are_given_the_same_pixels():
    source = Synthetic(per_class=4)
    pictures, rows = data.Pictures(source, "train"), source.rows("train")[:5]
    mine = source.inputs(source.all_rows().x[rows], rows, torch.full_like(rows, -1))
    theirs = torch.stack([pictures[i][0] for i in range(5)])
    torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-5)


def test_a_slope_is_the_power_with_which_a_time_grows():
    points = [{"size": n, "median_s": 3 * n**2, "peak_mib": 7.0} for n in (1, 2, 5)]
    assert scaling.slope(points, "median_s") == pytest.approx(2)
    assert scaling.slope(points, "peak_mib") == pytest.approx(0)


def test_a_floor_counts_the_convolutions_of_a_step(tmp_path):
    path = tmp_path / "steps.json"
    name = "lightning_metakd"
    both = [row(name, 0.5, algorithm="protonet"), row(name, 0.5, algorithm="second order")]
    path.write_text(json.dumps({"rows": both}))
    actual, nested = scaling.floors(path, 1)
    assert nested["flops"] > 3 * actual["flops"]
    forward = 2 * 9 * 32 * (3 * 32**2 + 32 * (16**2 + 8**2 + 4**2))  # multiply-adds twice, an image
    first = 2 * 9 * 32 * 3 * 32**2  # has no gradient of its input
    distances = 4 * 3 * 2 * 5 * (25 + 75) * 128  # a few products beside them, forward and backward
    assert abs(actual["flops"] - 4 * 100 * (3 * forward - first)) <= distances
    assert "protonet, width 32" in scaling.table({"curves": [dummy_curve()], "floors": [actual]})


def dummy_curve():
    points = [{"size": 1, "median_s": 1.0, "peak_mib": 1.0}]
    return {"curve": "tasks", "points": points, "time_slope": 1.0, "memory_slope": 0.0}


@pytest.mark.filterwarnings("ignore")
def test_the_script_for_a_gpu_runs_where_it_is_tried_out(tmp_path, monkeypatch):
    sample = gpu.ways
    monkeypatch.setitem(gpu.PEERS, "protonet", {})  # what they import would stay
    monkeypatch.setattr(  # types that are checked do not compile
        gpu, "ways", lambda *words: (way for way in sample(*words) if "compiled" not in way[0])
    )
    path = tmp_path / "gpu.json"
    options = [
        "--device",
        "cpu",
        "--algorithm",
        "protonet",
        "--widths",
        "4",
        "--meta_batches",
        "1",
        "--rounds",
        "1",
    ]
    gpu.main([*options, f"--result={path}"])
    times = {r["name"]: r["median_s"] for r in json.loads(path.read_text())["rows"]}
    names = ("one by one", "vmap", "vmap, bf16")
    assert all(times[f"lightning_metakd, {name}"] > 0 for name in names)


def test_what_does_not_fit_into_the_minutes_is_left_out(tmp_path, capsys):
    options = [
        "--device",
        "cpu",
        "--algorithm",
        "ridge",
        "--widths",
        "4",
        "--meta_batches",
        "1",
        "--minutes",
        "0",
    ]
    gpu.main([*options, f"--result={tmp_path / 'gpu.json'}"])
    assert "out of time" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no CUDA device is found; --device cpu" in capsys.readouterr().err

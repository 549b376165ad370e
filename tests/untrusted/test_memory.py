from pathlib import Path

import pytest

from tests.processes import pytest_apart


@pytest.mark.slow
def test_no_planted_file_takes_a_gigabyte(tmp_path):
    """`pytest -s` shows the most that one takes beyond the start, in a process that reads all of them."""
    peaks = tmp_path / "peaks"
    pytest_apart("-m", "not slow", str(Path(__file__).parent), METAKD_PEAKS=str(peaks))
    rows = [line.split(" ", 1) for line in peaks.read_text().splitlines()]
    most, name = max((int(size), name) for size, name in rows)
    print(
        f"\n{len(rows)} readings of planted files, at most {most / 1e6:.0f} MB beyond the start: {name}"
    )
    assert len(rows) > 60
    assert most < 1e9

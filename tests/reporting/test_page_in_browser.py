"""The page in a browser: every figure is drawn, nothing complains, and tables are sorted."""

import json
import re
import shutil
import subprocess

import pytest

from lightning_metakd.reporting.report import report
from tests.reporting.test_html_page import leave_everything

pytest.importorskip("plotly", reason="plotly is not installed")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]

PROBE = """
<script>
(() => {
  const report = {};
  const done = () => {
    const table = document.querySelector("table.sortable");
    const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
    const headers = [...table.tHead.rows[0].cells];
    const accuracy = headers.find((cell) => cell.textContent.startsWith("accuracy"));
    const press = (cell) => cell.querySelector("button").click();
    report.before = names();
    press(accuracy);
    report.descending = [accuracy.getAttribute("aria-sort"), names()];
    press(accuracy);
    report.ascending = [accuracy.getAttribute("aria-sort"), names()];
    press(headers[0]);
    report.byName = [headers[0].getAttribute("aria-sort"), accuracy.getAttribute("aria-sort"), names()];
    const figures = [...document.querySelectorAll("figure.plot")];
    report.figures = figures.length;
    report.drawn = figures.filter((f) => f.querySelector(".scatterlayer .trace, .heatmaplayer .hm")).length;
    report.titles = figures.flatMap((f) => [...f.querySelectorAll(".xtitle")].map((t) => t.textContent));
    report.stops = [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")].length;
    report.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const legend = document.querySelector("figure.plot .legend button");
    legend.click();
    report.hidden = legend.getAttribute("aria-pressed");
    const ink = () => document.querySelector(".xtick text").style.fill;
    const theme = document.getElementById("theme");
    const light = getComputedStyle(document.body).backgroundColor;
    theme.click(); theme.click();
    setTimeout(() => {
      report.themes = [light, getComputedStyle(document.body).backgroundColor, ink()];
      const result = document.createElement("pre");
      result.id = "probe";
      result.textContent = JSON.stringify(report);
      document.body.append(result);
    }, 500);
  };
  const wait = () => (document.documentElement.dataset.ready ? done() : setTimeout(wait, 50));
  wait();
})();
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    leave_everything(folder)
    report(folder, "maml", html=folder / "report.html")
    text = (folder / "report.html").read_text()
    assert len(text.encode()) <= 6_000_000
    start, end, rest = text.rpartition("</body>")
    (folder / "probed.html").write_text(f"{start}{PROBE}{end}{rest}")
    return folder / "probed.html"


def opened(page, width):
    """(what the probe says, what the browser writes to its log)."""
    words = [
        *(
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--v=0",
        ),
        *(f"--window-size={width},900", "--virtual-time-budget=20000", "--dump-dom"),
        f"--user-data-dir={page.parent / f'profile{width}'}",
        page.as_uri(),
    ]
    process = subprocess.run(words, capture_output=True, text=True, timeout=250, check=False)
    message = re.search(r'<pre id="probe">(.*?)</pre>', process.stdout, re.S)
    assert message, process.stderr[-2000:]
    return json.loads(message.group(1)), process.stderr


@pytest.mark.parametrize("width", [1280, 500])  # a window of Chromium is no narrower
def test_the_page_works(page, width):
    probe, log = opened(page, width)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert probe["drawn"] == probe["figures"] == 9
    assert {"training step", "parameters", "probability of the answer (%)"} <= {*probe["titles"]}
    order = probe["descending"][1]
    assert probe["descending"] == ["descending", ["kd", "shown", "maml"]]
    assert probe["ascending"] == ["ascending", order[::-1]]
    assert probe["byName"] == ["ascending", "none", ["kd", "maml", "shown"]]
    assert probe["stops"] >= 20
    assert probe["hidden"] == "false"
    assert probe["wide"] == 0
    light, dark, ink = probe["themes"]
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 28)")
    assert ink == "rgb(232, 234, 237)"

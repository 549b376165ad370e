"use strict";
(() => {
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

  // --- figures -----------------------------------------------------------------------------------

  const axes = (layout) => Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));

  function themed(layout) {
    const changes = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      "font.color": colour("--ink"),
      "hoverlabel.bgcolor": colour("--page"),
      "hoverlabel.bordercolor": colour("--line"),
      "hoverlabel.font.color": colour("--ink"),
    };
    for (const key of axes(layout)) {
      changes[key + ".gridcolor"] = colour("--grid");
      changes[key + ".zerolinecolor"] = colour("--grid");
      changes[key + ".linecolor"] = colour("--line");
    }
    return changes;
  }

  function swatch(trace) {
    const line = trace.line || {};
    const marker = trace.marker || {};
    const stroke = line.color || marker.color || "#888";
    const dash = { dash: "5 3", dot: "2 3" }[line.dash] || "";
    const points = !trace.mode || trace.mode.includes("markers");
    const lines = trace.mode && trace.mode.includes("lines");
    const [symbol, open] = (marker.symbol || "circle").split("-");
    const shape = { square: "M9 2h8v8h-8z", diamond: "M13 1l5 5-5 5-5-5z", cross: "M11 2h4v2h2v4h-2v2h-4v-2h-2v-4h2z" }[symbol];
    return (
      '<svg width="26" height="12" aria-hidden="true">' +
      (lines ? `<path d="M1 6H25" stroke="${stroke}" stroke-width="3" stroke-dasharray="${dash}"/>` : "") +
      (points ? `<path d="${shape || "M9 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0"}" fill="${open ? "none" : stroke}" stroke="${stroke}"/>` : "") +
      "</svg>"
    );
  }

  function legend(figure, canvas, traces) {
    const box = figure.querySelector(".legend");
    const named = traces.map((trace, i) => [trace, i]).filter(([trace]) => trace.name && trace.showlegend !== false);
    if (named.length < 2) return;
    for (const [trace, i] of named) {
      const group = trace.legendgroup;
      const members = group === undefined ? [i] : traces.flatMap((t, k) => (t.legendgroup === group ? [k] : []));
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.innerHTML = swatch(trace);
      button.append(trace.name);
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(shown));
        Plotly.restyle(canvas, { visible: shown }, members);
      });
      box.append(button);
    }
  }

  function narrow(traces, layout) {
    // names of many classes find room on a phone on one side alone, without the scale
    for (const trace of traces.filter((t) => t.type === "heatmap")) {
      trace.showscale = false;
      layout.xaxis.showticklabels = false;
      layout.xaxis.title.text = "answer, in the same order";
      layout.yaxis.tickfont = { size: 10 };
    }
  }

  const precise = matchMedia("(pointer: fine)").matches;

  async function draw(figure) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const canvas = figure.querySelector(".canvas");
    const traces = data.map((trace) => ({ ...trace, ...(trace.name ? { name: escaped(trace.name) } : {}) }));
    const whole = {
      ...structuredClone(layout),
      showlegend: false,
      dragmode: precise ? "zoom" : false, // a finger scrolls the page
      hovermode: "closest",
      margin: { l: 54, r: 14, t: 10, b: 46 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5 },
      hoverlabel: { align: "left", namelength: -1 },
    };
    for (const key of axes(whole)) Object.assign(whole[key], { ticks: "", linewidth: 1 });
    if (canvas.clientWidth < 480) narrow(traces, whole);
    await Plotly.newPlot(canvas, traces, whole, { responsive: true, displayModeBar: false, scrollZoom: false });
    await Plotly.relayout(canvas, themed(whole));
    legend(figure, canvas, data);
    canvas.dataset.drawn = "true";
  }

  const figures = [...document.querySelectorAll("figure.plot")];

  async function drawAll() {
    for (const figure of figures) {
      await draw(figure);
      await new Promise((resume) => setTimeout(resume));
    }
    root.dataset.ready = "true";
  }

  // --- themes ------------------------------------------------------------------------------------

  const themes = { auto: "as the system", light: "light", dark: "dark" };
  const button = document.getElementById("theme");

  function repaint() {
    for (const canvas of document.querySelectorAll('.canvas[data-drawn="true"]')) {
      Plotly.relayout(canvas, themed(canvas.layout));
    }
  }

  function choose(theme) {
    root.dataset.theme = theme;
    button.textContent = "Theme: " + themes[theme];
    repaint();
  }

  button.addEventListener("click", () => {
    const names = Object.keys(themes);
    choose(names[(names.indexOf(root.dataset.theme) + 1) % names.length]);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  const wanted = /theme=(light|dark)/.exec(location.hash);
  if (wanted) choose(wanted[1]);

  // --- tables ------------------------------------------------------------------------------------

  function value(row, column) {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  }

  function compare(a, b, column, numeric) {
    if (!numeric) return a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
    return value(a, column) - value(b, column);
  }

  function sort(table, header) {
    const column = header.cellIndex;
    const numeric = !header.classList.contains("t");
    const before = header.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const order = before === first ? second : first;
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", order);
    const rows = [...table.tBodies[0].rows];
    const missing = (row) => numeric && value(row, column) === null;
    const present = rows.filter((row) => !missing(row));
    present.sort((a, b) => (order === "ascending" ? 1 : -1) * compare(a, b, column, numeric));
    table.tBodies[0].append(...present, ...rows.filter(missing));
    fold(table);
  }

  function fold(table) {
    const more = table.parentElement.nextElementSibling;
    const folds = more && more.classList.contains("more") && !more.hidden;
    [...table.tBodies[0].rows].forEach((row, i) => row.classList.toggle("late", folds && i >= Number(more.dataset.rows)));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    fold(table);
    for (const header of table.tHead.rows[0].cells) {
      header.firstElementChild.addEventListener("click", () => sort(table, header));
    }
  }
  for (const more of document.querySelectorAll("button.more")) {
    more.addEventListener("click", () => {
      more.hidden = true;
      fold(more.previousElementSibling.firstElementChild);
    });
  }

  if (window.Plotly) drawAll();
})();

// The page that compares runs. A colour, a dash and a mark stand for a group: one run, or repeated seeds.

const GROUP_COLORS = ["front", "test", "budget", "reference", "stopped", "third-2"];
const DASHES = ["solid", "dash", "dot", "dashdot"],
  SYMBOLS = ["diamond", "circle", "square", "triangle-up", "star", "cross"];
const state = { theme: null, hypervolume: "trials", ...recall() };

const groupColor = (group) => color(GROUP_COLORS[group % GROUP_COLORS.length]);
const groupDash = (group) => DASHES[group % DASHES.length];

function start() {
  applyTheme(state.theme);
  replace(
    "summary",
    payload.comparable
      ? "All runs used the same data and split."
      : "These runs used different data: compare their accuracies with care.",
  );
  replace(
    "names",
    el("th", {}),
    payload.runs.map((run) => el("th", { scope: "col" }, run.name)),
  );
  replace(
    "results",
    payload.results.map(resultRow),
    payload.differences.length ? el("tr", { class: "head" }, el("th", {}, "Settings that differ")) : null,
    payload.differences.map((row) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, row.name),
        row.values.map((value) => el("td", { title: value }, value)),
      ),
    ),
  );
  byId("theme").addEventListener("click", () => {
    state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember(state);
    applyTheme(state.theme);
    drawPlots();
  });
  for (const button of document.querySelectorAll("[data-hypervolume]"))
    button.addEventListener("click", () => {
      state.hypervolume = button.dataset.hypervolume;
      remember(state);
      drawHypervolumes();
    });
  prefersDark.addEventListener("change", () => {
    applyTheme(state.theme);
    drawPlots();
  });
}

const WORDS = { share: (v) => v.toFixed(3), count: whole, duration, accuracy: (v) => percent(v, 2) };

function resultRow({ name, kind, values, best }) {
  const known = values.filter((value) => value != null);
  const target = best && Math[best === "most" ? "max" : "min"](...known);
  const differ = new Set(known).size > 1;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    values.map((value) =>
      el("td", { class: best && differ && value === target ? "best" : "" }, value == null ? "–" : WORDS[kind](value)),
    ),
  );
}

function drawPlots() {
  replace(
    "keys",
    payload.groups.map((group, i) =>
      el("li", {}, el("span", { class: "swatch", style: `background:${groupColor(i)}` }), " ", group.label),
    ),
  );
  drawFronts();
  drawHypervolumes();
  document.documentElement.dataset.drawn = "all";
}

function drawFronts() {
  const sizes = payload.runs.flatMap((run) => run.front.map((point) => point[0]));
  const traces = payload.runs.map((run) => ({
    x: run.front.map((point) => point[0]),
    y: run.front.map((point) => fromError(point[1])),
    mode: "lines+markers",
    hoverinfo: "text",
    text: run.front.map(([size, accuracy, trial]) =>
      hover([
        run.name,
        `trial ${trial}: ${percent(accuracy, 2)}`,
        payload.size.key === "flash" ? `${bytes(size)} of flash` : `${short(size)} parameters (${bytes(4 * size)})`,
      ]),
    ),
    line: { shape: "hv", width: 1.75, color: groupColor(run.group), dash: groupDash(run.group) },
    marker: {
      size: 8,
      symbol: SYMBOLS[run.group % SYMBOLS.length],
      color: groupColor(run.group),
      line: { width: 1, color: color("panel") },
    },
  }));
  const [least, most] = sizes.length ? [Math.min(...sizes) / 1.2, Math.max(...sizes) * 1.2] : [100, 1000];
  draw("fronts", traces, {
    xaxis: logAxis(`${payload.size.words} (log scale)`, least, most),
    yaxis: errorAxis("validation accuracy (log scale of the error)"),
    margin: { l: 64, r: 14, t: 10, b: 44 },
  });
}

function drawHypervolumes() {
  const by = state.hypervolume;
  const times = payload.runs.flatMap((run) => run.finished.at(-1) ?? []);
  const [title, unit] = by === "time" ? searchTime(Math.max(...times, 0)) : ["trials that ended", 1];
  const traces = payload.groups.flatMap((group, i) =>
    group[by]
      ? bandTraces(group, i, unit)
      : payload.runs
          .filter((run) => run.group === i)
          .map((run) => {
            const x = by === "time" ? run.finished : run.hypervolume.map((_, n) => n + 1);
            return curveTrace(x, run.hypervolume, unit, run.name, i);
          }),
  );
  draw("hypervolume", traces, {
    xaxis: axis(title, { rangemode: "tozero" }),
    yaxis: axis("hypervolume"),
    hovermode: "x unified",
  });
  for (const button of document.querySelectorAll("[data-hypervolume]"))
    button.setAttribute("aria-pressed", button.dataset.hypervolume === by);
}

function curveTrace(x, y, unit, name, group) {
  return {
    x: x.map((value) => value / unit),
    y,
    name: plotText(name),
    mode: "lines",
    line: { shape: "hv", width: 2.25, color: groupColor(group), dash: groupDash(group) },
    hovertemplate: "%{y:.3f}",
  };
}

function bandTraces(group, i, unit) {
  const { x, low, middle, high } = group[state.hypervolume];
  const curve = (values) => curveTrace(x, values, unit, group.label, i);
  const edge = { hoverinfo: "skip", hovertemplate: undefined, line: { shape: "hv", width: 0, color: groupColor(i) } };
  const wash = groupColor(i).replace("rgb(", "rgba(").replace(")", ", 0.16)");
  return [{ ...curve(low), ...edge }, { ...curve(high), ...edge, fill: "tonexty", fillcolor: wash }, curve(middle)];
}

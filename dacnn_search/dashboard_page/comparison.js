// The page that compares runs. A colour, a dash and a mark stand for a group: one run, or repeated seeds.

const GROUP_COLORS = ["front", "test", "budget", "reference", "stopped", "third-2"];
const DASHES = ["solid", "dash", "dot", "dashdot"],
  SYMBOLS = ["diamond", "circle", "square", "triangle-up", "star", "cross"];
let theme = recall().theme;

const groupColor = (group) => color(GROUP_COLORS[group % GROUP_COLORS.length]);
const groupDash = (group) => DASHES[group % DASHES.length];

function start() {
  applyTheme(theme);
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
    theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember({ theme });
    applyTheme(theme);
    drawPlots();
  });
  prefersDark.addEventListener("change", () => {
    applyTheme(theme);
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
    text: run.front.map(([parameters, accuracy, trial]) =>
      hover([
        run.name,
        `trial ${trial}: ${percent(accuracy, 2)}`,
        `${short(parameters)} parameters (${bytes(parameters)})`,
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
    xaxis: logAxis("parameters (log scale)", least, most),
    yaxis: errorAxis("validation accuracy (log scale of the error)"),
    margin: { l: 64, r: 14, t: 10, b: 44 },
  });
}

function drawHypervolumes() {
  const traces = payload.groups.flatMap((group, i) =>
    group.quartiles.length
      ? bandTraces(group, i)
      : payload.runs.filter((run) => run.group === i).map((run) => curveTrace(run.hypervolume, run.name, i, 2)),
  );
  draw("hypervolume", traces, {
    xaxis: axis("finished trials", { rangemode: "tozero" }),
    yaxis: axis("hypervolume"),
    hovermode: "x unified",
  });
}

function curveTrace(values, name, group, width) {
  return {
    x: values.map((_, i) => i + 1),
    y: values,
    name: plotText(name),
    mode: "lines",
    line: { shape: "hv", width, color: groupColor(group), dash: groupDash(group) },
    hovertemplate: "%{y:.3f}",
  };
}

function bandTraces({ label, quartiles: [low, middle, high] }, group) {
  const edge = (values, fill) => ({
    ...curveTrace(values, label, group, 0),
    hoverinfo: "skip",
    hovertemplate: undefined,
    ...fill,
  });
  const wash = groupColor(group).replace("rgb(", "rgba(").replace(")", ", 0.16)");
  return [edge(low, {}), edge(high, { fill: "tonexty", fillcolor: wash }), curveTrace(middle, label, group, 2.5)];
}

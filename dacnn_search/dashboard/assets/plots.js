// The other plots of a run: the selected curve, the course of the search, what the choices do.

const MOST_LINES = 300; // thin lines drawn in one plot; more can't be told apart
const MOST_AXES = 11; // choices in the parallel coordinates: those that explain most

function epochsOf(index, values) {
  // The epochs that the points of a (possibly thinned) curve stand for; see payload.py.
  const length = Math.max(payload.curves.length[index], values.length),
    last = Math.max(values.length - 1, 1);
  return values.map((_, i) => 1 + Math.round((i * (length - 1)) / last));
}

const unpack = (values) => values.map((value) => (value == null ? null : value / 1e4));

function sampled(list) {
  if (list.length <= MOST_LINES) return list;
  return Array.from({ length: MOST_LINES }, (_, i) => list[Math.floor((i * list.length) / MOST_LINES)]);
}

function drawCurve() {
  const { index, trial } = trials[state.selected] ?? {};
  if (index === undefined || typeof Plotly === "undefined") return;
  const curve = (kind, name, style) => {
    const values = unpack(payload.curves[kind][index]);
    return {
      x: epochsOf(index, values),
      y: values,
      name,
      mode: values.length === 1 ? "markers" : "lines",
      hovertemplate: "epoch %{x}: %{y:.4f}<extra></extra>",
      ...style,
    };
  };
  const accuracy = curve("accuracy", "validation accuracy", {
    line: { color: color("front"), width: 2.5 },
    hovertemplate: "epoch %{x}: %{y:.1%}<extra>validation accuracy</extra>",
  });
  const losses = [
    curve("loss", "validation loss", { yaxis: "y2", line: { color: color("test"), width: 1.5, dash: "dash" } }),
    curve("train_loss", "training loss", { yaxis: "y2", line: { color: color("muted"), width: 1.5, dash: "dot" } }),
  ];
  draw("curve", [accuracy, ...losses], {
    xaxis: axis("epoch", { rangemode: "tozero", fixedrange: true }),
    yaxis: axis("accuracy", { tickformat: ".0%", fixedrange: true }),
    yaxis2: axis("loss", {
      overlaying: "y",
      side: "right",
      rangemode: "tozero",
      showgrid: false,
      fixedrange: true,
      tickmode: "auto",
      nticks: 6,
    }),
    showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    margin: { l: 54, r: 52, t: narrow() ? 62 : 30, b: 40 },
  });
  byId("curve").setAttribute("aria-label", `Learning curve of trial ${trial}`);
}

function drawHypervolume() {
  const byTime = state.hypervolume === "time";
  const [title, unit] = byTime ? searchTime(trials.at(-1)?.finished ?? 0) : ["trials that ended", 1];
  const x = trials.map((trial, i) => (byTime ? trial.finished / unit : i + 1));
  const trace = {
    x,
    y: payload.hypervolume,
    mode: trials.length > 1 ? "lines" : "markers",
    line: { shape: "hv", color: color("front"), width: 2.5 },
    hovertemplate: "%{y:.3f}<extra></extra>",
  };
  draw("hypervolume", [trace], {
    xaxis: axis(title, { rangemode: "tozero" }),
    yaxis: axis("hypervolume", { nticks: 6 }),
  });
  for (const button of document.querySelectorAll("[data-hypervolume]")) {
    button.setAttribute("aria-pressed", button.dataset.hypervolume === state.hypervolume);
    button.onclick = () => {
      state.hypervolume = button.dataset.hypervolume;
      drawHypervolume();
      save();
    };
  }
}

function linesTrace(group, style) {
  // The accuracy curves of several trials as one trace, with gaps between them.
  const x = [],
    y = [],
    customdata = [],
    text = [];
  for (const { index, trial } of group) {
    const values = unpack(payload.curves.accuracy[index]);
    const epochs = epochsOf(index, values);
    x.push(...epochs, null);
    y.push(...values.map(fromError), null);
    text.push(...values.map((value, i) => `trial ${trial}<br>epoch ${epochs[i]}: ${percent(value)}`), "");
    customdata.push(...values.map(() => index), null);
  }
  return { x, y, customdata, text, mode: "lines", hoverinfo: "text", ...style };
}

function drawCurves() {
  const having = (keep) => sampled(trials.filter((t) => payload.curves.length[t.index] && keep(t)));
  draw(
    "curves",
    [
      linesTrace(
        having((t) => t.state !== COMPLETE),
        { line: { width: 1, color: color("stopped") }, opacity: 0.35 },
      ),
      linesTrace(
        having((t) => t.state === COMPLETE && !t.onFront),
        { line: { width: 1, color: color("finished") }, opacity: 0.5 },
      ),
      linesTrace(
        having((t) => t.onFront),
        { line: { width: 2, color: color("front") } },
      ),
    ],
    {
      xaxis: axis("epoch", { rangemode: "tozero" }),
      yaxis: errorAxis("accuracy (log scale of the error)"),
      margin: { l: 66, r: 14, t: 10, b: 44 },
    },
  );
  selectOnClick("curves");
}

function selectOnClick(id) {
  const plot = byId(id);
  if (plot.dataset.ready) return;
  plot.dataset.ready = "yes";
  plot.on("plotly_click", ({ points }) => points[0].customdata != null && choose(points[0].customdata));
}

function drawDensity() {
  // How many proposals fell where, for each third of the search.
  const [least, most] = costRange(),
    bins = 24;
  const logs = [Math.log10(least), Math.log10(most)],
    step = (logs[1] - logs[0]) / bins;
  const third = (trial) => Math.min(Math.floor((3 * trial.index) / trials.length), 2);
  const traces = ["first third", "second third", "last third"].map((name, part) => {
    const counts = new Array(bins).fill(0);
    for (const trial of trials)
      if (third(trial) === part)
        counts[Math.min(Math.floor((Math.log10(costOf(trial)) - logs[0]) / step), bins - 1)] += 1;
    const edges = counts.map((_, i) => [10 ** (logs[0] + i * step), 10 ** (logs[0] + (i + 1) * step)]);
    return {
      type: "bar",
      name,
      x: edges.map(([a, b]) => Math.sqrt(a * b)),
      width: edges.map(([a, b]) => 0.92 * (b - a)),
      y: counts,
      marker: { color: color(`third-${part + 1}`) },
      text: edges.map(([a, b], i) => `${counts[i]} of the ${name}<br>${short(a)} to ${short(b)} ${cost().unit}`),
      textposition: "none",
      hoverinfo: "text",
    };
  });
  draw("density", traces, {
    barmode: "stack",
    xaxis: logAxis(`${cost().unit} (log scale)`, least, most),
    yaxis: axis("trials", { rangemode: "tozero", nticks: 6 }),
    showlegend: true,
    legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    margin: { l: 54, r: 14, t: narrow() ? 44 : 26, b: 44 },
  });
  const avoided = trials.reduce((sum, trial) => sum + (trial.duplicates ?? 0), 0);
  byId("duplicates").textContent = avoided
    ? `${plural(avoided, "proposal")} described a network that was known already and ${avoided === 1 ? "was" : "were"} not trained again.`
    : "No network was proposed twice.";
}

function drawTimes() {
  const groups = [
    [COMPLETE, "circle", "finished"],
    [PRUNED, "triangle-down", "stopped"],
    [FAIL, "x-thin", "failed"],
  ];
  const traces = groups.map(([code, symbol, name]) => {
    const group = trials.filter((t) => t.state === code);
    return {
      x: group.map((t) => t.index + 1),
      y: group.map((t) => t.seconds),
      customdata: group.map((t) => t.index),
      mode: "markers",
      hoverinfo: "text",
      text: group.map((t) => hover([`Trial ${t.trial}`, `${duration(t.seconds)} for ${plural(t.epochs, "epoch")}`])),
      marker: {
        symbol,
        size: 6,
        color: color(name),
        opacity: 0.8,
        line: { width: symbol === "x-thin" ? 1.5 : 0, color: color(name) },
      },
    };
  });
  draw("times", traces, {
    xaxis: axis("trials in the order of finishing", { rangemode: "tozero" }),
    yaxis: axis("seconds", { rangemode: "tozero", nticks: 6 }),
  });
  selectOnClick("times");
  const total = trials.reduce((sum, t) => sum + (t.seconds ?? 0), 0);
  byId("time-total").textContent =
    `${duration(total)} of training in all, ${duration(total / trials.length)} per trial.`;
}

// What the choices do ------------------------------------------------------------------------------------------------------

function drawImportance() {
  byId("importance-note").textContent = payload.importance.note;
  const shares = payload.importance.choices.filter((entry) => entry.effects.length > 1).slice(0, 8);
  byId("importance-box").hidden = !shares.length;
  const most = Math.max(...shares.map((entry) => entry.share), 0.01);
  const reach = Math.max(...shares.flatMap((entry) => entry.effects.map((e) => Math.abs(e.effect))), 0.001);
  replace(
    "importance",
    shares.map((entry) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, choiceWords(entry.choice)),
        el(
          "td",
          {},
          el("span", { class: "share" }, el("span", { style: `width:${(100 * entry.share) / most}%` })),
          entry.share < 0.01 ? " < 1%" : ` ${Math.round(100 * entry.share)}%`,
        ),
        el(
          "td",
          {},
          el(
            "ul",
            { class: "effects" },
            entry.effects.map((effect) => effectItem(effect, reach)),
          ),
        ),
      ),
    ),
  );
}

function effectItem({ value, effect, trials: count }, reach) {
  const words = `${Math.abs(effect) < 5e-4 ? "±" : effect > 0 ? "+" : "−"}${(100 * Math.abs(effect)).toFixed(1)}`;
  const strength = Math.round((60 * Math.abs(effect)) / reach);
  const hue = color(effect >= 0 ? "front" : "test");
  return el(
    "li",
    {
      title: `${value}: ${words} points at equal size, mean of ${plural(count, "trial")}`,
      style: `background: color-mix(in srgb, ${hue} ${strength}%, transparent)`,
    },
    `${value} `,
    el("b", {}, words),
  );
}

function drawParallel() {
  // Not Plotly's parcoords: it tells of no click on a line.
  const varied = Object.keys(payload.choices).filter((name) => new Set(payload.choices[name]).size > 1);
  const rank = (name) => payload.importance.choices.findIndex(({ choice }) => choice === name);
  const kept = new Set([...varied].sort((a, b) => rank(a) - rank(b)).slice(0, MOST_AXES));
  const names = varied.filter((name) => kept.has(name));
  const axes = [
    ...names.map((name) => choiceAxis(name)),
    numberAxis(
      cost().name,
      (t) => Math.log10(costOf(t)),
      (v) => short(10 ** v),
    ),
    numberAxis(
      "accuracy",
      (t) => fromError(t.accuracy),
      (v) => percent(1 - 10 ** -v),
    ),
  ];
  const finished = trials.filter((t) => t.state === COMPLETE);
  const others = sampled(finished.filter((t) => !t.onFront));
  const traces = [
    parallelTrace(others, axes, { line: { width: 1, color: color("finished") }, opacity: 0.28 }),
    parallelTrace(front, axes, { line: { width: 2, color: color("front") }, opacity: 0.95 }),
  ];
  const annotations = axes.flatMap((one, i) => [
    {
      x: i,
      y: 1.06,
      text: plotText(one.name.replace(/_/g, " ")),
      showarrow: false,
      font: { size: 11, color: color("ink") },
      yanchor: "bottom",
      textangle: narrow() ? -45 : 0,
    },
    ...one.ticks.map(([y, label]) => ({
      x: i,
      y,
      text: plotText(label),
      showarrow: false,
      xanchor: "left",
      xshift: 4,
      font: { size: 10, color: color("muted") },
      bgcolor: color("panel"),
      borderpad: 1,
      opacity: 0.9,
    })),
  ]);
  draw("parallel", traces, {
    xaxis: { visible: false, range: [-0.15, axes.length - 1 + 0.45], fixedrange: true },
    yaxis: { visible: false, range: [-0.08, 1.2], fixedrange: true },
    annotations,
    margin: { l: 8, r: 8, t: 6, b: 6 },
    shapes: axes.map((_, i) => ({
      type: "line",
      x0: i,
      x1: i,
      y0: 0,
      y1: 1,
      line: { color: color("muted"), width: 1 },
      layer: "below",
    })),
  });
  selectOnClick("parallel");
}

function choiceAxis(name) {
  const column = payload.choices[name];
  const values = [...new Set(column)].sort((a, b) =>
    a == null
      ? -1
      : b == null
        ? 1
        : typeof a === "number" && typeof b === "number"
          ? a - b
          : String(a).localeCompare(String(b)),
  );
  const place = new Map(values.map((value, i) => [value, values.length > 1 ? i / (values.length - 1) : 0.5]));
  const step = Math.max(Math.ceil(values.length / 8), 1);
  return {
    name,
    ticks: values
      .filter((_, i) => i % step === 0 || i === values.length - 1)
      .map((value) => [place.get(value), value == null ? "–" : String(value)]),
    // A fixed offset per trial keeps lines through the same values apart.
    at: (trial) =>
      place.get(column[trial.index]) + (((trial.index * 0.618) % 1) - 0.5) * (0.2 / Math.max(values.length, 2)),
  };
}

function numberAxis(name, value, word) {
  const values = trials.filter((t) => t.state === COMPLETE).map(value);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity),
    span = values.reduce((a, b) => Math.max(a, b), -Infinity) - low || 1;
  return {
    name,
    at: (trial) => (value(trial) - low) / span,
    ticks: values.length ? [0, 0.25, 0.5, 0.75, 1].map((y) => [y, word(low + y * span)]) : [],
  };
}

function parallelTrace(group, axes, style) {
  const x = [],
    y = [],
    customdata = [],
    text = [];
  for (const trial of group) {
    axes.forEach((one, i) => {
      x.push(i);
      y.push(one.at(trial));
      customdata.push(trial.index);
      text.push(hoverOf(trial));
    });
    x.push(null);
    y.push(null);
    customdata.push(null);
    text.push("");
  }
  return { x, y, customdata, text, hoverinfo: "text", mode: "lines", ...style };
}

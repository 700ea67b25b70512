// The plot of the front: accuracy against parameters, or against what else is on the horizontal axis.

const OTHER_PLOTS = () => [
  drawCurve,
  drawHypervolume,
  drawCurves,
  drawDensity,
  drawTimes,
  drawImportance,
  drawParallel,
];

function drawPlots() {
  // The front at once, the others one by one, so that the page stays responsive.
  const rest = trials.length ? OTHER_PLOTS() : [];
  if (trials.length) drawFront();
  const next = () => {
    rest.shift()?.();
    if (rest.length) setTimeout(next);
    else document.documentElement.dataset.drawn = "all";
  };
  setTimeout(next);
}

function setUpPrint() {
  // Paper is light and narrow: the plots are drawn for it, and afterwards for the screen again.
  const redraw = (printing) => {
    document.documentElement.classList.toggle("printing", printing);
    applyTheme(printing ? "light" : state.theme);
    if (!trials.length) return;
    drawFront();
    for (const drawPlot of OTHER_PLOTS()) drawPlot();
  };
  addEventListener("beforeprint", () => redraw(true));
  addEventListener("afterprint", () => {
    redraw(false);
    for (const plot of document.querySelectorAll(".plot")) if (plot.data) Plotly.Plots.resize(plot);
  });
}

const MARGIN = { l: 58, r: 12, t: 12, b: 46 }; // around the plot of the front, in pixels

function drawFront() {
  if (typeof Plotly === "undefined" || !trials.length) return;
  const shown = new Set(shownTrials());
  const is = (code) => trials.filter((trial) => trial.state === code && (code === FAIL || trial.accuracy != null));
  const finished = is(COMPLETE).filter((trial) => !trial.onFront);
  const traces = [
    frontTrace(
      is(PRUNED),
      shown,
      { symbol: "triangle-down", size: 7, color: color("stopped") },
      (t) => 0.25 + 0.5 * fidelity(t),
    ),
    frontTrace(
      finished,
      shown,
      { symbol: "circle", size: 7, color: color("finished"), line: { width: 1, color: color("panel") } },
      () => 0.75,
    ),
    {
      ...frontTrace(
        is(FAIL),
        shown,
        { symbol: "x-thin", size: 7, line: { width: 1.5, color: color("failed") } },
        () => 0.8,
      ),
      y: is(FAIL).map(() => 0.03),
      yaxis: "y2",
    },
    {
      x: front.map(costOf),
      y: front.map((t) => height(t.accuracy)),
      mode: "lines",
      line: { shape: "hv", width: 2, color: color("front") },
      hoverinfo: "skip",
    },
    frontTrace(
      front,
      shown,
      { symbol: "diamond", size: 11, color: color("front"), line: { width: 1.5, color: color("panel") } },
      () => 1,
    ),
    ...testTraces(shown),
    ...referenceTraces(),
    runningTrace(),
  ];
  const [least, most] = costRange();
  const layout = {
    xaxis: logAxis(`${cost().unit} (log scale)`, least, most),
    yaxis: accuracyAxis(),
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
    hoverdistance: 24,
    shapes: frontShapes(),
    annotations: limitAnnotation(),
    margin: MARGIN,
  };
  if (state.zoom?.mode === state.mode) {
    layout.xaxis.range = state.zoom.x;
    layout.yaxis.range = state.zoom.y;
  }
  draw("front", traces, layout);
  setUpFrontEvents();
  placeRing();
  renderModes();
}

const fidelity = (trial) => Math.min(trial.epochs / (payload.run.epochs || trial.epochs || 1), 1);

function height(accuracy) {
  // Where an accuracy stands on the vertical axis: itself, or minus the logarithm of the error.
  return state.mode === "error" ? fromError(accuracy) : accuracy;
}

function frontTrace(group, shown, marker, opacity) {
  return {
    x: group.map(costOf),
    y: group.map((t) => height(t.accuracy)),
    customdata: group.map((t) => t.index),
    mode: "markers",
    marker: { ...marker, opacity: group.map((t) => (shown.has(t) ? opacity(t) : 0.08)) },
    hoverinfo: "text",
    text: group.map(hoverOf),
  };
}

function hoverOf(trial) {
  const test = testOf(trial.index),
    int8 = retrainedOf(trial)?.int8;
  const how =
    trial.state === COMPLETE
      ? ""
      : trial.state === PRUNED
        ? `stopped after ${trial.epochs} of ${payload.run.epochs ?? "?"} epochs`
        : `failed: ${(trial.reason ?? "").slice(0, 80)}`;
  return hover([
    `Trial ${trial.trial}${trial.onFront ? ", on the front" : ""}`,
    trial.accuracy != null && `${percent(trial.accuracy, accuracyDigits())} validation accuracy`,
    test && `${percent(test.mean, accuracyDigits())} test accuracy`,
    int8?.accuracy != null && `${percent(int8.accuracy, accuracyDigits())} as int8 C code`,
    `${short(trial.parameters)} parameters (${bytes(4 * trial.parameters)}), ${short(trial.macs)} MACs`,
    trial.flash && `as C code ${amount(trial.flash, COSTS.flash)}, ${amount(trial.ram, COSTS.ram)}`,
    how,
    ...trial.network.match(/.{1,56}(,|$)/g),
  ]);
}

function testTraces(shown) {
  // Test accuracy of the retrained networks, with the range of the seeds, joined to what the search had measured.
  const tested = [...tests]
    .map(([index, test]) => ({ trial: trials[index], test }))
    .filter(({ trial, test }) => test && shown.has(trial));
  if (!tested.length) return [];
  const joins = tested.flatMap(({ trial, test }) => [
    [costOf(trial), height(trial.accuracy)],
    [costOf(trial), height(test.mean)],
    [null, null],
  ]);
  const error = {
    type: "data",
    symmetric: false,
    array: tested.map(({ test }) => height(test.most) - height(test.mean)),
    arrayminus: tested.map(({ test }) => height(test.mean) - height(test.least)),
    color: color("test"),
    thickness: 1.5,
    width: 5,
  };
  return [
    {
      x: joins.map((p) => p[0]),
      y: joins.map((p) => p[1]),
      mode: "lines",
      line: { width: 1, dash: "dot", color: color("test") },
      hoverinfo: "skip",
    },
    {
      x: tested.map(({ trial }) => costOf(trial)),
      y: tested.map(({ test }) => height(test.mean)),
      customdata: tested.map(({ trial }) => trial.index),
      error_y: error,
      mode: "markers",
      marker: { symbol: "square", size: 9, color: color("test"), line: { width: 1.5, color: color("panel") } },
      hoverinfo: "text",
      text: tested.map(({ trial }) => hoverOf(trial)),
    },
  ];
}

function knownReferences() {
  // Those whose cost is known. A reference says its parameters alone.
  return payload.references
    .filter((reference) => costOf(reference) > 0 && reference.accuracy != null)
    .sort((a, b) => costOf(a) - costOf(b));
}

function referenceTraces() {
  const known = knownReferences();
  if (!known.length) return [];
  const names = known.map((r) => String(r.name).slice(0, 40));
  return [
    {
      x: known.map(costOf),
      y: known.map((r) => height(r.accuracy)),
      mode: "markers+text",
      marker: { symbol: "star", size: 12, color: color("reference") },
      text: names.map(plotText),
      textposition: labelPlaces(known, names),
      textfont: { size: 11, color: color("reference") },
      hoverinfo: "text",
      hovertext: known.map((r) =>
        hover([
          r.name,
          `${percent(r.accuracy, 2)}, ${amount(costOf(r))}`,
          "reference, not of this search",
        ]),
      ),
    },
  ];
}

const PLACES = ["middle", "top", "bottom"].flatMap((level) => [`${level} right`, `${level} left`]);

function labelPlaces(known, names) {
  // Where each name stands beside its point, so that it covers as little as possible of other names and points.
  const plot = byId("front"),
    across = scaleOf(costRange().map(Math.log10), plot.clientWidth - MARGIN.l - MARGIN.r),
    down = scaleOf(accuracyAxis().range.toReversed(), plot.clientHeight - MARGIN.t - MARGIN.b);
  const tested = [...tests].filter(([, test]) => test).map(([index, test]) => [trials[index], test.mean]);
  const points = [...[...front, ...known].map((each) => [each, each.accuracy]), ...tested];
  const centres = points.map(([each, accuracy]) => [across.of(Math.log10(costOf(each))), down.of(height(accuracy))]);
  const taken = centres.map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  return names.map((name, i) => {
    const [x, y] = centres[front.length + i],
      [wide, high] = [6 * name.length, 13];
    const box = (place) => {
      const left = place.endsWith("right") ? x + 8 : x - 8 - wide;
      const top = y - high / 2 + (place.startsWith("top") ? -12 : place.startsWith("bottom") ? 12 : 0);
      return [left, top, left + wide, top + high];
    };
    const hidden = ([left, top, right, bottom]) =>
      Math.max(-left, right - across.length, 0) * high + Math.max(-top, bottom - down.length, 0) * wide;
    const covered = (own) => hidden(own) + taken.reduce((area, other) => area + overlap(own, other), 0);
    const areas = PLACES.map((place) => covered(box(place)));
    const place = PLACES[areas.indexOf(Math.min(...areas))];
    taken.push(box(place));
    return place;
  });
}

function scaleOf([first, last], length) {
  return { length, of: (value) => ((value - first) / (last - first)) * length };
}

function overlap(a, b) {
  // The area that two boxes share; a box is left, top, right, bottom.
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const depth = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(width, 0) * Math.max(depth, 0);
}

function runningTrace() {
  const running = live ? (payload.status.running ?? []).filter((r) => costOf(r) > 0) : [];
  return {
    x: running.map(costOf),
    y: running.map(() => 0.05),
    yaxis: "y2",
    mode: "markers",
    hoverinfo: "text",
    marker: { symbol: "circle-open-dot", size: 10, color: color("budget") },
    text: running.map((r) =>
      hover([`Trial ${r.trial}, training`, `epoch ${r.epoch} of ${r.epochs}`, amount(costOf(r))]),
    ),
  };
}

// Axes -----------------------------------------------------------------------------------------------------------------

function costRange() {
  const costs = [...trials, ...knownReferences()].map(costOf);
  const [least, most] = [costs.reduce((a, b) => Math.min(a, b)), costs.reduce((a, b) => Math.max(a, b))];
  const margin = most > 2 * least ? Math.max((most / least) ** 0.04, 1.15) : 2;
  return [least / margin, most * margin];
}

function accuracyRange() {
  // Around the front, or around all trials; in accuracy.
  const measured = trials.filter((t) => t.accuracy != null).map((t) => t.accuracy);
  const beside = [
    ...knownReferences().map((r) => r.accuracy),
    ...[...tests.values()].filter(Boolean).map((test) => test.mean),
  ];
  if (!measured.length) return [0, 1];
  const inside =
    state.mode === "all" || !front.length
      ? measured
      : [...front.map((t) => t.accuracy), ...beside, ...measured.filter((a) => a > front[0].accuracy)];
  const low = inside.reduce((a, b) => Math.min(a, b)),
    high = [...measured, ...beside].reduce((a, b) => Math.max(a, b));
  const margin = Math.max(high - low, 0.1);
  return [Math.max(low - 0.12 * margin, -0.02), high + 0.07 * margin];
}

function accuracyAxis() {
  const [low, high] = accuracyRange();
  if (state.mode !== "error") {
    const digits = high - low <= 0.04 ? ".1%" : ".0%";
    return axis("accuracy", { range: [low, high], tickformat: digits, nticks: 8 });
  }
  const top = fromError(high),
    bottom = fromError(Math.max(low, 0.05));
  return errorAxis("accuracy (log scale of the error)", { range: [bottom, top + 0.05 * (top - bottom) + 0.02] });
}

// Lines, and the ring around the selected point ------------------------------------------------------------------------

function frontShapes() {
  const shapes = [];
  const vertical = (x, line) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line, layer: "below" });
  const limit = limitOf();
  if (limit) shapes.push(vertical(limit, { color: color("failed"), width: 1.5, dash: "dash" }));
  if (state.budget && front.length) {
    shapes.push({
      type: "rect",
      x0: 1,
      x1: state.budget,
      y0: 0,
      y1: 1,
      yref: "paper",
      fillcolor: color("budget"),
      opacity: 0.07,
      line: { width: 0 },
      layer: "below",
    });
    shapes.push(vertical(state.budget, { color: color("budget"), width: 1.5 }));
  }
  return shapes;
}

function placeRing() {
  // The ring around the selected trial lies above the plot: moving it costs nothing. A failed one stands at the bottom.
  const trial = trials[state.selected],
    ring = byId("ring");
  const { xaxis, yaxis } = byId("front")._fullLayout ?? {};
  ring.hidden = !trial || !xaxis;
  if (ring.hidden) return;
  const x = xaxis.d2p(costOf(trial));
  const y = trial.accuracy == null ? 0.97 * yaxis._length : yaxis.d2p(height(trial.accuracy));
  ring.hidden = x < 0 || x > xaxis._length || y < 0 || y > yaxis._length;
  ring.style.left = `${xaxis._offset + x}px`;
  ring.style.top = `${yaxis._offset + y}px`;
}

const limitOf = () => payload.run.space?.constraints?.[state.cost];

function limitAnnotation() {
  const limit = limitOf();
  if (!limit) return [];
  return [
    {
      x: Math.log10(limit),
      y: 1,
      yref: "paper",
      text: `limit ${short(limit)}`,
      showarrow: false,
      xanchor: "right",
      yanchor: "top",
      font: { size: 11, color: color("failed") },
    },
  ];
}

let frame = 0;

function plotSelected() {
  // At most once per frame, so that a dragged slider stays fluent.
  if (typeof Plotly === "undefined" || !byId("front").data) return;
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    placeRing();
    Plotly.relayout("front", { shapes: frontShapes() });
    drawCurve();
  });
}

function setUpFrontEvents() {
  const plot = byId("front");
  if (plot.dataset.ready) return;
  plot.dataset.ready = "yes";
  plot.on("plotly_click", ({ points }) => points[0].customdata != null && choose(points[0].customdata));
  plot.on("plotly_afterplot", placeRing);
  plot.on("plotly_relayout", (change) => {
    if (!Object.keys(change).some((key) => key.startsWith("xaxis") || key.startsWith("yaxis"))) return;
    state.zoom = { mode: state.mode, x: [...plot.layout.xaxis.range], y: [...plot.layout.yaxis.range] };
    save();
  });
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.addEventListener("click", () => {
      Object.assign(state, { mode: button.dataset.mode, zoom: null });
      drawFront();
      save();
    });
  }
}

function renderModes() {
  for (const button of document.querySelectorAll("[data-mode]"))
    button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
  const [low] = accuracyRange();
  const hidden = state.mode === "front" ? trials.filter((t) => t.accuracy != null && t.accuracy < low).length : 0;
  byId("hidden-below").textContent = hidden
    ? `${plural(hidden, "trial")} lie${hidden === 1 ? "s" : ""} below the picture.`
    : "";
}

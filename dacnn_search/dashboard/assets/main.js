// The page of one run: its state, the header, the budget, and what happens on clicks and keys.

const [COMPLETE, PRUNED, FAIL] = [0, 1, 2];
const STATE_WORDS = ["finished", "stopped early", "failed"];
const REFRESH_AFTER = 10_000, // milliseconds
  REFRESH_STALE_AFTER = 60_000, // with trials that take long, or after a search that ended without saying so
  STALE_AFTER = 600_000;

const trials = payload.trials.trial.map((_, index) => {
  const trial = { index };
  for (const [name, column] of Object.entries(payload.trials)) trial[name] = column[index];
  trial.searchText =
    `trial ${trial.trial} ${STATE_WORDS[trial.state]} ${trial.network} ${trial.reason ?? ""}`.toLowerCase();
  return trial;
});
let front = []; // by the cost chosen, from little to much; see setCost
const mostWidth = trials.reduce((most, t) => t.config.sections.reduce((m, section) => Math.max(m, section.width), most), 1);
const tests = new Map(payload.retrained.map((entry) => [entry.index, testSummary(entry)]));
const live = ["searching", "retraining"].includes(payload.status.state);

const state = {
  selected: null,
  budget: null,
  byBudget: true,
  mode: "front",
  cost: payload.run.objective,
  zoom: null,
  hypervolume: "trials",
  sort: { key: "accuracy", descending: true },
  filter: "",
  family: null,
  show: "all",
  allRows: false,
  theme: null,
  paused: false,
  ...recall(),
};

function save() {
  remember({ ...state, scroll: [scrollX, scrollY], tableScroll: byId("table-box").scrollTop });
}

function testSummary({ seeds }) {
  // Mean, standard deviation and number of test accuracies of one retrained network; null if it was not tested.
  const values = seeds.map((seed) => seed.test_accuracy).filter((value) => value != null);
  if (!values.length) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(values.length - 1, 1);
  return {
    mean,
    deviation: Math.sqrt(variance),
    count: values.length,
    least: Math.min(...values),
    most: Math.max(...values),
  };
}

const testOf = (index) => tests.get(index) ?? null;
const retrainedOf = (trial) => payload.retrained.find((entry) => entry.index === trial.index);
const accuracyDigits = () => ((payload.run.data?.validation ?? 0) >= 2000 ? 2 : 1);

function standardError(accuracy, images = payload.run.data?.validation) {
  if (!images) return 0;
  const share = (accuracy * images + 2) / (images + 4); // Agresti and Coull: near 100% the plain formula is too sure
  return Math.sqrt((share * (1 - share)) / (images + 4));
}

// Header ---------------------------------------------------------------------------------------------------------------

function renderHeader() {
  const { run, status } = payload;
  const counts = [0, 1, 2].map((code) => trials.filter((trial) => trial.state === code).length);
  byId("name").textContent = run.name;
  byId("state").textContent =
    {
      searching: "Searching",
      retraining: "Training the best in full",
      finished: "Finished",
      interrupted: "Interrupted",
      failed: "Failed",
    }[status.state] ?? "Unknown state";
  byId("state").className = `pill ${live ? "live" : status.state === "failed" ? "bad" : ""}`;
  const data = run.data ?? {};
  const shape = data.input_shape ?? [];
  const size = shape.length
    ? `${shape[1]}×${shape[2]} ${shape[0] === 1 ? "grey" : shape[0] === 3 ? "colour" : shape[0] + "-channel"} images, `
    : "";
  const searched = run.space?.networks ? `${plural(run.space.networks, "possible network")}, ` : "";
  replace(
    "summary",
    el("strong", {}, data.name ?? "unknown data"),
    ` (${size}${data.num_classes ?? "?"} classes${data.train ? `, ${whole(data.train)} to train on` : ""}). `,
    `${searched}${plural(trials.length, "trial")}: ${whole(counts[0])} finished, ${whole(counts[1])} stopped early, ${whole(counts[2])} failed`,
    run.started ? `. Started ${moment(run.started)}` : "",
    status.elapsed ? `, ${duration(status.elapsed)} of search.` : ".",
  );
  byId("description").hidden = !run.description;
  byId("description").textContent = run.description ?? "";
  if (data.class_names?.length) byId("summary").title = `Classes: ${data.class_names.slice(0, 50).join(", ")}`;
  renderLive();
}

function renderLive() {
  const { status } = payload;
  byId("live").hidden = !live && !status.message;
  byId("pause").hidden = !live;
  if (!live) return replace("live-text", status.message);
  const { retraining } = status; // version 0.1 counted full trainings as trials instead
  const finished = retraining ? retraining.finished : (status.finished ?? trials.length);
  const wanted = retraining ? retraining.trainings : status.trials;
  const total = wanted ? ` of ${whole(wanted)}` : "";
  const left = status.remaining ? `, about ${duration(status.remaining)} left` : "";
  const what = status.state === "searching" ? "trials" : "full trainings";
  replace("live-text", `${whole(finished)}${total} ${what}${left}. `, status.message);
  if (wanted) byId("progress").value = finished / wanted;
  byId("progress").hidden = !wanted;
  replace(
    "running",
    (status.running ?? []).map((trial) =>
      el(
        "li",
        {},
        el("span", {}, `trial ${trial.trial}: ${amount(trial[payload.run.objective], COSTS[payload.run.objective])}`),
        el("progress", {
          max: trial.epochs,
          value: trial.epoch,
          "aria-label": `trial ${trial.trial}: epoch ${trial.epoch} of ${trial.epochs}`,
        }),
        el(
          "span",
          {},
          `epoch ${trial.epoch} of ${trial.epochs}${trial.accuracy == null ? "" : `, ${percent(trial.accuracy)}`}`,
        ),
      ),
    ),
  );
}

function setUpRefresh() {
  if (!live) return;
  const button = byId("pause");
  const show = () => {
    button.textContent = state.paused ? "Resume refreshing" : "Pause refreshing";
    button.setAttribute("aria-pressed", state.paused);
  };
  button.addEventListener("click", () => {
    state.paused = !state.paused;
    show();
    save();
  });
  show();
  const stale = Date.now() - new Date(payload.status.updated ?? 0) > STALE_AFTER;
  if (stale) byId("live-text").append(` Last news ${moment(payload.status.updated)}.`);
  setInterval(
    () => {
      const busy =
        document.hidden ||
        state.paused ||
        document.activeElement?.matches("input[type=text], input[type=search]") ||
        String(getSelection());
      if (busy) return;
      save();
      location.reload();
    },
    stale ? REFRESH_STALE_AFTER : REFRESH_AFTER,
  );
}

// Selection ------------------------------------------------------------------------------------------------------------

function choose(index) {
  state.selected = index;
  state.byBudget = false;
  showSelected();
  save();
}

function selectionReason() {
  if (!state.byBudget || !front.length) return "";
  const { trial: suggested, words } = suggestion();
  if (suggested.index === state.selected && costOf(suggested) === state.budget) return words;
  return bestUnder(state.budget)
    ? `Best network with at most ${whole(state.budget)} ${cost().unit}`
    : `No finished network has at most ${whole(state.budget)} ${cost().unit}; this one has ${cost().fewest}`;
}

function showSelected() {
  const trial = trials[state.selected];
  if (!trial) return;
  renderCard(trial, selectionReason());
  markRow();
  try {
    history.replaceState(null, "", `#trial-${trial.trial}`);
  } catch {
    // Some browsers refuse this for pages from disk.
  }
  plotSelected();
}

function onFrontKey(event) {
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  const end = { Home: 0, End: front.length - 1 }[event.key];
  if (event.key === "Enter") {
    byId("network-title").focus();
    byId("network").scrollIntoView({ behavior: "instant", block: "start" });
  } else if (front.length && (step || end !== undefined)) {
    const here = trials[state.selected];
    let place = front.indexOf(here);
    if (place < 0) place = front.filter((trial) => costOf(trial) <= costOf(here)).length - (step > 0 ? 1 : 0);
    choose(front[Math.min(Math.max(end ?? place + step, 0), front.length - 1)].index);
  } else return;
  event.preventDefault();
}

// Start ----------------------------------------------------------------------------------------------------------------

function start() {
  findFamilies();
  setCost(state.cost);
  applyTheme(state.theme);
  renderHeader();
  renderCost();
  renderAbout();
  byId("answer-body").hidden = !trials.length;
  byId("nothing").hidden = trials.length > 0;
  for (const id of ["network", "search", "reasons", "trials-section"]) byId(id).hidden = !trials.length;
  byId("filter").value = state.filter;
  byId("show").value = state.show;
  showIf("tested", [...tests.values()].some(Boolean));
  showIf(
    "stopped",
    trials.some((trial) => trial.state === PRUNED),
  );
  showIf(
    "failed",
    trials.some((trial) => trial.state === FAIL),
  );
  if (trials.length) startSelection();
  renderFailures();
  renderTable();
  setUpTable();
  setUpCost();
  setUpBudget();
  setUpRefresh();
  setUpPrint();
  for (const button of document.querySelectorAll("[data-copy]"))
    button.addEventListener("click", () => copyText(button.dataset.copy, button));
  byId("front").addEventListener("keydown", onFrontKey);
  byId("theme").addEventListener("click", () => {
    state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    applyTheme(state.theme);
    drawPlots();
    save();
  });
  prefersDark.addEventListener("change", () => {
    applyTheme(state.theme);
    drawPlots();
  });
  addEventListener("pagehide", save);
}

function showIf(word, condition) {
  for (const element of document.querySelectorAll(`.if-${word}`)) element.hidden = !condition;
}

function startSelection() {
  const named = trials.find((trial) => `#trial-${trial.trial}` === location.hash);
  const hasFront = front.length > 0;
  for (const id of ["budget-row", "front-none"]) byId(id).hidden = (id === "budget-row") !== hasFront;
  state.budget ??= hasFront ? costOf(suggestion().trial) : 1000;
  if (named && named.index !== state.selected) Object.assign(state, { selected: named.index, byBudget: false });
  if (state.byBudget && hasFront) setBudget(state.budget);
  else {
    state.selected ??= 0;
    if (hasFront) showBudget();
    showSelected();
  }
}

function renderFailures() {
  // Why trials failed or were stopped, the most frequent reason first.
  const reasons = new Map();
  for (const trial of trials.filter((t) => t.state !== COMPLETE)) {
    const key = `${trial.state} ${trial.reason ?? ""}`;
    reasons.set(key, [...(reasons.get(key) ?? []), trial]);
  }
  const groups = [...reasons.values()].sort((a, b) => b[0].state - a[0].state || b.length - a.length);
  byId("failures").hidden = !groups.length;
  replace(
    "failure-list",
    groups.slice(0, 20).map((group) =>
      el(
        "li",
        {},
        el("span", { class: `mark state-${group[0].state}` }, group[0].state === FAIL ? "failed" : "stopped"),
        el("strong", {}, plural(group.length, "trial")),
        " ",
        group[0].reason ?? "no reason recorded",
        " ",
        el(
          "span",
          { class: "muted" },
          group.slice(0, 6).flatMap((trial, i) => [i ? ", " : "", trialLink(trial)]),
          group.length > 6 ? ", …" : "",
        ),
      ),
    ),
  );
}

function renderAbout() {
  const { run } = payload;
  const rows = [
    ["Command", run.command],
    ["Sampler", run.sampler],
    ["Prior", run.prior],
    ["First cycle", run.fidelity],
    ["Stopping", run.stopping],
    ["Seed", run.seed],
    ["Retrained", payload.judgement],
    ["Full length", run.epochs && plural(run.epochs, "epoch")],
    [
      "Recipe",
      run.recipe &&
        Object.entries(run.recipe)
          .map(([k, v]) => `${k} ${v}`)
          .join(", "),
    ],
    [
      "Data",
      run.data &&
        `${run.data.name}: ${["train", "validation", "test"].map((part) => `${whole(run.data[part] ?? 0)} ${part}`).join(", ")}`,
    ],
    ["Sizes in the space", run.space?.most && `${amount(run.space.least, COSTS[run.objective])} to ${amount(run.space.most, COSTS[run.objective])}`],
    [
      "Machine",
      run.machine &&
        [run.machine.host, run.machine.cpu, `${run.machine.cpus} CPUs`, ...(run.machine.gpus ?? [])].join(", "),
    ],
    [
      "Versions",
      run.versions &&
        Object.entries(run.versions)
          .map(([k, v]) => `${k} ${v}`)
          .join(", "),
    ],
    ["Commit", run.git_commit],
  ];
  replace(
    "about-list",
    rows
      .filter(([, value]) => value != null && value !== "")
      .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]),
  );
}

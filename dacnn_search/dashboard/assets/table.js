// The table of trials: sorted, filtered, linked to the plots, and its download.

const ROWS_AT_FIRST = 100;
const COLUMNS = [
  { key: "trial", label: "Trial", value: (t) => t.trial },
  {
    key: "state",
    label: "State",
    value: (t) => t.state,
    text: (t) => (t.onFront ? "on the front" : STATE_WORDS[t.state]),
    words: true,
  },
  { key: "accuracy", label: "Accuracy", value: (t) => t.accuracy, text: (t) => percent(t.accuracy, accuracyDigits()) },
  {
    key: "test",
    label: "Test",
    value: (t) => testOf(t.index)?.mean ?? null,
    text: (t) => percent(testOf(t.index)?.mean, accuracyDigits()),
  },
  { key: "parameters", label: "Parameters", value: (t) => t.parameters, text: (t) => whole(t.parameters) },
  { key: "macs", label: "MACs", value: (t) => t.macs, text: (t) => short(t.macs) },
  ...["flash", "ram"].map((key) => ({
    key,
    label: { flash: "Flash", ram: "RAM" }[key],
    value: (t) => t[key],
    text: (t) => (t[key] == null ? "–" : bytes(t[key])),
  })),
  { key: "epochs", label: "Epochs", value: (t) => t.epochs },
  { key: "seconds", label: "Time", value: (t) => t.seconds, text: (t) => duration(t.seconds) },
  {
    key: "network",
    label: "Network",
    value: (t) => t.network,
    text: (t) => (t.reason ? `${t.network}. ${t.reason}` : t.network),
    words: true,
  },
];
const SHOWN = {
  all: () => true,
  front: (t) => t.onFront,
  finished: (t) => t.state === COMPLETE,
  stopped: (t) => t.state === PRUNED,
  failed: (t) => t.state === FAIL,
};

function shownTrials() {
  // The trials that pass the filters, in the order of the table.
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = trials.filter(
    (trial) =>
      SHOWN[state.show](trial) &&
      (!state.family || trial.families.includes(state.family)) &&
      words.every((word) => trial.searchText.includes(word)),
  );
  const { value } = COLUMNS.find((column) => column.key === state.sort.key);
  const sign = state.sort.descending ? -1 : 1;
  return kept.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x == null || y == null) return (x == null) - (y == null) || a.index - b.index;
    return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a.index - b.index;
  });
}

function renderTable() {
  const shown = shownTrials();
  const rows = state.allRows ? shown : shown.slice(0, ROWS_AT_FIRST);
  replace("table-head", COLUMNS.map(headCell));
  replace("table-body", rows.map(bodyRow));
  replace(
    "table-count",
    shown.length === trials.length
      ? plural(trials.length, "trial")
      : `${whole(shown.length)} of ${plural(trials.length, "trial")}${state.family ? `, those with ${state.family}` : ""}`,
  );
  byId("all-rows").hidden = rows.length === shown.length;
  byId("all-rows").textContent = `Show all ${whole(shown.length)}`;
  markRow(false);
}

function headCell(column) {
  const sorted = state.sort.key === column.key;
  const order = sorted ? (state.sort.descending ? "descending" : "ascending") : "none";
  const sort = () => {
    state.sort = {
      key: column.key,
      descending: sorted ? !state.sort.descending : ["accuracy", "test"].includes(column.key),
    };
    renderTable();
    byId("table-head").querySelector(`[data-key=${column.key}]`).focus();
    save();
  };
  return el(
    "th",
    { scope: "col", "aria-sort": order, class: column.words ? "words" : "" },
    el("button", { type: "button", "data-key": column.key, onclick: sort }, column.label),
  );
}

function bodyRow(trial) {
  return el(
    "tr",
    { "data-index": trial.index, tabindex: 0, class: trial.onFront ? "front" : "" },
    COLUMNS.map((column) =>
      el(
        "td",
        { class: column.words ? "words" : "" },
        column.text ? column.text(trial) : String(column.value(trial) ?? "–"),
      ),
    ),
  );
}

function markRow(scroll = true) {
  for (const row of byId("table-body").children) {
    const chosen = Number(row.dataset.index) === state.selected;
    row.setAttribute("aria-selected", chosen);
    if (chosen && scroll) {
      const box = byId("table-box");
      if (row.offsetTop < box.scrollTop + 40 || row.offsetTop > box.scrollTop + box.clientHeight - 40)
        box.scrollTop = row.offsetTop - box.clientHeight / 2;
    }
  }
}

function setUpTable() {
  const body = byId("table-body");
  const pick = (event) => {
    const row = event.target.closest("tr");
    if (row) choose(Number(row.dataset.index));
  };
  body.addEventListener("click", pick);
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter") pick(event);
    const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (next && event.target[next]) {
      event.preventDefault();
      event.target[next].focus();
    }
  });
  byId("filter").addEventListener("input", () => changeFilter({ filter: byId("filter").value }));
  byId("show").addEventListener("change", () => changeFilter({ show: byId("show").value }));
  byId("all-rows").addEventListener("click", () => {
    state.allRows = true;
    renderTable();
    save();
  });
  byId("download").addEventListener("click", downloadCsv);
}

let filterTimer = 0;

function changeFilter(change) {
  Object.assign(state, change);
  renderTable();
  clearTimeout(filterTimer);
  filterTimer = setTimeout(() => {
    drawFront();
    save();
  }, 120);
}

function csvCell(value) {
  // Text that a spreadsheet would take for a formula gets an apostrophe in front.
  let text = value == null ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function csvText() {
  const names = Object.keys(payload.choices);
  const head = [
    "trial",
    "state",
    "accuracy",
    "test_accuracy",
    "parameters",
    "macs",
    "flash",
    "ram",
    "epochs",
    "seconds",
    "fingerprint",
    "network",
    "reason",
    ...names,
  ];
  const lines = shownTrials().map((t) => [
    t.trial,
    payload.states[t.state],
    t.accuracy,
    testOf(t.index)?.mean,
    t.parameters,
    t.macs,
    t.flash,
    t.ram,
    t.epochs,
    t.seconds,
    t.fingerprint,
    t.network,
    t.reason,
    ...names.map((name) => payload.choices[name][t.index]),
  ]);
  return [head, ...lines].map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function downloadCsv() {
  const url = URL.createObjectURL(new Blob([csvText()], { type: "text/csv" }));
  el("a", { href: url, download: "trials.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

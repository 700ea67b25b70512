// The cost on the horizontal axis: parameters, flash, RAM or MACs. Front, budget, card and all plots follow it.

const COUNTED = { few: "few", fewer: "fewer", fewest: "the fewest" };
const BYTES = { few: "little", fewer: "less", fewest: "the least", unitBytes: 1 };
const COSTS = {
  parameters: { ...COUNTED, name: "parameters", unit: "parameters", unitBytes: 4 },
  flash: { ...BYTES, name: "flash", unit: "bytes of flash" },
  ram: { ...BYTES, name: "RAM", unit: "bytes of RAM" },
  macs: { ...COUNTED, name: "MACs", unit: "MACs" },
};

const cost = () => COSTS[state.cost];
const costOf = (trial) => trial[state.cost];
const amount = (value, { unitBytes, name } = cost()) =>
  unitBytes === 1 ? `${bytes(value)} of ${name}` : `${short(value)} ${name}`;

function frontBy(name) {
  // The finished trials that no other finished one beats on accuracy and this cost, as storage/front.py finds them.
  if (name === payload.run.objective) return payload.front.map((index) => trials[index]);
  const found = [];
  const finished = trials
    .filter((trial) => trial.state === COMPLETE && trial.accuracy != null)
    .sort((a, b) => a[name] - b[name] || b.accuracy - a.accuracy || a.index - b.index);
  for (const trial of finished) if (!found.length || trial.accuracy > found.at(-1).accuracy) found.push(trial);
  return found;
}

function setCost(name) {
  state.cost = name;
  front = frontBy(name);
  const members = new Set(front);
  for (const trial of trials) trial.onFront = members.has(trial);
}

function renderCost() {
  // Everything that names the cost and is not drawn anew with the plot of the front or with the card.
  const { name, fewer, unit, unitBytes } = cost();
  const { objective } = payload.run;
  for (const button of document.querySelectorAll("[data-cost]"))
    button.setAttribute("aria-pressed", button.dataset.cost === state.cost);
  byId("cost-note").textContent =
    (state.cost === objective
      ? "The search looked for this front."
      : `The search looked for the front by ${COSTS[objective].name}; this one by ${name} is of the trials it finished.`) +
    (unitBytes === 1 ? " Flash and RAM are those of C code with 8-bit integers, the accuracies those in float32." : "");
  byId("front-words").textContent = `front: none is better with ${fewer} ${name}`;
  byId("front").setAttribute(
    "aria-label",
    `Accuracy against ${name} of all trials. Arrow keys move along the front, Enter shows the network.`,
  );
  byId("budget").setAttribute("aria-label", `Budget of ${name}`);
  byId("budget-number").title = `In ${unit}, such as 12000${unitBytes ? ", 12 k or 48 kB" : " or 12 k"}`;
  showIf("references", knownReferences().length);
  renderFamilies();
}

function setUpCost() {
  for (const button of document.querySelectorAll("[data-cost]")) {
    button.hidden = trials.some((trial) => trial[button.dataset.cost] == null);
    button.addEventListener("click", () => {
      setCost(button.dataset.cost);
      state.zoom = null;
      renderCost();
      renderTable();
      drawPlots();
      followSelected();
      save();
    });
  }
}

function followSelected() {
  // The network shown stays; the budget becomes what it costs now.
  if (front.length) {
    state.budget = costOf(trials[state.selected]);
    state.byBudget = suggestion().trial.index === state.selected;
    showBudget();
  }
  showSelected();
}

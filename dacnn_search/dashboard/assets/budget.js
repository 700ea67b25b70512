// The budget: a slider and a number of parameters (or of what else is on the horizontal axis), and the best network
// that fits.

const STEPS = 1000;

function budgetRange() {
  const sizes = front.map(costOf);
  return [sizes[0] ?? 100, Math.max((sizes.at(-1) ?? 1000) * 1.25, (sizes[0] ?? 100) * 2)];
}

function toStep(budget) {
  const [low, high] = budgetRange();
  return Math.round((STEPS * Math.log(budget / low)) / Math.log(high / low));
}

function fromStep(step) {
  // Rounded to two digits, so that the slider stops at numbers one would say; never below the smallest network.
  const [low, high] = budgetRange();
  const exact = low * (high / low) ** (step / STEPS);
  const unit = 10 ** (Math.floor(Math.log10(exact)) - 1);
  return Math.max(low, Math.round(exact / unit) * unit);
}

function parseBudget(text) {
  // "12000", "12,000", "12 k", "0.5M", "48 kB", "32 KiB" (for parameters, of 32-bit weights) -> a number of the cost's
  // units; null if it is none of these.
  const match = /^\s*([\d.,]+)\s*([kMG]?i?)(B?)\s*$/i.exec(text);
  if (!match || (match[3] && !cost().unitBytes)) return null;
  const factor = { "": 1, k: 1e3, m: 1e6, g: 1e9, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30 }[match[2].toLowerCase()];
  const value = (Number(match[1].replace(/,/g, "")) * factor) / (match[3] ? cost().unitBytes : 1);
  return value > 0 ? Math.round(value) : null;
}

function bestUnder(budget) {
  return front.filter((trial) => costOf(trial) <= budget).at(-1) ?? null;
}

function suggestion() {
  // The network of least cost within one standard error of the most accurate one, and a sentence that says by what: by the
  // test accuracies of the retrained networks if there are several, otherwise by the short trials of the front.
  const tested = [...tests]
    .filter(([, test]) => test)
    .map(([index, test]) => ({ trial: trials[index], ...test }))
    .sort((a, b) => costOf(a.trial) - costOf(b.trial));
  if (tested.length < 2) return suggestionOfTrials();
  const best = tested.reduce((one, other) => (other.mean > one.mean ? other : one));
  const error = Math.hypot(
    standardError(best.mean, payload.run.data?.test),
    best.count > 1 ? best.deviation / Math.sqrt(best.count) : 0,
  );
  const { trial } = tested.find(({ mean }) => mean >= best.mean - error);
  const by = best.count > 1 ? "the test images and the seeds" : "the test images";
  return {
    trial,
    words:
      `Suggested: the one with ${cost().fewest} ${cost().name} of ${tested.length} retrained networks whose test accuracy ` +
      `is within one standard error (${points(error)}, of ${by}) of the best, ${percent(best.mean, accuracyDigits())}`,
  };
}

function suggestionOfTrials() {
  const best = front.at(-1);
  if (!best) return null;
  const error = standardError(best.accuracy);
  return {
    trial: front.find((trial) => trial.accuracy >= best.accuracy - error),
    words:
      `Suggested: the network with ${cost().fewest} ${cost().name} within one standard error of the best, ` +
      "by the validation images",
  };
}

function setBudget(budget) {
  state.budget = budget;
  state.byBudget = true;
  const suggested = suggestion()?.trial;
  const trial = suggested && costOf(suggested) === budget ? suggested : bestUnder(budget);
  state.selected = trial?.index ?? front[0]?.index ?? null;
  showBudget();
  showSelected();
}

function showBudget() {
  const trial = bestUnder(state.budget);
  byId("budget").value = toStep(state.budget);
  if (document.activeElement !== byId("budget-number")) byId("budget-number").value = whole(state.budget);
  const floats = state.cost === "parameters" ? ` (${bytes(4 * state.budget)} as 32-bit floats)` : "";
  byId("budget-size").textContent = cost().unit + floats;
  byId("budget").setAttribute(
    "aria-valuetext",
    `${whole(state.budget)} ${cost().unit}: ` +
      (trial ? `${percent(trial.accuracy, accuracyDigits())} accuracy` : "no network this small"),
  );
}

function setUpBudget() {
  const slider = byId("budget"),
    number = byId("budget-number");
  slider.addEventListener("input", () => setBudget(fromStep(Number(slider.value))));
  slider.addEventListener("change", save);
  number.addEventListener("input", () => {
    const budget = parseBudget(number.value);
    number.setAttribute("aria-invalid", budget == null);
    if (budget != null) setBudget(budget);
  });
  number.addEventListener("change", () => {
    number.value = whole(state.budget);
    number.removeAttribute("aria-invalid");
    save();
  });
  byId("suggest").addEventListener("click", () => {
    setBudget(costOf(suggestion().trial));
    save();
  });
}

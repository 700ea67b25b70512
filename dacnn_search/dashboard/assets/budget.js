// The budget: a slider and a number of parameters, and the best network that fits.

const STEPS = 1000;

function budgetRange() {
  const sizes = front.map((trial) => trial.parameters);
  return [sizes[0] ?? 100, Math.max((sizes.at(-1) ?? 1000) * 1.25, (sizes[0] ?? 100) * 2)];
}

function toStep(parameters) {
  const [low, high] = budgetRange();
  return Math.round((STEPS * Math.log(parameters / low)) / Math.log(high / low));
}

function fromStep(step) {
  // Rounded to two digits, so that the slider stops at numbers one would say; never below the smallest network.
  const [low, high] = budgetRange();
  const exact = low * (high / low) ** (step / STEPS);
  const unit = 10 ** (Math.floor(Math.log10(exact)) - 1);
  return Math.max(low, Math.round(exact / unit) * unit);
}

function parseBudget(text) {
  // "12000", "12,000", "12 k", "0.5M", "48 kB" (of 32-bit weights) -> parameters; null if it is none of these.
  const match = /^\s*([\d.,]+)\s*([kM]?)(B?)\s*$/i.exec(text);
  if (!match) return null;
  const value =
    (Number(match[1].replace(/,/g, "")) * { "": 1, k: 1e3, m: 1e6 }[match[2].toLowerCase()]) / (match[3] ? 4 : 1);
  return value > 0 ? Math.round(value) : null;
}

function bestUnder(parameters) {
  return front.filter((trial) => trial.parameters <= parameters).at(-1) ?? null;
}

function suggestion() {
  // The smallest network of the front within one standard error of the most accurate one.
  const best = front.at(-1);
  return best && front.find((trial) => trial.accuracy >= best.accuracy - standardError(best.accuracy));
}

function setBudget(parameters) {
  state.budget = parameters;
  state.byBudget = true;
  const trial = bestUnder(parameters);
  state.selected = trial?.index ?? front[0]?.index ?? null;
  showBudget();
  showSelected();
}

function showBudget() {
  const trial = bestUnder(state.budget);
  byId("budget").value = toStep(state.budget);
  if (document.activeElement !== byId("budget-number")) byId("budget-number").value = whole(state.budget);
  byId("budget-size").textContent = `parameters (${bytes(state.budget)} as 32-bit floats)`;
  byId("budget").setAttribute(
    "aria-valuetext",
    `${whole(state.budget)} parameters: ` +
      (trial ? `${percent(trial.accuracy, accuracyDigits())} accuracy` : "no network this small"),
  );
}

function setUpBudget() {
  const slider = byId("budget"),
    number = byId("budget-number");
  slider.addEventListener("input", () => setBudget(fromStep(Number(slider.value))));
  slider.addEventListener("change", save);
  number.addEventListener("input", () => {
    const parameters = parseBudget(number.value);
    number.setAttribute("aria-invalid", parameters == null);
    if (parameters != null) setBudget(parameters);
  });
  number.addEventListener("change", () => {
    number.value = whole(state.budget);
    number.removeAttribute("aria-invalid");
    save();
  });
  byId("suggest").addEventListener("click", () => {
    setBudget(suggestion().parameters);
    save();
  });
}

// The families of weight sharing that a run has: how many of each are on the front, and a button that shows one alone.

const FAMILIES = {
  "network sharing": { has: (trial) => sharingOf(trial) === "network", title: "all layers share kernels" },
  "section sharing": { has: (trial) => sharingOf(trial) === "section", title: "the layers of a section share kernels" },
  "second sharing": {
    has: (trial) => sharingOf(trial) === "second",
    title: "the second layers of a section's blocks share kernels",
  },
  "free weights": { has: (trial) => sharingOf(trial) === "none", title: "each layer has a kernel of its own" },
  "learned mixes": { has: (trial) => "mixing" in trial.config, title: "layers mix shared kernels with learned scalars" },
  "separable kernels": {
    has: (trial) => "convolutions" in trial.config,
    title: "a kernel is a 3×3 part per channel and a 1×1 part that combines the channels",
  },
  history: { has: (trial) => "history" in trial.config, title: "layers add their last inputs with learned scalars" },
};

function sharingOf(trial) {
  return [...kernelsOf(trial).values()].some((kernel) => kernel.uses > 1) ? trial.config.sharing : "none";
}

function findFamilies() {
  for (const trial of trials) trial.families = Object.keys(FAMILIES).filter((name) => FAMILIES[name].has(trial));
}

function renderFamilies() {
  const of = (name, group) => group.filter((trial) => trial.families.includes(name)).length;
  const names = Object.keys(FAMILIES).filter((name) => of(name, trials));
  byId("families").hidden = names.length < 2;
  replace(
    "families",
    el("span", {}, "On the front:"),
    names.map((name) =>
      el(
        "button",
        {
          type: "button",
          "data-family": name,
          "aria-pressed": String(state.family === name),
          title: `${FAMILIES[name].title}: ${plural(of(name, trials), "trial")}, ${of(name, front)} on the front`,
          onclick: () => changeFamily(name),
        },
        `${name} `,
        el("b", {}, of(name, front)),
      ),
    ),
  );
}

function changeFamily(name) {
  changeFilter({ family: state.family === name ? null : name });
  renderFamilies();
  byId("families").querySelector(`[data-family="${name}"]`).focus();
}

// The card of one network: what it costs, how good it is, why one would take it, how to train it.

function renderCard(trial, reason) {
  // reason: why this network is shown, a sentence; "" if someone chose it.
  const test = testOf(trial.index),
    int8 = retrainedOf(trial)?.int8;
  const digits = accuracyDigits(),
    error = trial.accuracy && standardError(trial.accuracy);
  replace("card-kicker", reason || `Trial ${trial.trial}${trial.onFront ? ", on the front" : ""}`);
  replace(
    "card-figures",
    figure(
      percent(trial.accuracy, digits),
      "validation accuracy" +
        (trial.state === PRUNED ? " when stopped" : "") +
        (trial.trainings > 1 ? `, mean of ${trial.trainings} trainings` : "") +
        (trial.state !== PRUNED && error ? ` (±${points(error)})` : ""),
    ),
    test &&
      figure(
        percent(test.mean, digits),
        `test accuracy, ${plural(test.count, "seed")}${test.count > 1 ? ` (±${points(test.deviation)})` : ""}`,
      ),
    figure(whole(trial.parameters), `parameters (${bytes(4 * trial.parameters)})`),
    figure(short(trial.macs), "multiply-accumulates per image"),
    trial.flash && figure(bytes(trial.flash), "flash (int8 C code)"),
    trial.flash && figure(bytes(trial.ram), "RAM (int8 C code)"),
    int8?.accuracy != null &&
      figure(
        percent(int8.accuracy, digits),
        `${int8.part ?? "test"} accuracy of the int8 C code (float32: ${percent(int8.float_accuracy, digits)})`,
      ),
    trial.unshared > 1.05 * trial.parameters &&
      figure(`${significant(trial.unshared / trial.parameters)}×`, "smaller than with a kernel per layer"),
  );
  replace("card-network", trial.network);
  replace(
    "card-facts",
    factsOf(trial).map((fact) => el("li", {}, fact)),
  );
  replace(
    "why",
    whyOf(trial).map((sentence) => el("li", {}, sentence)),
  );
  renderDetails(trial);
}

function figure(value, label) {
  return el("div", { class: "figure" }, el("strong", {}, value), el("span", {}, label));
}

function factsOf(trial) {
  const facts = [`trial ${trial.trial}, ${STATE_WORDS[trial.state]}`];
  const times = trial.trainings > 1 ? `${trial.trainings} times ` : "";
  facts.push(`${times}${plural(trial.epochs, "epoch")} in ${duration(trial.seconds)}`);
  const retrained = retrainedOf(trial);
  if (retrained) facts.push(`trained in full: ${retrained.folder}`);
  if (trial.reason) facts.push(trial.reason);
  return facts;
}

// Why it wins ----------------------------------------------------------------------------------------------------------

function whyOf(trial) {
  if (trial.state === FAIL) return [`It failed${trial.reason ? ": " + trial.reason : ""}.`];
  if (trial.state === PRUNED)
    return [
      `It was stopped after ${plural(trial.epochs, "epoch")}, so its accuracy says little.`,
      ...whySharing(trial),
    ];
  return [...whyFront(trial), ...whyPeers(trial), ...whySharing(trial), ...whyChoices(trial)];
}

function whyFront(trial) {
  const place = front.indexOf(trial);
  if (place < 0) {
    const better = front.filter((other) => costOf(other) <= costOf(trial)).at(-1);
    if (!better) return [];
    const gain =
      better.accuracy > trial.accuracy
        ? `is ${points(better.accuracy - trial.accuracy)} more accurate`
        : "is as accurate";
    return [["Not on the front: ", trialLink(better), ` ${gain} with ${amount(costOf(better))}.`]];
  }
  const smaller = front[place - 1],
    larger = front[place + 1];
  const { few, fewest, name } = cost();
  const sentences = [
    `No finished network with as ${few} ${name} is as accurate${smaller ? "" : `; it has ${fewest} of the front`}.`,
  ];
  if (smaller) {
    sentences.push([
      trialLink(smaller, "The next smaller one"),
      ` saves ${amount(costOf(trial) - costOf(smaller))} ` +
        `(${Math.round(100 * (1 - costOf(smaller) / costOf(trial)))}%) and loses ${points(trial.accuracy - smaller.accuracy)}.`,
    ]);
  }
  if (larger) {
    const ratio = costOf(larger) / costOf(trial);
    const price = ratio < 2 ? `${significant(100 * (ratio - 1), 2)}% more` : `${significant(ratio, 2)} times the`;
    sentences.push([
      trialLink(larger, "The next larger one"),
      ` gains ${points(larger.accuracy - trial.accuracy)} for ${price} ${name}.`,
    ]);
  } else sentences.push("It is the most accurate network of the search.");
  return sentences;
}

function whyPeers(trial) {
  const peers = trials.filter(
    (other) =>
      other.state === COMPLETE &&
      other !== trial &&
      costOf(other) >= costOf(trial) / 2 &&
      costOf(other) <= 2 * costOf(trial),
  );
  if (peers.length < 4) return [];
  const accuracies = peers.map((other) => other.accuracy).sort((a, b) => a - b);
  const median = accuracies[Math.floor(accuracies.length / 2)];
  const difference = trial.accuracy - median;
  return [
    `Of ${whole(peers.length)} other finished networks with half to twice its ${cost().name}, half reach ${percent(median, accuracyDigits())} or less: ` +
      (Math.abs(difference) < 5e-4
        ? "it is about as good."
        : `it is ${points(Math.abs(difference))} ${difference > 0 ? "better" : "worse"}.`),
  ];
}

function whySharing(trial) {
  const saved = trial.unshared / trial.parameters;
  return saved > 1.05
    ? [
        `With a kernel of its own in each layer it would have ${short(trial.unshared)} parameters; sharing saves ${Math.round(100 - 100 / saved)}%.`,
      ]
    : [];
}

function whyChoices(trial) {
  const helping = [];
  for (const { choice, share, effects } of payload.importance.choices) {
    const value = payload.choices[choice]?.[trial.index];
    const effect = effects.find(({ value: label, range }) =>
      range ? range[0] <= value && value <= range[1] : label === String(value),
    );
    if (share >= 0.02 && effect?.effect > 5e-4)
      helping.push(`${choiceWords(choice)} = ${value} (+${points(effect.effect)})`);
  }
  return helping.length
    ? [`Its choices that go with more accuracy at equal size: ${helping.slice(0, 3).join(", ")}.`]
    : [];
}

function trialLink(trial, words) {
  return el(
    "button",
    { type: "button", class: "link", onclick: () => choose(trial.index) },
    words ?? `trial ${trial.trial}`,
  );
}

// The drawing, the curve, the config -----------------------------------------------------------------------------------

function renderDetails(trial) {
  replace("network-title", `The network of trial ${trial.trial}`);
  replace("drawing", drawNetwork(trial, mostWidth));
  replace("kernels", kernelLegend(trial));
  replace("parts", partsBar(trial));
  const retrained = retrainedOf(trial);
  byId("command").textContent = commandOf(trial, retrained);
  byId("export").hidden = !retrained;
  byId("export-command").textContent =
    `python -m dacnn_search.export ${quoteForShell(payload.run.folder)} --trial ${trial.trial} --c`;
  byId("config").textContent = retrained?.config ?? architectureYaml(trial);
  byId("config-name").textContent = retrained?.config ? `${retrained.folder}/config.yaml` : "Architecture";
}

function partsBar(trial) {
  // Where the parameters are: a bar with one stretch per part of the network.
  const parts = payload.parts
    .map((name, index) => ({ name, index, count: trial.parts[index] }))
    .filter((part) => part.count);
  const total = parts.reduce((sum, part) => sum + part.count, 0);
  const share = (part) => `${significant((100 * part.count) / total, 2)}%`;
  return [
    el(
      "div",
      {
        class: "bar",
        role: "img",
        "aria-label": "Where the parameters are: " + parts.map((part) => `${part.name} ${share(part)}`).join(", "),
      },
      parts.map((part) =>
        el("span", {
          class: `part-${part.index}`,
          style: `flex-grow:${part.count}`,
          title: `${part.name}: ${short(part.count)}`,
        }),
      ),
    ),
    el(
      "ul",
      { class: "legend" },
      parts.map((part) =>
        el(
          "li",
          {},
          el("span", { class: `swatch part-${part.index}` }),
          ` ${part.name} ${short(part.count)} (${share(part)})`,
        ),
      ),
    ),
  ];
}

function quoteForShell(path) {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replace(/'/g, `'\\''`)}'`;
}

function commandOf(trial, retrained) {
  const command = "python -m dacnn_search.train";
  const at = (path) => quoteForShell(`${payload.run.folder}/${path}`);
  if (!retrained) return `${command} --run ${quoteForShell(payload.run.folder)} --trial ${trial.trial}`;
  const teacher = retrained.teacher ? ` --teacher ${at(retrained.teacher)}` : "";
  return `${command} --config ${at(`${retrained.folder}/config.yaml`)}${teacher}`;
}

function architectureYaml(trial) {
  const { sections, ...rest } = trial.config;
  const lines = (values, indent) => Object.entries(values).map(([key, value]) => `${indent}${key}: ${value}`);
  const section = (values) => lines(values, "      ").join("\n").replace("      ", "    - ");
  return ["architecture:", "  sections:", ...sections.map(section), ...lines(rest, "  "), ""].join("\n");
}

async function copyText(id, button) {
  // Through the clipboard, or where a page from disk may not use it, through a selection.
  const text = byId(id).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(byId(id));
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  const words = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = words), 1500);
}

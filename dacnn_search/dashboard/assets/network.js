// The drawing of one network, and the kernels it is made of.
// Colour and letter mean a kernel that several layers share; a box of several colours has a learned mix of such kernels,
// a box without colour a kernel of its own.

const KERNEL_COLORS = ["#e69f00", "#56b4e9", "#2bb58c", "#f0e442", "#d98cb3", "#e57c45", "#a9b8ff", "#c9c9a3"];
const LETTERS = "ABCDEFGHIJKLMNOPQRUVWXYZ"; // S is the stem, T a transition
const BOX = 22,
  MIXED_BOX = 34,
  GAP = 8,
  BLOCK_GAP = 16,
  PAD = 16,
  AXIS = 114; // pixels

function sectionsOf(trial) {
  // The sections of a trial's drawing (see payload.py): lists of blocks with layers {anchors, regulator, history}.
  return trial.drawing.map((blocks) =>
    blocks.map(([layers, shortcut]) => ({
      shortcut,
      layers: layers.map(([anchors, regulator, history]) => ({ anchors, regulator, history })),
    })),
  );
}

const layersOf = (trial) => sectionsOf(trial).flat().flatMap((block) => block.layers);
const isTransition = (layer) => !layer.anchors.length;
const isSeparable = (trial) => "convolutions" in trial.config;
const isMixed = (layer) => layer.anchors.length > 1;
const longestHistory = (trial) => Math.max(...layersOf(trial).map((layer) => layer.history));

function kernelsOf(trial) {
  // The kernels of a network: Map of anchor -> {uses, mixed, width, letter, color}; letter and colour only if used twice
  // or more.
  const kernels = new Map();
  sectionsOf(trial).forEach((blocks, section) => {
    for (const layer of blocks.flatMap((block) => block.layers)) {
      for (const anchor of layer.anchors) {
        const kernel = kernels.get(anchor) ?? { uses: 0, width: trial.config.sections[section].width };
        kernel.uses += 1;
        kernel.mixed = isMixed(layer);
        kernels.set(anchor, kernel);
      }
    }
  });
  [...kernels.values()]
    .filter((kernel) => kernel.uses > 1)
    .forEach((kernel, index) => {
      const turn = Math.floor(index / LETTERS.length);
      kernel.letter = LETTERS[index % LETTERS.length] + (turn ? turn + 1 : "");
      kernel.color = KERNEL_COLORS[index % KERNEL_COLORS.length];
    });
  return kernels;
}

function mixesOf(trial) {
  // The learned mixes of a network: Map of their anchors in words -> {letter, letters, colors, uses, width}. The letters
  // of one mix follow each other: A+B, A–D.
  const kernels = kernelsOf(trial);
  const mixes = new Map();
  for (const { anchors } of layersOf(trial).filter(isMixed)) {
    const mixed = anchors.map((anchor) => kernels.get(anchor));
    const letters = mixed.map((kernel) => kernel.letter);
    const letter = `${letters[0]}${letters.length > 2 ? "–" : "+"}${letters.at(-1)}`;
    const { uses, width } = mixed[0];
    mixes.set(anchors.join("-"), { letter, letters, colors: mixed.map((kernel) => kernel.color), uses, width });
  }
  return mixes;
}

function drawNetwork(trial, mostWidth) {
  // An <svg> of one network from image to classes; `mostWidth` channels are the highest box.
  const sections = sectionsOf(trial);
  const widths = trial.config.sections.map((section) => section.width);
  const looks = { kernels: kernelsOf(trial), mixes: mixesOf(trial), convolution: convolutionOf(trial) };
  const [channels, rows, columns] = payload.run.data?.input_shape ?? [1, 32, 32];
  const height = (width) => 18 + 60 * Math.sqrt(width / mostWidth);
  const rails = railsOf(longestHistory(trial));
  const back = [],
    boxes = [],
    places = []; // of the layers: {before, after, history}
  let x = 4;
  x = endpoint(boxes, x, "image", `${rows}×${columns}`, `${channels} ch.`);
  x = box(boxes, x + GAP, height(widths[0]), { letter: "S" }, "stem: a 3×3 convolution with a kernel of its own") + GAP;
  sections.forEach((blocks, index) => {
    const size = [Math.floor(rows / 2 ** index), Math.floor(columns / 2 ** index)];
    if (index > 0) x = pooling(boxes, x);
    const start = x,
      inside = blocks.reduce((sum, block) => sum + blockWidth(block), -BLOCK_GAP);
    x += Math.max(PAD, (84 - inside) / 2);
    for (const block of blocks) x = drawBlock(boxes, places, block, x, looks, height(widths[index]), widths[index]);
    x = Math.max(x - BLOCK_GAP + PAD, start + 84);
    back.push(panel(start, x - start, size[0] / rows, index, size, widths[index], rails.height));
    x += GAP;
  });
  x = endpoint(boxes, x + 2, "average", "pooling", "");
  x = endpoint(boxes, x + GAP, "output", plural(payload.run.data?.num_classes ?? 10, "class", "classes"), "");
  const line = svg("line", { x1: 20, x2: x - 20, y1: AXIS, y2: AXIS, class: "wire" });
  const label = describeNetwork(trial);
  return svg(
    "svg",
    {
      viewBox: `0 ${-rails.height} ${x + 4} ${178 + rails.height}`,
      role: "img",
      "aria-label": label,
      class: "network",
      style: `width: max(min(100%, ${Math.round(x * 1.15)}px), ${Math.round(x * 0.75)}px)`,
    },
    svg("defs", {}, [...looks.mixes].map(gradient)),
    back,
    line,
    rails.height > 0 && drawHistory(places, rails),
    boxes,
  );
}

function gradient([anchors, { colors }]) {
  // The fill of a box with a mixed kernel: a stripe per kernel.
  const stop = (color, place) => svg("stop", { offset: place / colors.length, "stop-color": color });
  return svg(
    "linearGradient",
    { id: `mix-${anchors}` },
    colors.map((color, place) => [stop(color, place), stop(color, place + 1)]),
  );
}

function panel(x, width, share, index, size, channels, rails) {
  const above = 56 + 16 * share + rails,
    below = 44 + 16 * share;
  const lines = [`Section ${index + 1}`, `${size[0]}×${size[1]} pixels`, `${channels} channels`];
  const text = lines.map((line, row) =>
    svg("text", { x: x + width / 2, y: 10 + 12 * row - rails, class: row ? "label" : "label strong" }, line),
  );
  return svg("g", {}, svg("rect", { x, y: AXIS - above, width, height: above + below, rx: 6, class: "section" }), text);
}

const boxWidth = (layer) => (isMixed(layer) ? MIXED_BOX : BOX);

function landing(block, index) {
  // The room behind a layer's box, before its regulator, that a shortcut needs to be added there.
  const layer = block.layers[index];
  const ends = block.shortcut !== "none" && index === block.layers.length - 1;
  return layer.history || (ends && layer.regulator) ? 8 : 0;
}

function blockWidth(block) {
  const widths = block.layers.map(
    (layer, index) => boxWidth(layer) + landing(block, index) + (layer.regulator ? 12 : 0) + GAP,
  );
  return widths.reduce((sum, width) => sum + width, -GAP) + BLOCK_GAP;
}

function drawBlock(boxes, places, block, x, looks, height, width) {
  const start = x - 6;
  let end = x;
  block.layers.forEach((layer, index) => {
    const look = lookOf(layer, looks, width);
    const before = x - 5;
    x = box(boxes, x, height, look, `${looks.convolution}: ${look.what}${historyOf(layer)}`, boxWidth(layer));
    end = x + 6;
    places.push({ before, after: end, history: layer.history });
    x += landing(block, index);
    if (layer.regulator) {
      boxes.push(
        svg(
          "path",
          { d: `M${x + 6} ${AXIS - 5} l5 5 l-5 5 l-5 -5 z`, class: "regulator" },
          svg("title", {}, `regulator: a 1×1 convolution of ${width} channels`),
        ),
      );
      x += 12;
    }
    x += GAP;
  });
  if (block.shortcut !== "none") shortcut(boxes, start, end, AXIS - height / 2 - 12, block.shortcut);
  return x - GAP + BLOCK_GAP;
}

function lookOf(layer, { kernels, mixes }, width) {
  // The letter and, of shared kernels, the fill of a layer's box, and what its kernel is in words.
  if (isTransition(layer)) return { letter: "T", what: `transition to ${width} channels, with a kernel of its own` };
  if (isMixed(layer)) {
    const anchors = layer.anchors.join("-");
    const { letter, letters } = mixes.get(anchors);
    return { letter, fill: `url(#mix-${anchors})`, what: `learned mix of the kernels ${listed(letters)}` };
  }
  const { letter, color, uses } = kernels.get(layer.anchors[0]);
  const what = color ? `shared kernel ${letter}, used in ${uses} layers` : "a kernel of its own";
  return { letter, fill: color, what };
}

const convolutionOf = (trial) => (isSeparable(trial) ? "separable 3×3 convolution" : "3×3 convolution");
const listed = (words) => `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

function historyOf({ history }) {
  if (!history) return "";
  return history === 1 ? "; adds its input" : `; adds its last ${history} inputs`;
}

function box(boxes, x, height, look, title, width = BOX) {
  boxes.push(
    svg(
      "g",
      {},
      svg("title", {}, title),
      svg("rect", {
        x,
        y: AXIS - height / 2,
        width,
        height,
        rx: 3,
        class: look.fill ? "layer shared" : "layer",
        fill: look.fill ?? "var(--panel)",
      }),
      look.letter &&
        svg("text", { x: x + width / 2, y: AXIS + 4, class: look.fill ? "letter on" : "letter" }, look.letter),
    ),
  );
  return x + width;
}

function shortcut(boxes, from, to, top, kind) {
  const path = `M${from} ${AXIS} V${top + 8} Q${from} ${top} ${from + 8} ${top} H${to - 8} Q${to} ${top} ${to} ${top + 8} V${AXIS}`;
  boxes.push(
    svg(
      "path",
      { d: path, class: `shortcut ${kind}` },
      svg("title", {}, kind === "identity" ? "shortcut" : "shortcut through a 1×1 convolution"),
    ),
  );
}

// The history: above the layers runs a rail for each input that later layers still add. -------------------------------

function railsOf(history) {
  const step = Math.min(4, Math.max(1.5, 20 / Math.max(history, 1)));
  return { count: history, step, height: history ? step * (history - 1) + 10 : 0 };
}

function drawHistory(places, { count, step, height }) {
  // An input rises to a rail, runs along it to the last layer that adds it, and comes down behind each, with the others.
  const top = AXIS - 44 - height; // clear of the highest box
  const rails = [],
    drops = [],
    joints = [];
  let first = 0; // the layer that the history begins with
  places.forEach((layer, index) => {
    if (!layer.history) first = index + 1;
    else {
      const level = (input) => top + step * ((input - first) % count);
      const last = places.findIndex((other, i) => i > index && (i === index + count || !other.history));
      const end = places.at(last < 0 ? -1 : last - 1).after;
      const y = level(index);
      rails.push(`M${layer.before} ${AXIS} V${y + 3} Q${layer.before} ${y} ${layer.before + 3} ${y} H${end}`);
      const added = Array.from({ length: layer.history }, (_, i) => level(index - i));
      drops.push(`M${layer.after} ${Math.min(...added)} V${AXIS - 1} m-3 -6 l3 6 l3 -6`);
      joints.push(...added.map((at) => `M${layer.after} ${at} h0`));
    }
  });
  return svg(
    "g",
    { class: "history" },
    svg("title", {}, `history: a layer adds its last inputs, ${count} at most, each times a learned scalar`),
    svg("path", { d: rails.join(" "), class: "rail" }),
    svg("path", { d: drops.join(" ") }),
    svg("path", { d: joints.join(" "), class: "joint" }),
  );
}

function pooling(boxes, x) {
  boxes.push(
    svg(
      "path",
      { d: `M${x} ${AXIS - 22} L${x + 14} ${AXIS - 11} V${AXIS + 11} L${x} ${AXIS + 22} z`, class: "pooling" },
      svg("title", {}, "2×2 max pooling: half the resolution"),
    ),
  );
  return x + 14 + GAP;
}

function endpoint(boxes, x, ...lines) {
  const words = lines.filter((line) => line);
  const width = Math.max(...words.map((word) => word.length)) * 6 + 10;
  boxes.push(
    svg("rect", { x, y: AXIS - 9 * words.length - 4, width, height: 18 * words.length + 8, rx: 9, class: "endpoint" }),
    words.map((word, row) =>
      svg("text", { x: x + width / 2, y: AXIS + 4 + 16 * (row - (words.length - 1) / 2), class: "label" }, word),
    ),
  );
  return x + width;
}

function describeNetwork(trial) {
  const kernels = [...kernelsOf(trial).values()];
  const blocks = sectionsOf(trial).flat();
  const layers = layersOf(trial).filter((layer) => !isTransition(layer));
  const history = longestHistory(trial);
  const parts = trial.config.sections.map(
    ({ depth, width, regulators }, index) =>
      `section ${index + 1}: ${depth} deep, ${width} channels` +
      (regulators === "none" ? "" : `, a regulator per ${regulators}`),
  );
  parts.push(
    kernels.some((kernel) => kernel.uses > 1)
      ? `${plural(kernels.length, "kernel")} for ${plural(layers.length, "layer")}`
      : "a kernel of its own in each layer",
  );
  if (layers.some(isMixed)) parts.push(`learned mixes of kernels in ${plural(layers.filter(isMixed).length, "layer")}`);
  if (blocks.some((block) => block.shortcut !== "none")) parts.push("with shortcuts");
  if (isSeparable(trial)) parts.push("separable kernels");
  if (history) parts.push(`each layer adds its last inputs, ${history} at most`);
  return `Drawing of the network: ${parts.join("; ")}.`;
}

function kernelLegend(trial) {
  // What the boxes mean: each shared kernel with its size and uses, and the marks.
  const blocks = sectionsOf(trial).flat();
  const kernels = [...kernelsOf(trial).values()];
  const shared = kernels.filter((kernel) => kernel.uses > 1);
  const mixes = [...mixesOf(trial).values()];
  const own = kernels.length - shared.length;
  const layers = layersOf(trial);
  const history = longestHistory(trial);
  const used = shared.filter((kernel) => !kernel.mixed);
  const items = used
    .slice(0, 12)
    .map(({ letter, color, uses, width }) =>
      el("li", {}, chip(letter, color), ` shared kernel of ${weights(trial, width)}, used in ${plural(uses, "layer")}`),
    );
  if (used.length > 12) items.push(el("li", {}, `and ${used.length - 12} more shared kernels`));
  for (const { letter, letters, colors, uses, width } of mixes.slice(0, 12)) {
    const kernels = `${letters.length} shared kernels of ${weights(trial, width)} each`;
    items.push(
      el("li", {}, chip(letter, stripes(colors)), ` learned mix of ${kernels}, in ${plural(uses, "layer")}`),
    );
  }
  if (mixes.length > 12) items.push(el("li", {}, `and ${mixes.length - 12} more learned mixes`));
  if (own)
    items.push(
      el("li", {}, el("span", { class: "chip plain" }, " "), ` ${plural(own, "layer with a kernel of its own", "layers with kernels of their own")}`),
    );
  items.push(el("li", {}, el("span", { class: "chip plain" }, "S"), " stem"));
  if (layers.some(isTransition))
    items.push(el("li", {}, el("span", { class: "chip plain" }, "T"), " transition to another width"));
  if (layers.some((layer) => layer.regulator))
    items.push(el("li", {}, el("span", { class: "diamond" }, "◆"), " regulator (1×1 convolution)"));
  if (blocks.some((block) => block.shortcut === "identity"))
    items.push(el("li", {}, el("span", { class: "arc" }), " shortcut"));
  if (blocks.some((block) => block.shortcut === "projection"))
    items.push(el("li", {}, el("span", { class: "arc projection" }), " shortcut through a 1×1 convolution"));
  if (history)
    items.push(
      el(
        "li",
        {},
        svg(
          "svg",
          { viewBox: "0 0 22 16", class: "history" },
          svg("path", { d: "M0 2 h18 M0 6 h18", class: "rail" }),
          svg("path", { d: "M18 2 V14 m-3 -6 l3 6 l3 -6" }),
          svg("path", { d: "M18 2 h0 M18 6 h0", class: "joint" }),
        ),
        history === 1
          ? " history: a layer adds its input, times a learned scalar"
          : ` history: a layer adds its last inputs, ${history} at most, each times a learned scalar`,
      ),
    );
  if (isSeparable(trial))
    items.push(el("li", {}, "kernels outside of the stem are separable: a 3×3 kernel per channel, then a 1×1 convolution"));
  if (trial.drawing.length > 1) items.push(el("li", {}, el("span", { class: "funnel" }), " 2×2 max pooling"));
  return el("ul", { class: "legend" }, items);
}

const weights = (trial, width) => `${short(width * (isSeparable(trial) ? 9 + width : 9 * width))} weights`;
const chip = (letter, background) => el("span", { class: "chip", style: `background:${background}` }, letter);

function stripes(colors) {
  const share = 100 / colors.length;
  const stops = colors.map((color, place) => `${color} ${place * share}% ${(place + 1) * share}%`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

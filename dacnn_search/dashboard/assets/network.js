// The drawing of one network, and the kernels it is made of.
// Colour and letter mean a kernel that several layers share; a box without colour has a kernel of its own.

const KERNEL_COLORS = ["#e69f00", "#56b4e9", "#2bb58c", "#f0e442", "#d98cb3", "#e57c45", "#a9b8ff", "#c9c9a3"];
const LETTERS = "ABCDEFGHIJKLMNOPQRUVWXYZ"; // S is the stem, T a transition
const BOX = 22,
  GAP = 8,
  BLOCK_GAP = 16,
  PAD = 16,
  AXIS = 114; // pixels

function sectionsOf(trial) {
  // The sections of a trial's drawing (see payload.py): lists of blocks with layers {kernel, transition, regulator}.
  return trial.drawing.map((blocks) =>
    blocks.map(([layers, shortcut]) => ({
      shortcut,
      layers: layers.map(([kernel, regulator]) => ({ kernel, transition: kernel === null, regulator })),
    })),
  );
}

const widthsOf = (trial) => trial.config[0].map((section) => section[1]);

function kernelsOf(trial) {
  // The kernels of a network: Map of kernel -> {uses, width, letter, color}; letter and colour only if used twice or more.
  const kernels = new Map();
  sectionsOf(trial).forEach((blocks, section) => {
    for (const layer of blocks.flatMap((block) => block.layers)) {
      if (layer.transition) continue;
      const kernel = kernels.get(layer.kernel) ?? { uses: 0, width: widthsOf(trial)[section] };
      kernel.uses += 1;
      kernels.set(layer.kernel, kernel);
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

function drawNetwork(trial, mostWidth) {
  // An <svg> of one network from image to classes; `mostWidth` channels are the highest box.
  const sections = sectionsOf(trial);
  const widths = widthsOf(trial);
  const kernels = kernelsOf(trial);
  const [channels, rows, columns] = payload.run.data?.input_shape ?? [1, 32, 32];
  const height = (width) => 18 + 60 * Math.sqrt(width / mostWidth);
  const back = [],
    boxes = [];
  let x = 4;
  x = endpoint(boxes, x, "image", `${rows}×${columns}`, `${channels} ch.`);
  x = box(boxes, x + GAP, height(widths[0]), { letter: "S" }, "stem: a 3×3 convolution with a kernel of its own") + GAP;
  sections.forEach((blocks, index) => {
    const size = [Math.floor(rows / 2 ** index), Math.floor(columns / 2 ** index)];
    if (index > 0) x = pooling(boxes, x);
    const start = x,
      inside = blocks.reduce((sum, block) => sum + blockWidth(block), -BLOCK_GAP);
    x += Math.max(PAD, (84 - inside) / 2);
    for (const block of blocks) x = drawBlock(boxes, block, x, kernels, height(widths[index]), widths[index]);
    x = Math.max(x - BLOCK_GAP + PAD, start + 84);
    back.push(panel(start, x - start, size[0] / rows, index, size, widths[index]));
    x += GAP;
  });
  x = endpoint(boxes, x + 2, "average", "pooling", "");
  x = endpoint(boxes, x + GAP, "output", plural(payload.run.data?.num_classes ?? 10, "class", "classes"), "");
  const line = svg("line", { x1: 20, x2: x - 20, y1: AXIS, y2: AXIS, class: "wire" });
  const label = describeNetwork(trial);
  return svg(
    "svg",
    {
      viewBox: `0 0 ${x + 4} 178`,
      role: "img",
      "aria-label": label,
      class: "network",
      style: `width: max(min(100%, ${Math.round(x * 1.15)}px), ${Math.round(x * 0.75)}px)`,
    },
    back,
    line,
    boxes,
  );
}

function panel(x, width, share, index, size, channels) {
  const above = 56 + 16 * share,
    below = 44 + 16 * share;
  const lines = [`Section ${index + 1}`, `${size[0]}×${size[1]} pixels`, `${channels} channels`];
  const text = lines.map((line, row) =>
    svg("text", { x: x + width / 2, y: 10 + 12 * row, class: row ? "label" : "label strong" }, line),
  );
  return svg("g", {}, svg("rect", { x, y: AXIS - above, width, height: above + below, rx: 6, class: "section" }), text);
}

function blockWidth(block) {
  return block.layers.reduce((sum, layer) => sum + BOX + GAP + (layer.regulator ? 12 : 0), -GAP) + BLOCK_GAP;
}

function drawBlock(boxes, block, x, kernels, height, width) {
  const start = x - 6;
  for (const layer of block.layers) {
    const kernel = layer.transition ? { letter: "T" } : kernels.get(layer.kernel);
    const what = layer.transition
      ? `transition to ${width} channels, with a kernel of its own`
      : kernel.color
        ? `shared kernel ${kernel.letter}, used ${kernel.uses} times`
        : "a kernel of its own";
    x = box(boxes, x, height, kernel, `3×3 convolution: ${what}`);
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
  }
  x -= GAP;
  if (block.shortcut !== "none") shortcut(boxes, start, x + 6, AXIS - height / 2 - 12, block.shortcut);
  return x + BLOCK_GAP;
}

function box(boxes, x, height, kernel, title) {
  const fillColor = kernel?.color;
  boxes.push(
    svg(
      "g",
      {},
      svg("title", {}, title),
      svg("rect", {
        x,
        y: AXIS - height / 2,
        width: BOX,
        height,
        rx: 3,
        class: fillColor ? "layer shared" : "layer",
        fill: fillColor ?? "var(--panel)",
      }),
      kernel?.letter &&
        svg("text", { x: x + BOX / 2, y: AXIS + 4, class: fillColor ? "letter on" : "letter" }, kernel.letter),
    ),
  );
  return x + BOX;
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
  const shared = kernels.filter((kernel) => kernel.uses > 1);
  const layers = kernels.reduce((sum, kernel) => sum + kernel.uses, 0);
  const kinds = shared.length
    ? `${plural(kernels.length, "kernel")} for ${plural(layers, "layer")}`
    : "a kernel of its own in each layer";
  const parts = trial.config[0].map(
    ([depth, width, regulators], index) =>
      `section ${index + 1}: ${depth} deep, ${width} channels` +
      (regulators === "none" ? "" : `, a regulator per ${regulators}`),
  );
  return `Drawing of the network: ${parts.join("; ")}; ${kinds}${trial.config[3] ? "; with shortcuts" : ""}.`;
}

function kernelLegend(trial) {
  // What the boxes mean: each shared kernel with its size and uses, and the marks.
  const sections = sectionsOf(trial);
  const kernels = [...kernelsOf(trial).values()];
  const shared = kernels.filter((kernel) => kernel.uses > 1);
  const own = kernels.length - shared.length;
  const layers = sections.flat().flatMap((block) => block.layers);
  const items = shared
    .slice(0, 12)
    .map((kernel) =>
      el(
        "li",
        {},
        el("span", { class: "chip", style: `background:${kernel.color}` }, kernel.letter),
        ` shared kernel of ${short(9 * kernel.width ** 2)} weights, used ${kernel.uses} times`,
      ),
    );
  if (shared.length > 12) items.push(el("li", {}, `and ${shared.length - 12} more shared kernels`));
  if (own)
    items.push(
      el("li", {}, el("span", { class: "chip plain" }, " "), ` ${plural(own, "layer")} with a kernel of its own`),
    );
  items.push(el("li", {}, el("span", { class: "chip plain" }, "S"), " stem"));
  if (layers.some((layer) => layer.transition))
    items.push(el("li", {}, el("span", { class: "chip plain" }, "T"), " transition to another width"));
  if (layers.some((layer) => layer.regulator))
    items.push(el("li", {}, el("span", { class: "diamond" }, "◆"), " regulator (1×1 convolution)"));
  if (sections.flat().some((block) => block.shortcut !== "none"))
    items.push(el("li", {}, el("span", { class: "arc" }), " shortcut"));
  if (sections.length > 1) items.push(el("li", {}, el("span", { class: "funnel" }), " 2×2 max pooling"));
  return el("ul", { class: "legend" }, items);
}

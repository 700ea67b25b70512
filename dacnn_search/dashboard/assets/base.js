"use strict";
// What all pages share: the payload, numbers in words, building elements, what is remembered over a reload, the theme.

const payload = JSON.parse(document.getElementById("payload").textContent);
const byId = (id) => document.getElementById(id);

// Numbers in words ---------------------------------------------------------------------------------------------------

const whole = (value) => Math.round(value).toLocaleString("en-GB");
const significant = (value, digits = 2) => value.toLocaleString("en-GB", { maximumSignificantDigits: digits });
const scaled = (value) => value.toLocaleString("en-GB", { maximumFractionDigits: value < 99.95 ? 1 : 0 });
const points = (difference) => `${(100 * difference).toFixed(1).replace(/^-0\.0$/, "0.0")} points`;
const choiceWords = (name) => name.replace(/_(\d+)$/, " in section $1").replace(/_/g, " "); // "depth in section 1"
const plural = (count, word, words = word + "s") => `${whole(count)} ${count === 1 ? word : words}`;

function short(value) {
  // 1,234 -> "1.2 k"; to be followed by a unit. The space does not break.
  for (const [size, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (value >= size * 0.9995) return `${scaled(value / size)}\u00a0${letter}`;
  }
  return whole(value);
}

function bytes(size) {
  for (const [unit, letter] of [
    [1e9, "GB"],
    [1e6, "MB"],
    [1e3, "kB"],
  ]) {
    if (size >= unit) return `${scaled(size / unit)}\u00a0${letter}`;
  }
  return `${size} bytes`;
}

function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${significant(minutes / 1440, 3)} days`;
}

// The title of an axis of time, and how many seconds its unit has.
const searchTime = (most) => (most > 4 * 3600 ? ["hours of search", 3600] : ["minutes of search", 60]);

function percent(accuracy, digits = 1) {
  return accuracy == null ? "–" : `${(100 * accuracy).toFixed(digits)}%`;
}

function moment(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.valueOf())) return "";
  return time.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

// Elements: text only ever enters as a text node -----------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const replace = (id, ...children) =>
  byId(id).replaceChildren(...children.flat(Infinity).filter((c) => c != null && c !== false));

// What is remembered over a reload of this page ------------------------------------------------------------------------

const memoryKey = `dacnn_search ${location.pathname} ${payload.run?.started ?? ""}`;

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(memoryKey)) ?? {};
  } catch {
    return {};
  }
}

function remember(values) {
  try {
    sessionStorage.setItem(memoryKey, JSON.stringify(values));
  } catch {
    // Without storage the page starts afresh.
  }
}

// Theme ----------------------------------------------------------------------------------------------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function applyTheme(theme) {
  // theme: "light", "dark", or undefined for that of the system.
  const dark = theme ? theme === "dark" : prefersDark.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = dark ? "Light theme" : "Dark theme";
}

function color(name) {
  // A colour of the style sheet in the current theme, as the browser resolves it.
  const probe = byId("theme");
  probe.style.color = `var(--${name})`;
  const resolved = getComputedStyle(probe).color;
  probe.style.color = "";
  return resolved;
}

// Plots ----------------------------------------------------------------------------------------------------------------

const plotText = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const narrow = () => innerWidth < 640;
const touch = matchMedia("(pointer: coarse)").matches;

function axis(title, more = {}) {
  const line = color("line");
  return {
    title: { text: title, font: { size: 12, color: color("muted") }, standoff: 8 },
    gridcolor: line,
    linecolor: line,
    zeroline: false,
    ticks: "outside",
    tickcolor: line,
    ticklen: 4,
    tickfont: { size: 11, color: color("muted") },
    fixedrange: touch,
    automargin: false,
    ...more,
  };
}

function logAxis(title, low, high, more = {}) {
  // A log axis with ticks at 1, 2 and 5 of each decade, or fewer over many decades: 200, 500, 1 k, 2 k.
  const ticks = [];
  const steps = Math.log10(high / low) > (narrow() ? 1.6 : 4) ? [1] : [1, 2, 5];
  for (let decade = Math.floor(Math.log10(low)) - 1; decade <= Math.ceil(Math.log10(high)); decade++) {
    for (const step of steps) ticks.push(step * 10 ** decade);
  }
  const range = [Math.log10(low), Math.log10(high)];
  return axis(title, { type: "log", range, tickvals: ticks, ticktext: ticks.map((tick) => short(tick)), ...more });
}

// The vertical axis of errors: minus the logarithm of the error, with ticks that say the accuracy.

const leastError = () => 0.5 / (payload.run?.data?.validation ?? 5000);
const fromError = (accuracy) => (accuracy == null ? null : -Math.log10(Math.max(1 - accuracy, leastError())));

function errorAxis(title, more = {}) {
  const errors = [0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001].filter(
    (error) => error >= leastError() * 0.9,
  );
  return axis(title, {
    tickvals: errors.map((e) => -Math.log10(e)),
    ticktext: errors.map((e) => `${significant(100 * (1 - e), 4)}%`),
    ...more,
  });
}

function draw(id, traces, layout, config = {}) {
  const base = {
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", color: color("ink"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 54, r: 14, t: 10, b: 44 },
    hovermode: "closest",
    dragmode: touch ? false : "zoom",
    showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("ink") },
    // Plotly adapts to a new width only after a while, too late for printing.
    ...(document.documentElement.classList.contains("printing") && { width: byId(id).clientWidth }),
    hoverlabel: {
      bgcolor: color("panel"),
      bordercolor: color("muted"),
      font: { color: color("ink"), size: 12 },
      align: "left",
    },
  };
  const buttons = ["zoom2d", "pan2d", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"];
  return Plotly.react(
    byId(id),
    traces,
    { ...base, ...layout },
    {
      displaylogo: false,
      showSendToCloud: false, // a button that uploads the plot
      responsive: true,
      doubleClick: "reset",
      modeBarButtonsToRemove: buttons,
      displayModeBar: touch ? false : "hover",
      toImageButtonOptions: { filename: id, scale: 2 },
      ...config,
    },
  );
}

function hover(lines) {
  return lines
    .filter((line) => line)
    .map(plotText)
    .join("<br>");
}

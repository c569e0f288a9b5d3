// Line charts: curves with bands, named horizontal lines, zoom, and a tip that follows mouse, touch and keys.
// uPlot (MIT license, in uplot/) draws them.

const MANY_LINES = 20; // thinner lines in charts of more
const LEAST_SPAN = 1e-3; // least length of the value axis, as a share of the largest value

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return +(value / 1e6).toFixed(2) + "M";
  if (size >= 1e4) return +(value / 1e3).toFixed(1) + "k";
  if (size && size < 1e-3) return value.toExponential(1);
  return String(+value.toPrecision(4));
}

// Tick texts in one unit: with thousands, all of them are written in thousands. If texts would be
// equal, they have as many digits as the distance of the ticks needs.
function tickTexts(values) {
  const ticks = values.filter((v) => v !== null), largest = Math.max(...ticks.map(Math.abs));
  const texts = ticks.map((v) => (largest >= 1e4 && largest < 1e6 && v ? `${+(v / 1e3).toFixed(1)}k` : short(v)));
  if (new Set(texts).size < texts.length) {
    const apart = Math.min(...ticks.slice(1).map((v, i) => Math.abs(v - ticks[i])));
    const [unit, name] = largest >= 1e6 ? [1e6, "M"] : largest >= 1e4 ? [1e3, "k"] : [1, ""];
    const digits = Math.max(0, Math.min(100, 1 - Math.floor(Math.log10(apart / unit))));
    texts.splice(0, texts.length, ...ticks.map((v) => `${+(v / unit).toFixed(digits)}${v ? name : ""}`));
  }
  return values.map((v) => (v === null ? "" : texts.shift()));
}

// One list of steps for all curves, as uPlot needs it, and the curves' values at these steps.
function aligned(content) {
  const keep = (step) => !content.log || step > 0;
  const steps = [...new Set(content.lines.flatMap((line) => line.x))].filter(keep).sort((a, b) => a - b);
  const place = new Map(steps.map((step, i) => [step, i]));
  const spread = (line, values) => {
    const out = new Array(steps.length).fill(null);
    line.x.forEach((step, i) => { if (place.has(step)) out[place.get(step)] = values[i]; });
    return out;
  };
  return { steps, spread };
}

// Series of uPlot, the lower ones first, with the data and bands that belong to them.
function seriesOf(content) {
  const { steps, spread } = aligned(content);
  const columns = [steps], series = [{}], bands = [], lines = [];
  const add = (values, options) => series.push({ spanGaps: true, points: { show: false }, ...options }) && columns.push(values);
  for (const level of content.levels || []) {
    add(steps.map(() => level.y), { stroke: css("--soft"), width: 1, dash: [5, 4] });
  }
  const full = content.small ? 1.4 : content.lines.filter(({ faint }) => !faint).length > MANY_LINES ? 1.2 : 2;
  for (const line of [...content.lines].sort((a, b) => !!b.faint - !!a.faint).reverse().sort((a, b) => !!b.faint - !!a.faint)) {
    if (line.low) {
      const [high, low] = [spread(line, line.high), spread(line, line.low)];
      add(high, { width: 0, stroke: "transparent" });
      add(low, { width: 0, stroke: "transparent" });
      bands.push({ series: [columns.length - 2, columns.length - 1], fill: `${ink(line.color)}29` });
    }
    const width = full * (line.faint ? 0.6 : 1);
    const values = spread(line, line.y);
    const single = values.filter((value) => value !== null).length === 1;
    const color = ink(line.color);
    add(values, { stroke: line.faint ? `${color}80` : color, width, dash: line.dashes.map((d) => d * width),
      points: { show: single && line.faint, size: 5, fill: color } });
    if (!line.faint) lines.unshift({ line, values });
  }
  return { columns, series, bands, lines };
}

// The range of the value axis: fixed, or that of the data, which includes zero if `zero` is set.
function rangeOf(content, low, high) {
  if (content.fixed) return content.fixed;
  if (low === null || high === null) return [0, 1];
  const bottom = content.zero ? Math.min(low, 0) : low;
  const span = Math.max(high - bottom, LEAST_SPAN * Math.max(Math.abs(bottom), Math.abs(high)) || 1);
  const added = span - (high - bottom), below = content.zero && !bottom ? 0 : added / 2;
  const margin = bottom < 0 || !content.zero ? 0.05 * span : 0.02 * span;
  return [bottom - below - margin, high + added - below + 0.05 * span];
}

// The width of the value axis, which long numbers widen.
function axisSize(content, texts) {
  const longest = Math.max(0, ...(texts || []).map((text) => text.length));
  return content.small ? Math.max(36, 6 * longest + 8) : Math.max(48, 7 * longest + 8);
}

function nameLevels(plot, content) {
  const pen = plot.ctx, ratio = devicePixelRatio;
  pen.save();
  pen.font = `${11 * ratio}px system-ui, sans-serif`;
  pen.textAlign = "right";
  pen.textBaseline = "alphabetic";
  let last = Infinity;
  for (const level of [...content.levels].sort((a, b) => a.y - b.y)) {
    const at = plot.valToPos(level.y, "y", true);
    if (at < plot.bbox.top || at > plot.bbox.top + plot.bbox.height) continue;
    last = Math.min(at - 3 * ratio, last - 12 * ratio);  // names of close lines stand above each other
    const text = `${level.label} (${short(level.y)})`, right = plot.bbox.left + plot.bbox.width - 4 * ratio;
    const wide = pen.measureText(text).width;
    pen.fillStyle = css("--back");
    pen.globalAlpha = 0.8;
    pen.fillRect(right - wide - 2 * ratio, last - 10 * ratio, wide + 4 * ratio, 12 * ratio);
    pen.globalAlpha = 1;
    pen.fillStyle = css("--soft");
    pen.fillText(text, right, last);
  }
  pen.restore();
}

// Draw a chart in its box; `content` has lines, levels, and options (see the callers).
function draw(box, content) {
  const width = box.clientWidth, height = box.clientHeight;
  if (!width || !height) return;
  box.plot?.destroy();
  // A logarithmic axis needs a positive step.
  const log = content.log && content.lines.some(({ x }) => x.some((step) => step > 0));
  const { columns, series, bands, lines } = seriesOf({ ...content, log });
  const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false },
    font: `${content.small ? 10 : 11.5}px system-ui, sans-serif`, values: (_, values) => tickTexts(values) };
  const named = (label) => (content.small || !label ? {} : { label, labelSize: 18, labelFont: "12px system-ui, sans-serif" });
  const steps = columns[0], until = content.until ?? steps.at(-1);
  const zoom = !content.small;
  box.plot = new uPlot({
    width, height, series, bands, legend: { show: false },
    padding: [8, content.small ? 12 : 20, 0, 0],
    cursor: { drag: { x: zoom, y: false, setScale: zoom }, y: false, points: { show: false } },
    scales: {
      x: { time: false, distr: log ? 3 : 1, range: (plot, low, high) => (low !== high ? [low, high] : log ? [low / 2, 2 * high] : [low - 1, high + 1]) },
      y: { range: (plot, low, high) => rangeOf(content, low, high) },
    },
    axes: [{ ...axis, ...named(content.label), space: content.small ? 60 : 70, size: content.small ? 20 : 28 },
      { ...axis, ...named(content.metric), space: content.small ? 28 : 36, size: (_, texts) => axisSize(content, texts) }],
    hooks: {
      setCursor: [(plot) => showTip(box, plot, lines, content)],
      draw: [(plot) => drawMarkers(plot, lines, content.small), ...(content.levels?.length && !content.small ? [(plot) => nameLevels(plot, content)] : [])],
    },
  }, columns, box);
  if (steps.length && until < steps.at(-1)) box.plot.setScale("x", { min: steps[0], max: until });
  box.lines = lines;
  const canvas = box.querySelector("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", spoken(content, lines));
}

// What a screen reader says about a chart: its name, and the last value of each curve.
function spoken(content, lines) {
  const ends = lines.map(({ line }) => {
    const last = line.y.findLastIndex((value) => value !== null);
    return last < 0 ? null : `${line.label}: ${short(line.y[last])} at ${line.x[last].toLocaleString("en")}`;
  }).filter(Boolean);
  const levels = (content.levels || []).map((level) => `${level.label}: ${short(level.y)}`);
  return [`${content.name || "chart"}, ${content.label || "env steps"}`, ...ends, ...levels].join("; ");
}

function showTip(box, plot, lines, content) {
  const { left, idx } = plot.cursor;
  if (left === null || left < 0 || idx === null || idx === undefined) { tip.hidden = true; return; }
  const rows = lines.filter(({ values }) => values[idx] !== null && values[idx] !== undefined).map(({ line }) => {
    const at = line.x.indexOf(plot.data[0][idx]);
    const [low, high] = [line.low?.[at], line.high?.[at]];
    return el("div", [swatch(line), `${line.label}: ${short(line.y[at])}`,
      !hasWidth(low, high) ? null : el("span", ` [${short(low)}, ${short(high)}]`, { class: "range" })]);
  });
  if (!rows.length) { tip.hidden = true; return; }
  tip.replaceChildren(el("div", `${plot.data[0][idx].toLocaleString("en")} ${content.unit || "env steps"}`, { class: "soft" }), ...rows);
  tip.hidden = false;
  const over = plot.over.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const [x, y] = [over.left + left, over.top + Math.max(plot.cursor.top, 0)];
  const beside = x + 14 + own.width < innerWidth ? x + 14 : x - 14 - own.width;
  tip.style.left = `${Math.max(4, Math.min(beside, innerWidth - own.width - 6))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - own.height - 6))}px`;
}

// Arrow keys move along the steps, + and − zoom around the step, 0 or Escape shows everything.
function onKey(box, event) {
  const plot = box.plot;
  if (!plot || !plot.data[0].length || event.ctrlKey || event.altKey || event.metaKey) return;
  const steps = plot.data[0], { min, max } = plot.scales.x;
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const zoom = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
  const inside = (place) => Math.max(0, Math.min(steps.length - 1, place));
  if (move) {
    const start = plot.cursor.left >= 0 && plot.cursor.idx !== null ? plot.cursor.idx : move > 0 ? -1 : steps.length;
    let place = inside(start + move);
    if (steps[place] > max || steps[place] < min) place = inside(steps.findLastIndex((step) => step <= max));
    plot.setCursor({ left: plot.valToPos(steps[place], "x"), top: 10 });
  } else if (zoom) {
    const middle = plot.cursor.left >= 0 && plot.cursor.idx !== null ? steps[plot.cursor.idx] : (min + max) / 2;
    plot.setScale("x", { min: Math.max(steps[0], middle - (middle - min) * zoom), max: Math.min(steps.at(-1), middle + (max - middle) * zoom) });
  } else if (event.key === "0" || event.key === "Escape") {
    plot.setScale("x", { min: steps[0], max: steps.at(-1) });
    plot.setCursor({ left: -10, top: -10 });
  } else return;
  event.preventDefault();
}

function onTouch(box, event) {
  const touch = event.touches[0], over = box.plot?.over.getBoundingClientRect();
  if (touch && over) box.plot.setCursor({ left: touch.clientX - over.left, top: touch.clientY - over.top });
}

// Charts are drawn when they become visible, and again when the window size or the theme changes.
const pending = new Map();
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && pending.has(entry.target)) draw(entry.target, pending.get(entry.target));
  }
}, { rootMargin: "200px" });

function chart(content) {
  const box = el("div", null, { class: "chart", tabindex: content.small ? null : "0",
    "aria-keyshortcuts": content.small ? null : "ArrowLeft ArrowRight + - 0",
    onkeydown: (event) => !content.small && onKey(box, event), onblur: () => { tip.hidden = true; },
    onmouseleave: () => { tip.hidden = true; } });
  for (const kind of ["touchstart", "touchmove"]) box.addEventListener(kind, (event) => onTouch(box, event), { passive: true });
  pending.set(box, content);
  seen.observe(box);
  return box;
}

function forget() {
  for (const box of pending.keys()) box.plot?.destroy();
  pending.clear();
  seen.disconnect();
  tip.hidden = true;
}

// Draw the charts of the page again; all of them, or those that have been drawn.
function redraw(all = false) {
  for (const [box, content] of pending) {
    if (box.isConnected && (all || box.plot)) draw(box, content);
  }
}

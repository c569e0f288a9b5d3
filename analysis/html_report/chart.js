// Line charts on a canvas: curves with bands, horizontal lines, and the point nearest to the mouse.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Tick positions for about `count` intervals, at multiples of 1, 2 or 5 times a power of ten.
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw * 0.999);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) {
    out.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  }
  return out;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return +(value / 1e6).toFixed(2) + "M";
  if (size >= 1e4) return +(value / 1e3).toFixed(1) + "k";
  if (size && size < 1e-3) return value.toExponential(1);
  return String(+value.toPrecision(4));
}

function bounds(chart) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const line of chart.lines) {
    for (let i = 0; i < line.x.length; i++) {
      if (line.y[i] === null) continue;
      left = Math.min(left, line.x[i]);
      right = Math.max(right, line.x[i]);
      const values = line.low ? [line.y[i], line.low[i] ?? line.y[i], line.high[i] ?? line.y[i]] : [line.y[i]];
      low = Math.min(low, ...values);
      high = Math.max(high, ...values);
    }
  }
  for (const level of chart.levels || []) {
    low = Math.min(low, level.y);
    high = Math.max(high, level.y);
  }
  if (!(right >= left)) [left, right, low, high] = [0, 1, 0, 1];
  if (chart.zero) low = Math.min(low, 0);
  if (high - low < 1e-9) high = low + 1;
  if (right === left) right = left + 1;
  const margin = 0.05 * (high - low);
  return { left, right, low: low - margin, high: high + margin };
}

// Draws a chart, and stores its coordinate functions on the canvas for `nearest`.
function draw(canvas, chart) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = `${chart.small ? 10 : 11.5}px system-ui, sans-serif`;
  const box = bounds(chart);
  const pad = { left: chart.small ? 30 : 46, right: 8, top: 6, bottom: chart.small ? 15 : 34 };
  const across = (x) => pad.left + ((x - box.left) / (box.right - box.left)) * (width - pad.left - pad.right);
  const up = (y) => height - pad.bottom - ((y - box.low) / (box.high - box.low)) * (height - pad.top - pad.bottom);
  pen.strokeStyle = css("--grid");
  pen.fillStyle = css("--soft");
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const v of ticks(box.low, box.high, chart.small ? 3 : 5)) {
    pen.beginPath();
    pen.moveTo(pad.left, up(v));
    pen.lineTo(width - pad.right, up(v));
    pen.stroke();
    pen.fillText(short(v), pad.left - 5, up(v));
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const v of ticks(box.left, box.right, chart.small ? 2 : 6)) {
    const text = short(v);
    const half = pen.measureText(text).width / 2;
    pen.fillText(text, Math.min(across(v), width - half - 1), height - pad.bottom + 4);
  }
  if (!chart.small && chart.label) {
    pen.fillText(chart.label, (pad.left + width) / 2, height - 14);
  }
  for (const level of chart.levels || []) {
    pen.setLineDash([5, 4]);
    pen.strokeStyle = css("--soft");
    pen.beginPath();
    pen.moveTo(pad.left, up(level.y));
    pen.lineTo(width - pad.right, up(level.y));
    pen.stroke();
  }
  for (const line of [...chart.lines].reverse()) {
    if (line.low) {
      pen.globalAlpha = 0.16;
      pen.fillStyle = line.color;
      let run = [];
      const fill = () => {
        if (run.length > 1) {
          pen.beginPath();
          run.forEach((i) => pen.lineTo(across(line.x[i]), up(line.high[i])));
          run.reverse().forEach((i) => pen.lineTo(across(line.x[i]), up(line.low[i])));
          pen.fill();
        }
        run = [];
      };
      line.x.forEach((_, i) => (line.low[i] === null || line.high[i] === null ? fill() : run.push(i)));
      fill();
    }
    pen.globalAlpha = line.faint ? 0.5 : 1;
    pen.strokeStyle = line.color;
    pen.lineWidth = (chart.small ? 1.4 : 2) * (line.faint ? 0.6 : 1);
    pen.setLineDash((line.dashes || []).map((d) => d * pen.lineWidth));
    pen.beginPath();
    let open = false;
    line.x.forEach((x, i) => {
      if (line.y[i] === null) { open = false; return; }
      if (open) pen.lineTo(across(x), up(line.y[i]));
      else pen.moveTo(across(x), up(line.y[i]));
      open = true;
    });
    pen.stroke();
    if (line.x.length === 1 && line.y[0] !== null) {
      pen.fillStyle = line.color;
      pen.fillRect(across(line.x[0]) - 2, up(line.y[0]) - 2, 4, 4);
    }
  }
  pen.globalAlpha = 1;
  pen.setLineDash([]);
  canvas.chart = { chart, across, up };
}

// The step nearest to the mouse, and the value of each line at that step.
function nearest(canvas, event) {
  if (!canvas.chart) return null;
  const { chart, across } = canvas.chart;
  const x = event.clientX - canvas.getBoundingClientRect().left;
  let best = null, gap = Infinity;
  for (const line of chart.lines) {
    if (line.faint) continue;
    line.x.forEach((step, i) => {
      const far = Math.abs(across(step) - x);
      if (line.y[i] !== null && far < gap) [best, gap] = [step, far];
    });
  }
  if (best === null) return null;
  const values = chart.lines.filter((line) => !line.faint).map((line) => {
    const i = line.x.indexOf(best);
    return i < 0 || line.y[i] === null ? null : { line, y: line.y[i], low: line.low?.[i], high: line.high?.[i] };
  });
  return { step: best, values: values.filter(Boolean) };
}

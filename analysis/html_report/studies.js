// The page of the studies: results, the path of each claim, decisions of all looks, and what was registered.

const PATH = { width: 320, height: 200, left: 46, right: 8, top: 8, bottom: 36 };

function svg(tag, attributes, content) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const part of [content].flat()) if (part !== null && part !== undefined) node.append(part);
  return node;
}

// Regions differ in hatches as well as in color.
const region = (decision, box) => svg("g", { class: `region ${decision.replaceAll(" ", "-")}` }, [
  svg("rect", box), decision === "contradicted" ? svg("rect", { ...box, class: "hatch" }) : null,
  svg("title", {}, decision)]);
const hatches = () => svg("svg", { width: 0, height: 0, "aria-hidden": "true", class: "hatches" }, svg("pattern",
  { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
  svg("line", { x1: 0, y1: 0, x2: 0, y2: 6 })));

// Tick values from -bound to bound, a multiple of 1, 2 or 5 apart.
function ticksOf(bound) {
  const size = 10 ** Math.floor(Math.log10(bound / 2));
  const step = [5, 2, 1].map((factor) => factor * size).find((one) => one <= bound / 2);
  const most = Math.floor(bound / step);
  return Array.from({ length: 2 * most + 1 }, (_, i) => (i - most) * step);
}

const measured = ([seeds, value, low, high]) => `${seeds} seeds: ${short(value)} [${short(low)}, ${short(high)}]`;

// Differences with intervals at all looks of a claim, and the regions in which it is decided.
function pathOf({ claim, decision, looks, bound, points, regions }) {
  const right = PATH.width - PATH.right, bottom = PATH.height - PATH.bottom;
  const wide = (right - PATH.left) / looks.length;
  const x = (seeds) => PATH.left + (looks.indexOf(seeds) + 0.5) * wide;
  const y = (value) => PATH.top + (bound - Math.max(-bound, Math.min(bound, value))) / (2 * bound) * (bottom - PATH.top);
  const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
  const ticks = ticksOf(bound).flatMap((value) => [
    line(PATH.left, y(value), right, y(value), value ? "grid" : "zero"),
    svg("text", { x: PATH.left - 5, y: y(value) + 4, "text-anchor": "end" }, short(value))]);
  const areas = regions.map(([seeds, name, low, high]) => region(name,
    { x: x(seeds) - 0.45 * wide, width: 0.9 * wide, y: y(high), height: y(low) - y(high) }));
  const marks = points.map((point) => {
    const [seeds, value, low, high] = point, at = x(seeds);
    const caps = [low, high].filter((end) => Math.abs(end) < bound).map((end) => line(at - 4, y(end), at + 4, y(end), "mark"));
    return svg("g", {}, [line(at, y(low), at, y(high), "mark"), ...caps, svg("circle", { cx: at, cy: y(value), r: 3.5, class: "mark" }),
      svg("title", {}, measured(point))]);
  });
  const path = svg("polyline", { points: points.map(([seeds, value]) => `${x(seeds)},${y(value)}`).join(" "), class: "mark" });
  const labels = looks.map((seeds) => svg("text", { x: x(seeds), y: bottom + 14, "text-anchor": "middle" }, String(seeds)));
  const middle = (PATH.top + bottom) / 2;
  labels.push(svg("text", { x: (PATH.left + right) / 2, y: PATH.height - 5, "text-anchor": "middle" }, "seeds"),
    svg("text", { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, "difference (points)"));
  const spoken = `${claim}, ${decision}; difference in points with 95 % interval; ${points.map(measured).join("; ")}`;
  return el("figure", [el("figcaption", [el("b", claim), `: ${decision}`]), svg("svg",
    { viewBox: `0 0 ${PATH.width} ${PATH.height}`, role: "img", "aria-label": spoken }, [...areas, ...ticks, path, ...marks, ...labels])], { class: "path" });
}

function oneStudy(study) {
  const decisions = [...new Set(study.paths.flatMap(({ regions }) => regions.map(([, name]) => name)))];
  const names = decisions.map((name) => el("span", [svg("svg", { width: 22, height: 12 }, region(name, { width: 22, height: 12 })), ` ${name}`]));
  const changed = study.changed.length
    ? [el("p", "study.toml was changed later:", { class: "error" }), el("ul", study.changed.map((line) => el("li", line)))]
    : [el("p", "study.toml is as it was registered.", { class: "soft" })];
  const shown = (title, { columns, rows }) => [el("h4", title), table(columns, rows)];
  const results = study.paths.length ? [...shown("Results", study.results), el("p", data.studies.note, { class: "soft" }),
    el("h4", "Paths"), el("div", study.paths.map(pathOf), { class: "charts" }),
    names.length ? el("div", ["Whiskers: 95\u00a0% intervals, cut at the edge of the panel. Differences in these regions decide:", ...names], { class: "controls soft" }) : ""] : [el("p", "No look is complete.")];
  return el("section", [el("h3", study.name), el("p", study.design), el("p", study.costs), ...results,
    ...shown("Looks", study.looks), ...shown(`Claims, registered as ${study.mark}`, study.claims), ...changed,
    details("Tasks", study.tasks), details("Settings of the tests", study.tests)], { class: "study" });
}

function studies() {
  main.replaceChildren(
    hatches(), el("h2", "Studies"),
    el("p", "A study starts seeds look by look. A claim that is decided gets no further seeds. Pre-registered: all runs of the claim were started after the study was written down.", { class: "soft" }),
    ...data.studies.studies.map(oneStudy),
  );
}

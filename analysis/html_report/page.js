// The pages: summary, tasks, single task, comparison, variants, multi-task, audit. The URL hash selects the page.

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const tip = document.getElementById("tip");
const hidden = new Set();
const filters = { text: "", domain: "" };
const STATISTICS = { mean: "mean", median: "median", iqm: "interquartile mean", optimality_gap: "gap, lower is better" };
const OBSERVATIONS = { state: "From states", rgb: "From pixels" };
const LEVELS = { uniform: "uniform actions", zero: "zero action", untrained: "untrained agent", threshold: "threshold" };

const MOST_ROWS = 400; // of the tables of the audit
const TEXTS = new Set(["p", "li"]); // in which percent signs stay with their numbers
const unbroken = (text) => text.replaceAll(" %", "\u00a0%");

function el(tag, content, attributes) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  for (const part of [content].flat()) {
    if (part !== null && part !== undefined) node.append(TEXTS.has(tag) && typeof part === "string" ? unbroken(part) : part);
  }
  return node;
}

// Scores of users' environments may be below 0 and above 100; bars end there.
const within = (score) => Math.max(0, Math.min(100, score));

// Scores of a single seed, and scores that do not vary, have no interval.
const hasWidth = (low, high) => high - low > 1e-9;

const ranged = ([value, low, high]) => [
  value === null ? "–" : value.toFixed(1),
  !hasWidth(low, high) ? null : el("span", ` [${low.toFixed(1)}, ${high.toFixed(1)}]`, { class: "range" }),
];

const scaled = (task, values) => (task.scale === 1 ? values : values.map((v) => (v === null ? null : v * task.scale)));
const meanLines = (task) => task.curves.filter((c) => !hidden.has(c.s)).map((c) => ({
  x: data.grids[c.x], y: scaled(task, c.m), low: scaled(task, c.l), high: scaled(task, c.h), ...styleOf(c.s),
}));
const styleOf = (s) => (({ color, dashes, marker, label }) => ({ color, dashes, marker, label }))(data.series[s]);
const code = (text) => el("pre", text, { class: "code" });

function seriesToggles(then, places) {
  return [...data.series.entries()].filter(([s]) => !places || places.has(s)).map(([s, series]) => {
    const label = el("label", [
      el("input", null, { type: "checkbox", checked: hidden.has(s) ? null : "", onchange: (event) => {
        hidden[event.target.checked ? "delete" : "add"](s);
        label.classList.toggle("off", hidden.has(s));
        then();
      } }),
      " ", swatch(series), series.label,
    ], { class: hidden.has(s) ? "off" : null });
    return label;
  });
}

function overview() {
  const cards = data.groups.map((group) => {
    const places = Object.keys(group.rows).map(Number).sort((a, b) => group.rows[b].mean[0] - group.rows[a].mean[0]);
    const bars = places.flatMap((s) => {
      const [value, low, high] = group.rows[s].mean;
      const interval = !hasWidth(low, high) ? null : el("u", null, { style: `left:${Math.min(within(low), 99.6)}%;width:${Math.max(0.4, within(high) - within(low))}%` });
      return [
        el("div", [el("span", [data.series[s].label]), el("span", ranged([value, low, high]))], { class: "row" }),
        el("div", [el("i", null, { style: `width:${within(value)}%;background:${paint(data.series[s].color)}` }), interval], { class: "bar" }),
      ];
    });
    const size = `${group.tasks} task${group.tasks > 1 ? "s" : ""}, ${group.horizon}`;
    return el("section", [el("h3", group.label), el("div", size, { class: "soft" }), ...bars], { class: "card" });
  });
  const tables = [...new Set(data.groups.map((group) => group.obs))].flatMap((obs) => {
    const own = data.groups.filter((group) => group.obs === obs);
    const left = own.flatMap((group) => group.left_out.map((line) => `${group.label}: ${line}`));
    return [el("h2", `${OBSERVATIONS[obs] || obs}: scores by group of tasks`), leaderboard(own), details("Excluded series", left)];
  });
  main.replaceChildren(
    el("h2", "Summary"), el("p", data.summary, { class: "lead" }),
    details("Origin of the data and method", data.facts),
    el("p", noteOf(data.groups), { class: "soft" }),
    el("div", cards, { class: "cards" }), ...tables,
  );
}

// What the scores are, and their intervals, if there are any.
function noteOf(groups) {
  if (!groups.length) return "No group of tasks can be averaged; the page Tasks shows every task.";
  const scores = "Scores are return / 10 or success in percent";
  const ranges = groups.some(({ rows }) => Object.values(rows).some(({ mean }) => hasWidth(mean[1], mean[2])));
  return ranges ? `${scores}, with confidence intervals. ${data.note}` : `${scores}. A single seed has no interval.`;
}

function details(title, lines) {
  if (!lines.length) return "";
  return el("details", [el("summary", `${title} (${lines.length})`), el("ul", lines.map((line) => el("li", line)), { class: "facts" })]);
}

function leaderboard(groups) {
  const names = Object.keys(STATISTICS);
  const rows = groups.flatMap((group) => Object.entries(group.rows).map(([s, row]) => {
    const wins = group.wins.filter(([x]) => x === +s).map(([, y, value]) => el("div", `${data.series[y].label}\u00a0${value.toFixed(0)}`));
    return [group.label, group.tasks, group.horizon, el("span", [swatch(data.series[s]), data.series[s].label]), row.seeds, row.runs,
      ...names.map((name) => el("span", ranged(row[name]))), wins.length ? el("div", wins) : ""];
  }));
  const columns = ["group", "tasks", "at", "method", "seeds", "runs", ...names.map((name) => STATISTICS[name]), "P(improvement) over, %"];
  return el("div", table(columns, rows, new Set([1, 5, 6, 7, 8, 9]), 0), { class: "leaderboard" });
}

function tasks() {
  const grid = el("div", null, { class: "grid", id: "tiles" });
  const count = el("span", null, { class: "soft" });
  const fill = () => {
    const wanted = data.tasks.filter((task) =>
      (!filters.domain || task.domain === filters.domain) &&
      `${task.title} ${task.name}`.toLowerCase().includes(filters.text.toLowerCase()));
    grid.replaceChildren(...wanted.map((task) => el("a", [
      el("b", task.title), el("span", task.metric, { class: "soft" }),
      chart({ lines: meanLines(task), small: true, zero: true, name: task.title }),
    ], { class: "tile", href: `#task/${encodeURIComponent(task.name)}` })));
    count.textContent = `${wanted.length} of ${data.tasks.length} tasks`;
  };
  const domains = [...new Set(data.tasks.map((task) => task.domain))];
  const choose = el("select", [el("option", "all domains", { value: "" }),
    ...domains.map((name) => el("option", data.names[name] || name, { value: name, selected: filters.domain === name ? "" : null }))],
  { "aria-label": "Domain", onchange: (event) => { filters.domain = event.target.value; fill(); } });
  const search = el("input", null, { type: "search", placeholder: "find a task", value: filters.text,
    "aria-label": "Find a task", oninput: (event) => { filters.text = event.target.value; fill(); } });
  main.replaceChildren(el("h2", "Tasks"), el("div", [search, choose, ...seriesToggles(fill), count], { class: "controls" }), grid);
  fill();
}

function oneTask(name) {
  const task = data.tasks.find((task) => task.name === name);
  if (!task) return missing();
  const place = data.tasks.indexOf(task);
  const link = (other, text) => other ? el("a", text, { href: `#task/${encodeURIComponent(other.name)}` }) : null;
  const large = el("div", null, { class: "large" });
  const levels = Object.entries(task.reference_scores).filter(([, y]) => y !== null)
    .map(([which, y]) => ({ label: LEVELS[which] || which, y: y * task.scale }));
  const view = { log: false, fixed: false, all: false };
  const note = el("p", null, { class: "soft" });
  const show = () => {
    const shown = task.runs.filter((run) => !hidden.has(run.s));
    const seeds = shown.map((run) => ({ x: data.grids[run.x], y: scaled(task, run.y), ...styleOf(run.s), faint: true }));
    const ours = shown.filter((run) => run.directory).map((run) => data.grids[run.x].at(-1));
    const until = ours.length && !view.all ? Math.max(...ours) : undefined;
    // A line between an evaluation in the range and one far behind it would be no evidence.
    const enough = ({ x }) => until === undefined || x.at(-1) <= until || x.filter((step) => step <= until).length > 1;
    const lines = [...meanLines(task), ...seeds], drawn = lines.filter(enough);
    large.replaceChildren(chart({ lines: drawn, levels, zero: true, label: "env steps", metric: task.metric, name: `${task.title}, ${task.metric}`,
      log: view.log, fixed: view.fixed ? [0, task.full] : null, until }));
    note.replaceChildren(unbroken(legend(task, levels, new Set(drawn.map(({ label }) => label)), new Set(lines.map(({ label }) => label)))));
  };
  const option = (name, text) => el("label", [el("input", null, { type: "checkbox", name, onchange: (event) => { view[name] = event.target.checked; show(); } }), ` ${text}`]);
  const options = el("div", [option("log", "log steps"), option("fixed", `axis 0–${task.full}${task.full === 100 ? " %" : ""}`),
    task.runs.some((run) => run.directory) && task.runs.some((run) => !run.directory) ? option("all", "all steps of published curves") : null,
    el("button", "reset zoom", { type: "button", onclick: show }),
    el("span", "Drag to zoom. Keys: ← → + − 0.", { class: "soft" })], { class: "controls" });
  const rows = task.runs.map((run) => [
    el("span", [swatch(data.series[run.s]), data.series[run.s].label]), run.seed, short(run.y.at(-1) * task.scale),
    data.grids[run.x].at(-1).toLocaleString("en"), run.state || data.series[run.s].source, (run.commit || "").split(", ").map((commit) => commit.slice(0, 10)).join(", "),
    run.overrides ? Object.entries(run.overrides).map(([key, value]) => `${key}=${value}`).join(" ") : "",
    run.directory ? el("span", [el("pre", run.directory.split("/").flatMap((name, i) => (i ? ["/", el("wbr"), name] : [name]))), run.video ? el("a", "video", { href: run.video }) : null]) : "",
  ]);
  main.replaceChildren(
    el("p", [el("a", "← all tasks", { href: "#tasks" }), link(data.tasks[place - 1], "previous"), link(data.tasks[place + 1], "next")], { class: "soft links" }),
    el("h2", task.title), el("div", seriesToggles(show, new Set(task.runs.map((run) => run.s))), { class: "controls" }), options, large,
    note,
    el("h3", "Runs"), table(["", "seed", "last score", "env steps", "state", "commit", "settings", "directory"], rows, new Set([1, 2, 3])),
    ...training(task),
  );
  show();
}

// What the lines of a task are, how often their intervals cover the mean, and which series the range leaves out.
function legend(task, levels, drawn, all) {
  const covered = task.curves.map(({ s, level }) => [data.series[s].label, level]).filter(([label, level]) => level && drawn.has(label));
  const bands = covered.length ? `; bands: confidence intervals of the mean; measured coverage: ${covered.map((one) => one.join(" ")).join(", ")}` : "";
  const left = [...all].filter((label) => !drawn.has(label));
  const rest = left.length ? ` Fewer than two evaluations in this range, so not drawn: ${left.join(", ")}.` : "";
  return `Thick: mean over seeds; thin: single seeds${levels.length ? "; dashed horizontal: reference scores" : ""}${bands}.${rest}`;
}

// Losses, gradient norms and other training metrics: a chart per metric, a line per seed.
function training(task) {
  const runs = task.runs.filter((run) => run.training && Object.keys(run.training).length > 1);
  const recorded = (name) => runs.some((run) => run.training[name]?.some((value) => value)); // not zero throughout
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.training)))].filter((name) => name !== runs[0]?.step && recorded(name));
  if (!names.length) return [];
  const charts = names.map((name) => el("div", [el("b", name.replaceAll("_", " ")), chart({
    lines: runs.filter((run) => run.training[name]).map((run) => ({
      x: run.training[run.step], y: run.training[name], ...styleOf(run.s),
      label: `${data.series[run.s].label}, seed ${run.seed}`,
    })), label: "env steps", name: name.replaceAll("_", " "),
  })]));
  return [el("h3", "Training metrics"), el("div", charts, { class: "charts" })];
}

function verdicts() {
  const { domains, tasks: rows, names, counts, next } = data.verdicts;
  const at = rows.columns.indexOf("task");
  const linked = rows.rows.map((row) => row.map((cell, i) =>
    i === at && names[cell] ? el("a", cell, { href: `#task/${encodeURIComponent(names[cell])}` }) : cell));
  const tally = Object.entries(counts).map(([verdict, count]) =>
    el("div", [el("b", String(count)), el("span", verdict, { class: verdict.replaceAll(" ", "-") })], { class: "card tally" }));
  main.replaceChildren(
    el("h2", "Comparison with the published curves"), el("p", data.summary, { class: "lead" }),
    el("h3", "Tasks by verdict"), el("div", tally, { class: "tallies" }),
    el("h3", "Domains"), table(domains.columns, domains.rows),
    el("h3", "What to run next"), next.length ? el("ul", next.map(([why, run]) => el("li", [why, code(run)])), { class: "next" }) : el("p", "Nothing: every comparison is settled.", { class: "soft" }),
    el("h3", "Tasks, with the reason of each verdict"), table(rows.columns, linked, undefined, rows.columns.indexOf("verdict")),
    details("How verdicts are reached", data.verdicts.rules),
  );
}

function ablations() {
  const at = data.ablations.columns.indexOf("difference");
  const intervals = data.ablations.rows.some((row) => String(row[at]).includes("["))
    ? ", with Welch's 95 % interval; its coverage in simulated studies of these runs follows if it is not 92 to 98 %"
    : ", without an interval, as one side has a single seed";
  main.replaceChildren(
    el("h2", "Variants compared with the default"),
    el("p", `Mean difference over the tasks that both were run on, in points${intervals}. Seeds: of the variant / of the default.`, { class: "soft" }),
    table(data.ablations.columns, data.ablations.rows, undefined, 0),
  );
}

function multitask() {
  const { sizes, claims, tasks: rows, quoted_from: source } = data.multitask;
  const verdict = claims.columns.indexOf("verdict"), judged = claims.rows.some((row) => row[verdict] !== "open");
  main.replaceChildren(
    el("h2", "Multi-task agents"),
    el("p", "Scores are the mean over the tasks of a task set of return / 10 or success in percent, at the last update that all seeds reached, with confidence intervals. Steps are gradient updates; nothing on this page is compared with env steps.", { class: "soft" }),
    el("h3", "Score by model size"), el("p", `Quoted: ${source}. Days: the whole budget at the run's own speed.`, { class: "soft" }), table(sizes.columns, sizes.rows),
    el("h3", "Comparison with the paper's scores"),
    el("p", `${judged ? "Our mean minus the paper's score, which has no spread and counts as exact, with a t-interval over seeds. " : ""}Open: not judged, see the remark.`, { class: "soft" }),
    table(claims.columns, claims.rows), el("h3", "Tasks"), table(rows.columns, rows.rows),
  );
}

// Methods of several sources: a table, mean scores against env steps, and scores of tasks for each group.
function methods() {
  const { groups, copies, left_out: left, level } = data.leaderboard;
  const large = el("div", null, { class: "large" });
  const below = el("div");
  const show = (group) => {
    const lines = group.lines.filter((line) => !off.has(line.label));
    const toggles = group.lines.map((line) => el("label", [
      el("input", null, { type: "checkbox", checked: off.has(line.label) ? null : "", onchange: (event) => { off[event.target.checked ? "delete" : "add"](line.label); show(group); } }),
      " ", swatch(line), line.label], { class: off.has(line.label) ? "off" : null }));
    below.replaceChildren(
      el("h3", `${group.label}: ${group.title}`), table(group.table.columns, group.table.rows),
      el("h3", "Mean score against env steps"), el("div", toggles, { class: "controls" }), large,
      el("h3", "Tasks"), table(group.tasks.columns, group.tasks.rows, new Set(group.lines.map((_, i) => i + 1))));
    large.replaceChildren(chart({ lines, zero: true, label: "env steps", metric: "mean score (%)", name: `${group.label}, mean score (%)` }));
  };
  const off = new Set();
  const choose = el("select", groups.map((group, i) => el("option", group.label, { value: i })), { "aria-label": "Group", onchange: (event) => show(groups[+event.target.value]) });
  main.replaceChildren(
    el("h2", "Leaderboard"),
    el("p", `Scores are the mean over tasks of return / 10 or success in percent, on the tasks that all methods have, and at the last step that all of them have. Nothing is carried forward or filled in. Methods of which only means are known have no interval. Level of the intervals of the means: ${level}.`, { class: "soft" }),
    el("div", choose, { class: "controls" }), below, details("Copies, counted once", copies), details("Left out", left),
  );
  show(groups[0]);
}

const more = (all, listed, where = "") =>
  (all.length > listed.length ? el("p", `and ${all.length - listed.length} more${where}`, { class: "soft" }) : "");

function audit() {
  const at = data.audit.columns.indexOf("finding");
  const counts = {};
  for (const row of data.audit.rows) counts[row[at]] = (counts[row[at]] || 0) + 1;
  const body = el("div");
  const show = (finding) => {
    for (const button of buttons) button.setAttribute("aria-pressed", button.name === finding);
    const rows = data.audit.rows.filter((row) => row[at] === finding);
    const cut = rows.slice(0, MOST_ROWS);
    const without = (row) => row.filter((_, i) => i !== at); // the heading names the finding
    body.replaceChildren(el("h3", data.audit.findings[finding]), table(without(data.audit.columns), cut.map(without)), more(rows, cut, "; analysis/make_figures.py writes all to audit.csv"));
  };
  const buttons = Object.entries(counts).map(([name, count]) =>
    el("button", `${data.audit.findings[name]} (${count})`, { type: "button", name, onclick: () => show(name) }));
  const listed = data.problems.slice(0, MOST_ROWS).map(([severity, where, line, what]) => [severity, what, where, line]);
  const problems = listed.length ? table(["severity", "what", "where", "line"], listed) : el("p", "None.", { class: "soft" });
  main.replaceChildren(
    el("h2", "Audit"), el("p", "Missing and repeated evaluations, runs that ended early, and how they were treated.", { class: "soft" }),
    el("div", buttons, { class: "controls" }), body, el("h3", `Problems (${data.problems.length})`), problems, more(data.problems, listed),
  );
  if (Object.keys(counts).length) show(Object.keys(counts)[0]);
}

function missing() {
  main.replaceChildren(el("h2", "Page not found"), el("p", el("a", "back to the overview", { href: "#overview" })));
}

const PAGES = {
  overview: ["Overview", overview], tasks: ["Tasks", tasks],
  ...(data.verdicts ? { verdicts: ["Reproduction", verdicts] } : {}),
  ...(data.ablations ? { ablations: ["Variants", ablations] } : {}),
  ...(data.studies ? { studies: ["Studies", studies] } : {}),
  ...(data.multitask ? { multitask: ["Multi-task", multitask] } : {}),
  ...(data.leaderboard ? { leaderboard: ["Leaderboard", methods] } : {}),
  ...(data.claims ? { claims: ["Claims", claims] } : {}),
  audit: ["Audit", audit],
};

// The text of a part of the address; null if it is not valid.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

function go() {
  const [page, rest] = (location.hash.slice(1) || "overview").split("/");
  forget();
  const here = page === "task" ? "tasks" : page;
  document.getElementById("nav").replaceChildren(...Object.entries(PAGES).map(([name, [title]]) =>
    el("a", title, { href: `#${name}`, class: name === here ? "here" : null, "aria-current": name === here ? "page" : null })));
  if (page === "task") oneTask(decoded(rest || ""));
  else (PAGES[page]?.[1] || missing)();
  scrollTo(0, 0);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(name) {
  document.documentElement.dataset.theme = name;
  redraw();
}
document.getElementById("theme").addEventListener("click", () =>
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
dark.addEventListener("change", (event) => theme(event.matches ? "dark" : "light"));
theme(dark.matches ? "dark" : "light");
addEventListener("hashchange", go);
// Paper is light, has the width of a page, and shows every chart.
let screenTheme = null;
addEventListener("beforeprint", () => {
  screenTheme ??= document.documentElement.dataset.theme;
  document.documentElement.classList.add("paper");
  document.documentElement.dataset.theme = "light";
  redraw(true);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("paper");
  theme(screenTheme);
  screenTheme = null;
});
// Heights of charts are fixed. On phones, the height of the window changes while the page is scrolled.
let waiting = 0, wide = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === wide) return;
  wide = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 120);
});
go();

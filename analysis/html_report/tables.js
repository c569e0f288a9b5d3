// Tables that are sorted by a click on a column's name and filtered by a text.

const VERDICTS = new Set(["reproduced", "reproduced so far", "better", "worse", "not enough data", "open", "error", "warning",
  "supported", "contradicted", "not enough seeds", "futile"]);
const LEAST_FILTERED = 8;
const SHORT_TEXT = 14, LONG_TEXT = 30, LONGEST_TEXT = 150;
// A number, also with a sign, a unit, an interval and its coverage, or an interval alone; a dash where there is none.
const NUMBER = /^([–—]|[±<≥≤+−-]?[\d,.]+( ?%)?\*?( \[[^\]]*\])?( \([\d.]+ %\))?|\[[^\]a-z]*\])$/;

const COMMAND = /^(python|make) /;

// Words in which no line breaks, unless they are long: `TD-MPC2` is not divided at its hyphen.
const wordsOf = (text) => (!text.includes("-") ? text : text.split(" ").flatMap((word, i) =>
  [i ? " " : null, word.includes("-") && word.length <= SHORT_TEXT ? el("span", word, { class: "word" }) : word]));

// A command whose lines break between its arguments only.
const commandOf = (text) => el("code", text.split(" ").flatMap((word, i) => [i ? " " : null, el("span", word)]));

const textOf = (cell) => (cell instanceof Node ? cell.textContent : String(cell ?? ""));

// The number that a cell begins with, as in `87.8 [87.3, 88.4]`, `±3` or `12.5k`; null for text.
function numberOf(text) {
  const found = text.replaceAll(",", "").replace("−", "-").match(/^[±<≥≤+[ ]*(-?\d+(\.\d+)?(e[-+]?\d+)?)([kM]\b)?/);
  return found ? found[1] * ({ k: 1e3, M: 1e6 }[found[4]] || 1) : null;
}

function compare(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x !== null ? -1 : 1;
  return a.localeCompare(b, "en", { numeric: true });
}

function cellOf(cell, number) {
  const state = typeof cell === "string" && VERDICTS.has(cell) ? cell.replaceAll(" ", "-") : null;
  const shown = typeof cell === "string" ? data.names[cell] || cell : cell;
  const text = textOf(shown), { length } = text;
  const short = length <= (text.includes(" ") ? SHORT_TEXT : LONG_TEXT);
  const size = length > LONGEST_TEXT ? "long longest" : length > LONG_TEXT ? "long" : short ? "short" : null;
  return el("td", typeof shown !== "string" ? shown : COMMAND.test(shown) ? commandOf(shown) : wordsOf(shown), { class: number ? "number" : state || size });
}

// The places of columns that hold numbers only, and of those that are empty.
function kinds(columns, cells) {
  const places = [...columns.keys()].filter(() => cells.length);
  const texts = (i) => cells.map((row) => row[i]).filter((text) => text !== "");
  const numbers = places.filter((i) => texts(i).length && texts(i).every((text) => NUMBER.test(text)));
  return { numbers: new Set(numbers), empty: new Set(places.filter((i) => !texts(i).length)) };
}

// `numbers` are the places of columns with numbers, undefined to find them; columns without content are hidden.
// `choose` is the place of a column whose values can be selected, undefined for none.
function table(columns, rows, numbers, choose) {
  const body = el("tbody"), count = el("span", null, { class: "soft", role: "status" });
  const cells = rows.map((row) => row.map(textOf)), found = kinds(columns, cells);
  numbers ??= found.numbers;
  const hide = (nodes) => { nodes.forEach((node, i) => { node.hidden = found.empty.has(i); }); return nodes; };
  const built = rows.map((row, place) => ({ row: el("tr", hide(row.map((cell, i) => cellOf(cell, numbers.has(i))))), cells: cells[place] }));
  const wanted = { text: "", value: "" };
  let shown = built;
  const fill = () => {
    const kept = shown.filter(({ row, cells }) => (!wanted.value || cells[choose] === wanted.value)
      && row.textContent.toLowerCase().includes(wanted.text.toLowerCase()));
    body.replaceChildren(...kept.map(({ row }) => row));
    count.textContent = kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length} rows`;
  };
  const heads = columns.map((name, i) => el("th", name ? el("button", wordsOf(name), { type: "button", class: "sort", onclick: () => {
    const down = heads[i].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
    shown = [...built].sort((a, b) => (down ? -1 : 1) * compare(a.cells[i], b.cells[i]));
    fill();
  } }) : "", { class: numbers.has(i) ? "number" : null, scope: "col" }));
  hide(heads);
  fill();
  const search = el("input", null, { type: "search", placeholder: "filter rows", "aria-label": "Filter rows",
    oninput: (event) => { wanted.text = event.target.value; fill(); } });
  const values = choose === undefined ? [] : [...new Set(built.map(({ cells }) => cells[choose]))];
  const select = values.length < 2 ? null : el("select", [el("option", `all: ${columns[choose]}`, { value: "" }),
    ...values.map((value) => el("option", data.names[value] || value, { value }))],
  { "aria-label": `Select ${columns[choose]}`, onchange: (event) => { wanted.value = event.target.value; fill(); } });
  const controls = rows.length < LEAST_FILTERED ? null : el("div", [search, select, count], { class: "controls" });
  return el("div", [controls, el("div", el("table", [el("thead", el("tr", heads)), body]), { class: "wide", tabindex: "0", role: "region", "aria-label": "table" })]);
}

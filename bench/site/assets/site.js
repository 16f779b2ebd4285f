// Tables can be sorted, filtered and pinned, and plots follow them. What was chosen stands in the address (after #), so that
// a link shows the same. Without this script the pages are plain tables. Text is only ever set as text.
"use strict";

const AT_ONCE = 1000;
const tables = [];
const form = document.querySelector("main > form");
let state = {};

/** The address as an object; an address without "=" names a place on the page. */
function read() {
  const given = location.hash.includes("=") ? new URLSearchParams(location.hash.slice(1)) : new URLSearchParams();
  state = {q: given.get("q") || "", hide: given.get("controls") === "0", pins: new Set(given.getAll("pin")), sort: {}};
  for (const chosen of given.getAll("sort")) {
    const [table, column, order] = chosen.split(":");
    state.sort[table] = [Number(column), order === "desc" ? -1 : 1];
  }
}

function write() {
  const said = new URLSearchParams();
  if (state.q) said.set("q", state.q);
  if (state.hide) said.set("controls", "0");
  for (const name of state.pins) said.append("pin", name);
  for (const [table, [column, order]] of Object.entries(state.sort)) said.append("sort", `${table}:${column}:${order < 0 ? "desc" : "asc"}`);
  history.replaceState(null, "", said.size ? `#${said}` : location.pathname + location.search);
}

/** A row that stands on the page. */
class PageRow {
  constructor(element) {
    this.element = element;
    this.name = element.dataset.row || "";
    this.control = "control" in element.dataset;
    this.text = element.textContent.toLowerCase();
    this.keys = [...element.cells].map((cell) => cell.dataset.sort ?? cell.textContent.trim());
  }
  key(column) { return this.keys[column] ?? ""; }
}

/** A column that came as data: the text of a row. Where few texts differ, they come with the place of each row's among them. */
function reader(column) {
  if (!Array.isArray(column[0])) return (i) => column[i];
  const [texts, places] = column;
  return (i) => texts[places[i]];
}

/** A row that came as data, of which there may be very many: everything is made when it is needed. */
class DataRow {
  name = "";
  constructor(place, page, cells) {
    this.place = place;
    this.page = page;
    this.cells = cells;
  }
  key(column) { return this.cells[column](this.place); }
  get text() { return (this.joined ??= this.cells.map((cell) => cell(this.place)).join(" ").toLowerCase()); }
  get control() { return this.text.includes("↳"); }
  get element() { return (this.made ??= this.make()); }
  make() {
    const row = document.createElement("tr");
    this.cells.forEach((_, i) => {
      const cell = row.appendChild(document.createElement(i ? "td" : "th")), text = this.key(i);
      if (i) return (cell.textContent = text);
      cell.scope = "row";
      const link = cell.appendChild(document.createElement("a"));
      link.href = `${this.page(this.place)}#${text}`;
      link.textContent = text;
    });
    return row;
  }
}

function rowsOf({count, columns}) {
  const [page, ...cells] = columns.map(reader);
  return Array.from({length: count}, (_, i) => new DataRow(i, page, cells));
}

function matches(row) {
  return state.pins.has(row.name) || (!(state.hide && row.control) && state.words.every((word) => row.text.includes(word)));
}

/** Numbers before texts before nothing, in either order. */
function sorted(rows, [column, order]) {
  const keyed = rows.map((row) => {
    const text = row.key(column), number = text === "" ? NaN : Number(text);
    return {row, kind: text === "" || text === "—" ? 2 : Number.isNaN(number) ? 1 : 0, key: Number.isNaN(number) ? text.toLowerCase() : number};
  });
  keyed.sort((a, b) => a.kind - b.kind || (a.key < b.key ? -order : a.key > b.key ? order : 0));
  return keyed.map(({row}) => row);
}

function show(table) {
  state.words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = state.sort[table.id];
  let rows = table.rows.filter(matches);
  if (chosen) rows = sorted(rows, chosen);
  if (state.pins.size) rows = [...rows.filter((row) => state.pins.has(row.name)), ...rows.filter((row) => !state.pins.has(row.name))];
  table.body.replaceChildren(...rows.slice(0, table.limit).map((row) => row.element));
  for (const row of table.rows) {
    if (!row.pin) continue;
    row.pin.setAttribute("aria-pressed", String(state.pins.has(row.name)));
    row.element.classList.toggle("pinned", state.pins.has(row.name));
  }
  table.heads.forEach((head, i) => {
    if (chosen && chosen[0] === i) head.setAttribute("aria-sort", chosen[1] < 0 ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  table.more.hidden = rows.length <= table.limit;
  table.more.textContent = `Show more (${Math.min(rows.length, table.limit)} of ${rows.length} rows)`;
  return rows.length;
}

function update() {
  let shown = 0, all = 0;
  for (const table of tables) {
    shown += show(table);
    all += table.rows.length;
  }
  for (const line of document.querySelectorAll(".plot g[data-row]")) {
    const name = line.dataset.row;
    line.toggleAttribute("hidden", !matches({name, text: name.toLowerCase(), control: name.includes("↳")}));
    line.classList.toggle("faded", state.pins.size > 0 && !state.pins.has(name));
  }
  if (!form) return;
  form.q.value = state.q;
  form.hide.checked = state.hide;
  form.querySelector("output").textContent = `${shown} of ${all} rows`;
}

function change(what) {
  Object.assign(state, what);
  for (const table of tables) table.limit = AT_ONCE;
  write();
  update();
}

function setUp(element) {
  const table = {id: element.id, body: element.tBodies[0], rows: [...element.tBodies[0].rows].map((row) => new PageRow(row)), heads: [...element.tHead.rows[0].cells], limit: AT_ONCE};
  if (window.moreRows?.table === table.id) table.rows = table.rows.concat(rowsOf(window.moreRows));
  table.heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const now = state.sort[table.id];
      const next = now && now[0] === i ? (now[1] === 1 ? [i, -1] : null) : [i, 1];
      const sort = {...state.sort};
      if (next) sort[table.id] = next;
      else delete sort[table.id];
      change({sort});
    });
  });
  for (const row of table.rows) {
    if (!row.name || !form) continue;
    row.pin = document.createElement("button");
    row.pin.type = "button";
    row.pin.className = "pin";
    row.pin.setAttribute("aria-label", `Pin ${row.name}`);
    row.pin.addEventListener("click", () => {
      const pins = new Set(state.pins);
      if (!pins.delete(row.name)) pins.add(row.name);
      change({pins});
      row.pin.focus();
    });
    row.element.cells[0].prepend(row.pin);
  }
  table.more = document.createElement("button");
  table.more.type = "button";
  table.more.addEventListener("click", () => {
    table.limit += AT_ONCE;
    show(table);
  });
  element.parentElement.after(table.more);
  tables.push(table);
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Cannot copy here";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

for (const element of document.querySelectorAll("main table")) setUp(element);
if (form) {
  form.hidden = false;
  form.hide.parentElement.hidden = !tables.some((table) => table.rows.slice(0, AT_ONCE).some((row) => row.control));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.q.addEventListener("input", () => change({q: form.q.value}));
  form.hide.addEventListener("change", () => change({hide: form.hide.checked}));
  form.clear.addEventListener("click", () => change({q: "", hide: false, pins: new Set(), sort: {}}));
  form.link.addEventListener("click", () => copy(location.href, form.link));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input")) return;
    event.preventDefault();
    form.q.focus();
  });
}
for (const code of document.querySelectorAll("code.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", () => copy(code.textContent, button));
  code.after(" ", button);
}
window.addEventListener("hashchange", () => { read(); update(); });
read();
update();
document.documentElement.dataset.ready = "";
if (location.hash && !location.hash.includes("=")) document.getElementById(location.hash.slice(1))?.scrollIntoView();

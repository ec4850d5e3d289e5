"use strict";
// What a reader can do with the page: filter, sort, read on in long tables, look at live plots, choose light or dark.

const shared = JSON.parse(document.getElementById("shared").textContent);
const dataset = shared.dataset;
const cells = dataset === null ? [] : dataset.rows.map(
  (row) => Object.fromEntries(dataset.columns.map((name, place) => [name, row[place]])));
const facets = dataset === null ? [] : dataset.facets;
const chosen = new Map(facets.map((facet) => [facet, new Set()])); // nothing chosen: everything is shown
let wanted = ""; // part of a network's name
const PAGE = 100; // rows that a table shows before it is asked for more
const SORTABLE = 4; // rows from which sorting shows more than a look
const LEGEND_ENTRY = 130; // pixels
const LIVE_MARKS = 1500; // figures beyond which a plot is painted, not made of elements

function made(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// --- what the filter lets through ---------------------------------------------------------------------------------

const facetPasses = (facet, value) => chosen.get(facet).size === 0 || chosen.get(facet).has(String(value));
const namePasses = (name) => wanted === "" || String(name).toLowerCase().includes(wanted);
const cellPasses = (cell) => namePasses(cell.network) && facets.every((facet) => facetPasses(facet, cell[facet.column]));
const isFiltered = () => wanted !== "" || facets.some((facet) => chosen.get(facet).size > 0);

function optionOf(facet, text) {
  if (facet.stands_for === null) return text;
  // A table may say more behind a name: "inception_v3 (299 px) ?".
  return facet.stands_for[text] ?? facet.stands_for[text.replace(/ \?$/, "").replace(/ \([^()]*\)$/, "")];
}

// --- tables -------------------------------------------------------------------------------------------------------

class LongTable {
  constructor(holder) {
    this.holder = holder;
    this.table = holder.querySelector("table");
    this.body = this.table.tBodies[0];
    this.numeric = new Set((this.table.dataset.numeric ?? "").split(",").filter(Boolean).map(Number));
    this.headings = [...this.table.querySelectorAll("thead th")];
    this.rows = [...this.body.rows].map((element) => ({ texts: [...element.cells].map((cell) => cell.textContent), element }));
    const later = holder.querySelector("script.later");
    if (later !== null) for (const texts of JSON.parse(later.textContent)) this.rows.push({ texts, element: null });
    this.order = this.rows;
    this.limit = PAGE;
    const phase = holder.closest("[data-phase]")?.dataset.phase; // what no column says, as all rows say the same
    this.shared = { ...(phase && { Phase: phase }), ...JSON.parse(this.table.dataset.shared ?? "{}") };
    const titles = this.headings.map((heading) => heading.textContent);
    this.filters = facets.map((facet) => [facet, titles.indexOf(facet.heading)])
      .filter(([facet, column]) => column >= 0 || facet.heading in this.shared);
    this.nameColumn = titles.indexOf("Network");
    this.headings.forEach((heading, column) => this.makeSortable(heading, column));
    this.more = made("div", { class: "more" });
    holder.append(this.more);
    this.show();
  }

  makeSortable(heading, column) {
    if (this.rows.length < SORTABLE) return;
    const button = made("button", { type: "button" }, heading.textContent);
    button.addEventListener("click", () => this.sort(column));
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    if (this.numeric.has(column)) heading.classList.add("n");
  }

  sort(column) {
    const down = this.headings[column].getAttribute("aria-sort") === "ascending";
    for (const heading of this.headings) heading.setAttribute("aria-sort", "none");
    this.headings[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = this.numeric.has(column) ? numberIn : (text) => text;
    const keyed = this.rows.map((row) => [key(row.texts[column] ?? ""), row]);
    keyed.sort(([one], [other]) => compare(one, other, down));
    this.order = keyed.map(([, row]) => row);
    this.show();
  }

  passes(row) {
    if (this.nameColumn >= 0 && !namePasses(row.texts[this.nameColumn])) return false;
    return this.filters.every(([facet, column]) =>
      facetPasses(facet, column < 0 ? this.shared[facet.heading] : optionOf(facet, row.texts[column])));
  }

  show() {
    const passing = this.filters.length > 0 || this.nameColumn >= 0 ? this.order.filter((row) => this.passes(row)) : this.order;
    const shown = passing.slice(0, this.limit);
    this.body.replaceChildren(...shown.map((row) => (row.element ??= this.rowElement(row.texts))));
    if (passing.length === 0 && this.rows.length > 0)
      this.body.append(made("tr", {}, made("td", { colspan: this.headings.length || 2 }, "No row matches the filter.")));
    this.offerMore(passing.length);
  }

  offerMore(passing) {
    this.more.hidden = passing <= this.limit;
    if (this.more.hidden) return this.more.replaceChildren();
    const next = made("button", { type: "button" }, `${Math.min(PAGE, passing - this.limit).toLocaleString("en")} more`);
    const all = made("button", { type: "button" }, "All");
    next.addEventListener("click", () => { this.limit += PAGE; this.show(); });
    all.addEventListener("click", () => { this.limit = Infinity; this.show(); });
    this.more.replaceChildren(`${this.limit.toLocaleString("en")} of ${passing.toLocaleString("en")} rows`, next, all);
  }

  rowElement(texts) {
    return made("tr", {}, ...texts.map((text, column) =>
      made("td", this.numeric.has(column) ? { class: "n" } : {}, ...withCode(text))));
  }
}

function withCode(text) { // as the page's writer does: what stands between backticks is code
  return text.split(/`([^`]+)`/).map((piece, place) => (place % 2 === 1 ? made("code", {}, piece) : piece));
}

function numberIn(text) { // "1,234 ±5" is 1234; what is no number sorts last
  if (text.startsWith("∞")) return Infinity;
  return parseFloat(text.replace(/[,+]/g, "").replace(/^[^\d-]*(?=\d)/, ""));
}

function compare(one, other, down) {
  const [noOne, noOther] = [one, other].map((key) => key === "" || key === "-" || Number.isNaN(key));
  if (noOne || noOther) return noOne - noOther;
  const order = typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
  return down ? -order : order;
}

// --- plots --------------------------------------------------------------------------------------------------------

class Plot {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector(".canvas");
    this.spec = JSON.parse(figure.querySelector("script.spec").textContent);
    this.spec.description = `${figure.firstElementChild.textContent}. ${figure.querySelector("figcaption").textContent}`;
    this.sharesCells = dataset !== null && this.spec.data?.name === dataset.name;
    this.figures = figure.querySelector("details.figures");
    this.figures.addEventListener("toggle", () => this.tabulate());
    this.result = null;
    this.stale = true;
    this.visible = false;
    // A plot is drawn when it comes near the screen or is printed; one behind a closed line when that is opened.
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      this.refresh();
    }, { rootMargin: "600px" }).observe(this.canvas);
  }

  restyle() { // other colours: from scratch
    this.result?.finalize();
    this.result = null;
    this.change();
  }

  change() {
    this.stale = true;
    return this.refresh();
  }

  async refresh() {
    if (!this.stale || !this.visible) return;
    this.stale = false;
    const shown = cells.filter(cellPasses);
    if (this.sharesCells && this.result !== null) {
      await this.result.view.data(dataset.name, shown.map((cell) => ({ ...cell }))).runAsync();
    } else {
      const spec = this.sharesCells ? { ...this.spec, data: { name: dataset.name, values: shown } } : this.spec;
      this.result = await vegaEmbed(this.canvas, structuredClone(spec), {
        ast: true, // expressions are interpreted: the page's policy forbids making code
        renderer: shown.length > LIVE_MARKS ? "canvas" : "svg",
        config: themeConfig(this.canvas.clientWidth),
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: this.figure.id,
        logLevel: 1,
        patch: placeNames,
      });
    }
    this.canvas.classList.add("drawn");
    this.tabulate();
  }

  marks() {
    try {
      return this.result.view.data(shared.layers.shown).map((item) => item.datum);
    } catch {
      return []; // a picture that names no such layer
    }
  }

  textOf(value, format) {
    if (value === null || value === undefined) return "-";
    return format !== undefined && typeof value === "number" ? this.result.view.locale().format(format)(value) : String(value);
  }

  tabulate() { // the same figures for those who do not see the plot
    if (!this.figures.open || this.result === null) return;
    const layers = this.spec.layer ?? [this.spec];
    const fields = layers.flatMap((layer) => (Array.isArray(layer.encoding?.tooltip) ? layer.encoding.tooltip : [])).slice(0, 20);
    const marks = this.marks();
    const head = made("tr", {}, ...fields.map((field) => made("th", { scope: "col" }, field.title ?? field.field)));
    const rows = marks.slice(0, PAGE).map((datum) => made("tr", {}, ...fields.map((field) =>
      made("td", field.type === "quantitative" ? { class: "n" } : {}, this.textOf(datum[field.field], field.format)))));
    const table = made("table", {}, made("thead", {}, head), made("tbody", {}, ...rows));
    const scroll = made("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "The plot's figures" }, table);
    const rest = marks.length > PAGE ? [made("p", { class: "note" }, `${PAGE} of ${marks.length.toLocaleString("en")}: filter to see others.`)] : [];
    this.figures.replaceChildren(this.figures.querySelector("summary"), scroll, ...rest);
  }
}

function placeNames(vega) { // which Vega can, and Vega-Lite has no word for
  for (const mark of vega.marks) if (mark.name === shared.layers.names) mark.transform = [shared.placed];
  return vega;
}

function themeConfig(width) {
  const config = structuredClone(shared.themes[isDark() ? "dark" : "light"]);
  config.aria = false; // the plot as a whole has a label, and its figures a table: not every point needs its own
  config.legend.columns = Math.max(1, Math.floor(width / LEGEND_ENTRY));
  return config;
}

// --- light and dark -----------------------------------------------------------------------------------------------

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false; // on white paper
const isDark = () => !printing && (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";

function setUpTheme(plots) {
  const button = document.getElementById("theme");
  const say = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `${button.textContent} colours`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    say();
    plots.forEach((plot) => plot.restyle());
  });
  prefersDark.addEventListener("change", () => { say(); plots.forEach((plot) => plot.restyle()); });
  say();
}

// --- paper --------------------------------------------------------------------------------------------------------

function setUpPrinting(plots) { // everything that a click would show, in dark ink
  let opened = [];
  window.addEventListener("beforeprint", () => {
    const dark = isDark();
    printing = true;
    opened = [...document.querySelectorAll("main details:not([open], .figures, .canvas details, #filter details)")];
    for (const fold of opened) fold.open = true;
    for (const plot of plots) { plot.visible = true; if (dark) plot.restyle(); else plot.refresh(); }
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    for (const fold of opened) fold.open = false;
    if (isDark()) plots.forEach((plot) => plot.restyle());
  });
}

// --- the filter ---------------------------------------------------------------------------------------------------

function setUpFilter(tables, plots) {
  if (facets.length === 0) return;
  const form = document.getElementById("filter");
  const count = made("output", { "aria-live": "polite" });
  const search = made("input", { type: "search", placeholder: "Network name", "aria-label": "Part of a network's name" });
  const reset = made("button", { type: "button" }, "Show everything");
  const menus = facets.map((facet) => menu(facet, () => apply()));

  function apply() {
    menus.forEach(({ say }) => say());
    tables.forEach((table) => { table.limit = PAGE; table.show(); });
    const shown = cells.filter(cellPasses).length;
    count.value = isFiltered() ? `${shown.toLocaleString("en")} of ${cells.length.toLocaleString("en")} cells` : "";
    reset.hidden = !isFiltered();
    plots.forEach((plot) => plot.change());
  }

  let pause;
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => { wanted = search.value.trim().toLowerCase(); apply(); }, 200);
  });
  reset.addEventListener("click", () => {
    for (const options of chosen.values()) options.clear();
    form.querySelectorAll("input[type=checkbox]").forEach((box) => { box.checked = false; });
    wanted = search.value = "";
    apply();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("keydown", (event) => {
    const open = event.target.closest("details[open]");
    if (event.key === "Escape" && open !== null) { open.open = false; open.querySelector("summary").focus(); }
  });
  document.addEventListener("click", (event) => {
    for (const open of form.querySelectorAll("details[open]")) if (!open.contains(event.target)) open.open = false;
  });
  form.append(...menus.map(({ element }) => element), search, reset, count);
  form.hidden = false;
  reset.hidden = true;
}

function menu(facet, apply) {
  const summary = made("summary");
  const boxes = facet.options.map((option) => {
    const box = made("input", { type: "checkbox", value: option });
    box.addEventListener("change", () => {
      if (box.checked) chosen.get(facet).add(option); else chosen.get(facet).delete(option);
      apply();
    });
    return made("label", {}, box, option);
  });
  const element = made("details", {}, summary, made("fieldset", {}, made("legend", {}, facet.label), ...boxes));
  element.dataset.column = facet.column;
  const say = () => {
    const options = [...chosen.get(facet)];
    const words = options.length === 0 ? "all" : options.length <= 2 ? options.join(", ") : `${options.length} chosen`;
    summary.textContent = `${facet.label}: ${words}`;
    element.classList.toggle("chosen", options.length > 0);
  };
  say();
  return { element, say };
}

const tables = [...document.querySelectorAll("div.table")].map((holder) => new LongTable(holder));
const plots = window.vegaEmbed === undefined ? [] : [...document.querySelectorAll("figure.plot")].map((figure) => new Plot(figure));
setUpTheme(plots);
setUpPrinting(plots);
setUpFilter(tables, plots);

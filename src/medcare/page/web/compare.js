// Models whose answers lie in the server's folder of runs, compared on the same test items.

import { getJson } from "./api.js";
import { element, make } from "./elements.js";

const MOST = 5; // that are compared with the first one

let sides = []; // {value: "RUN/MODEL", run, title, items}

export function startCompare() {
  element("compare-first").addEventListener("change", showOthers);
  element("compare-others").addEventListener("change", limit);
  element("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
}

/** Look which answers there are by now; what was chosen stays. */
export async function showCompare() {
  const first = element("compare-first").value;
  try {
    const runs = await getJson("/api/runs");
    sides = runs.flatMap((run) => run.models.map(({ name, title }) => ({ value: `${run.name}/${name}`, run: run.name, title, items: run.items })));
  } catch (error) {
    element("compare-error").textContent = error.message;
    return;
  }
  element("compare-none").hidden = sides.length > 1;
  element("compare-form").hidden = sides.length < 2;
  element("compare-first").replaceChildren(...[...new Set(sides.map((side) => side.run))].map((run) => {
    const inside = sides.filter((side) => side.run === run);
    return Object.assign(make("optgroup", {}, ...inside.map((side) => new Option(name(side), side.value))), { label: run });
  }));
  if (sides.some((side) => side.value === first)) element("compare-first").value = first;
  showOthers();
}

function name(side) {
  return `${side.title} of ${side.run}`;
}

/** What can be compared with the first; those that answered the same items come first. */
function showOthers() {
  const chosen = new Set(others());
  const first = sides.find((side) => side.value === element("compare-first").value);
  if (!first) return;
  const rest = sides.filter((side) => side !== first);
  const same = rest.filter((side) => side.items === first.items);
  const box = (side, note) => make("label", {},
    make("input", { type: "checkbox", name: "side", value: side.value, checked: chosen.has(side.value) && !note }),
    make("span", { textContent: name(side) }), ...(note ? [make("span", { className: "soft small", textContent: note })] : []));
  element("compare-others").replaceChildren(make("legend", { textContent: "with" }),
    ...same.map((side) => box(side, "")), ...rest.filter((side) => !same.includes(side)).map((side) => box(side, "other test items")));
  const boxes = [...element("compare-others").querySelectorAll("input")];
  if (!boxes.some((one) => one.checked) && same.length) boxes[0].checked = true;
  limit();
}

function limit() {
  const boxes = [...element("compare-others").querySelectorAll("input")];
  const checked = boxes.filter((one) => one.checked).length;
  for (const one of boxes) one.disabled = !one.checked && checked >= MOST;
  element("compare-start").disabled = !checked;
}

function others() {
  return [...element("compare-others").querySelectorAll("input:checked")].map((one) => one.value);
}

async function compare() {
  const chosen = [element("compare-first").value, ...others()];
  const titles = chosen.map((value) => name(sides.find((side) => side.value === value)));
  const query = chosen.map((side) => `side=${encodeURIComponent(side)}`).join("&");
  element("compare-error").textContent = "";
  element("compare-start").disabled = true;
  element("compared").setAttribute("aria-busy", "true");
  try {
    const pairs = await getJson(`/api/comparison?${query}`);
    element("compared").replaceChildren(...pairs.map((pair, number) => shown(pair, number, query, titles)));
  } catch (error) {
    element("compared").replaceChildren();
    element("compare-error").textContent = error.message;
  } finally {
    element("compare-start").disabled = false;
    element("compared").setAttribute("aria-busy", "false");
  }
}

function shown(pair, number, query, titles) {
  const count = titles.length - 1;
  const link = (form, text) => make("a", { href: `/api/comparison/${number}/${form}?${query}`, target: "_blank", rel: "noopener", textContent: text });
  const numeric = new Set([1, 2, 3, 4]);
  const cells = (name, texts) => texts.map((text, place) => make(place ? name : "th", { className: numeric.has(place) ? "number" : "", textContent: text, ...(place || name === "th" ? {} : { scope: "row" }) }));
  return make("article", { className: "pair" },
    make("h2", { textContent: `B: ${titles[number + 1]}, against A: ${titles[0]}` }),
    make("p", { className: "soft small", textContent: `The same ${pair.items.toLocaleString()} test items; intervals are paired, p-values corrected (Holm)${count > 1 ? ` over all ${count} comparisons here` : ""}.` }),
    ...pair.warnings.map((text) => make("p", { className: "error small", textContent: `Warning: ${text}` })),
    make("ul", { className: "findings" }, ...pair.sentences.map((text) => make("li", { textContent: text }))),
    make("div", { className: "scrolled", tabIndex: 0 }, make("table", { className: "table" },
      make("thead", {}, make("tr", {}, ...cells("th", pair.columns))),
      make("tbody", {}, ...pair.rows.map((row) => make("tr", {}, ...cells("td", row)))))),
    make("p", { className: "links" }, link("html", "Whole comparison, with its plot and all settings"), " · ", link("md", "Markdown"), " · ", link("csv", "CSV")));
}

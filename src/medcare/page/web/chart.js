// A small line chart: one line a series, the second one dashed with a dot at each value.

import { make } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 150;

/**
 * A figure with its title and the last values as words.
 *
 * `series` is a list of {name, points: [[step, value]]}; `steps` the right end of the axis.
 */
export function chart(title, series, steps, format) {
  const shown = series.filter(({ points }) => points.length);
  const values = shown.flatMap(({ points }) => points.map(([, value]) => value));
  if (!values.length) return make("figure", { className: "chart", hidden: true });
  const last = Math.max(steps || 0, ...shown.map(({ points }) => points.at(-1)[0]), 1);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const words = shown.map(({ name, points }) => `${name} ${format(points.at(-1)[1])}`).join(", ");
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${words}` });
  const x = (step) => (WIDTH * step) / last;
  const y = (value) => (high === low ? HEIGHT / 2 : 6 + ((HEIGHT - 12) * (high - value)) / (high - low));
  for (const [index, { points }] of shown.entries()) {
    const path = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`);
    // A single value is a line without a length, which round ends make a dot.
    const lone = points.length === 1 ? ` L${path[0]}` : "";
    svg.append(element("path", { d: `M${path.join(" L")}${lone}`, class: `line s${index}` }));
    if (index) svg.append(element("path", { d: path.map((place) => `M${place} L${place}`).join(" "), class: `dots s${index}` }));
  }
  return make("figure", { className: "chart" },
    make("figcaption", {}, make("strong", { textContent: title }),
      ...shown.map(({ name, points }, index) => make("span", { className: `key s${index}`, textContent: `${shown.length > 1 ? `${name} ` : ""}${format(points.at(-1)[1])}` }))),
    make("div", { className: "plot" }, svg,
      make("span", { className: "high", textContent: format(high) }), make("span", { className: "low", textContent: format(low) })),
    make("div", { className: "axis" }, make("span", { textContent: "0" }), make("span", { textContent: `${last.toLocaleString()} steps` })));
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

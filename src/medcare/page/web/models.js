// The pills that choose models, and the colour that each model keeps.

import { make } from "./elements.js";

const MOST = 3;

/** The class of a model's colour: grey, blue and orange, in the order in which the server names them. */
export function colour(names, name) {
  return `c${names.indexOf(name) % 3}`;
}

/** Fill a fieldset with one checkbox a model; the first three are chosen. */
export function fillModels(fieldset, names) {
  for (const [index, name] of names.entries()) {
    fieldset.append(make("label", {},
      make("input", { type: "checkbox", name: "model", value: name, checked: index < MOST }),
      make("span", { textContent: name, className: colour(names, name) })));
  }
  const update = () => limit(fieldset);
  fieldset.addEventListener("change", update);
  update();
}

export function chosenModels(fieldset) {
  return [...fieldset.querySelectorAll("input:checked")].map((box) => box.value);
}

function limit(fieldset) {
  const boxes = [...fieldset.querySelectorAll("input")];
  const checked = boxes.filter((box) => box.checked).length;
  for (const box of boxes) {
    // At least one, at most three.
    box.disabled = box.checked ? checked === 1 : checked >= MOST;
  }
}

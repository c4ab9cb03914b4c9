// Elements of the page in one line.

export const element = (id) => document.getElementById(id);

/** A new element with its properties and children; strings become text. */
export function make(name, properties = {}, ...children) {
  const { label, ...others } = properties;
  const made = Object.assign(document.createElement(name), others);
  if (label) made.setAttribute("aria-label", label);
  made.append(...children);
  return made;
}

export function button(text, action, properties = {}) {
  const made = make("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", action);
  return made;
}

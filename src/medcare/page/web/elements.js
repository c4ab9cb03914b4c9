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

/** A share of 1 in percent, with a decimal. */
export const percent = (value) => (100 * value).toFixed(1);

/** Do something that may fail, and say in an element why it did. */
export async function attempt(told, action) {
  element(told).textContent = "";
  try {
    await action();
  } catch (error) {
    element(told).textContent = error.message;
  }
}

/** Have the browser save parts of a text as a file. */
export function download(name, parts, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob(parts, { type })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

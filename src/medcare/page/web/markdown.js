// Markdown as elements of the page. What a model writes becomes text and the elements made here, never HTML:
// tags are shown as they were written, and links and pictures as words and an address that lead nowhere.

import { make } from "./elements.js";
import { lexer } from "./vendor/marked.esm.js";

// Beyond these the text is shown as it is: the parser takes quadratic time over marks of emphasis.
const LONGEST = 20_000;
const MOST_MARKS = 1_000;

/** The nodes that show a text. */
export function rendered(text) {
  if (text.length > LONGEST || (text.match(/[*_]/g) ?? []).length > MOST_MARKS) return [plain(text)];
  try {
    return nodes(lexer(text));
  } catch {
    return [plain(text)]; // nested too deeply for the parser
  }
}

function plain(text) {
  return make("p", {}, text);
}

function nodes(tokens) {
  return tokens.flatMap(node);
}

function node(token) {
  const inside = () => (token.tokens ? nodes(token.tokens) : [token.text]);
  switch (token.type) {
    case "space":
    case "def":
    case "checkbox":
      return [];
    case "heading":
      return [make(`h${Math.min(token.depth + 2, 6)}`, {}, ...inside())]; // h1 is the page's, h2 an answer's
    case "paragraph":
      return [make("p", {}, ...inside())];
    case "blockquote":
    case "strong":
    case "em":
    case "del":
      return [make(token.type, {}, ...inside())];
    case "code":
      return [scrolled(make("pre", {}, make("code", {}, token.text)))];
    case "codespan":
      return [make("code", {}, token.text)];
    case "hr":
    case "br":
      return [make(token.type)];
    case "list":
      return [list(token)];
    case "table":
      return [scrolled(table(token))];
    case "link":
    case "image":
      return [...inside(), token.text === token.href ? "" : ` (${token.href})`];
    case "text":
    case "escape":
      return inside();
    default:
      return [token.raw]; // HTML, and what a later parser may know
  }
}

function list(token) {
  const items = token.items.map((item) => {
    const box = item.task ? [item.checked ? "☑ " : "☐ "] : [];
    return make("li", {}, ...box, ...nodes(item.tokens));
  });
  return token.ordered ? make("ol", { start: token.start }, ...items) : make("ul", {}, ...items);
}

function table(token) {
  const row = (cells, name) => make("tr", {}, ...cells.map((cell) => make(name, {}, ...nodes(cell.tokens))));
  const rows = token.rows.map((cells) => row(cells, "td"));
  return make("table", {}, make("thead", {}, row(token.header, "th")), make("tbody", {}, ...rows));
}

/** What may be wider than its place scrolls in it, with the keyboard too. */
function scrolled(content) {
  return make("div", { className: "scrolled", tabIndex: 0 }, content);
}

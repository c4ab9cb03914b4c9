// A question and the answers to it, as they stand in the conversation.

import { button, make } from "./elements.js";
import { rendered } from "./markdown.js";
import { colour } from "./models.js";

/**
 * The elements of a turn: `element`, and a card for each answer.
 *
 * `edit(question)` goes on from another question, `retry(answer, card)` asks a model again.
 */
export function showTurn(turn, names, { edit, retry }) {
  const answers = make("div", { className: "answers" });
  answers.style.setProperty("--n", turn.answers.length);
  const cards = turn.answers.map((answer) => new Card(answer, names, retry));
  answers.append(...cards.map((card) => card.element));
  const element = make("div", { className: "turn" }, question(turn.question, edit), answers);
  return { element, cards };
}

function question(text, edit) {
  const words = make("p", { className: "question", textContent: text });
  const change = button("Edit", () => {
    box.value = text;
    shown(true);
    box.focus();
  }, { className: "quiet", label: "Edit the question" });
  const box = make("textarea", { rows: 3, label: "Question", required: true });
  const form = make("form", { className: "edit", hidden: true }, box,
    make("button", { className: "primary", textContent: "Ask" }),
    button("Cancel", () => shown(false), { className: "quiet" }));
  const shown = (editing) => {
    form.hidden = !editing;
    words.hidden = change.hidden = editing;
    if (!editing) change.focus();
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") shown(false);
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (box.value.trim()) edit(box.value.trim());
  });
  return make("div", { className: "asked" }, words, change, form);
}

/** One answer, which may be under way. */
class Card {
  constructor(answer, names, retry) {
    this.answer = answer;
    this.text = make("div", { className: "text" });
    this.said = make("div", { className: "said" });
    this.thought = make("details", { className: "thought", hidden: true }, make("summary", { textContent: "Thought" }), this.said);
    this.note = make("span", { className: "note" });
    this.copied = button("Copy", () => this.copy(), { className: "quiet", label: `Copy the answer of ${answer.model}` });
    const again = button("Retry", () => retry(answer, this), { className: "quiet again", label: `Ask ${answer.model} again` });
    this.element = make("article", { className: `answer ${colour(names, answer.model)}`, label: `Answer of ${answer.model}` },
      make("h2", { textContent: answer.model }), this.thought, this.text,
      make("footer", {}, this.note, make("span", { className: "actions" }, this.copied, again)));
    this.busy(false);
  }

  busy(busy) {
    this.element.setAttribute("aria-busy", String(busy));
    clearTimeout(this.timer);
    this.timer = undefined;
    this.show();
  }

  /** Show what there is by now, soon: a long text takes a while to lay out. */
  changed(follow) {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      follow(() => this.show());
    }, this.cost);
  }

  show() {
    const began = performance.now();
    const { text, thought, note, failed } = this.answer;
    this.thought.hidden = !thought;
    this.said.textContent = thought;
    this.text.replaceChildren(...rendered(text.trim()));
    if (!text.trim() && note && !failed) this.text.replaceChildren("(empty answer)");
    this.note.textContent = note;
    this.note.classList.toggle("error", failed);
    this.cost = 10 * (performance.now() - began);
  }

  async copy() {
    await copy(this.answer.text);
    this.copied.textContent = "Copied";
    setTimeout(() => (this.copied.textContent = "Copy"), 2000);
  }
}

/** Browsers have the clipboard only where the connection is safe; the older way works elsewhere. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = make("textarea", { value: text, className: "hidden" });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
  return undefined;
}

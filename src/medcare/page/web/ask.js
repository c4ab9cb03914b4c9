// A conversation with up to three models, each with its own memory of it.

import { getJson, streamChat } from "./api.js";
import { button, element, make } from "./elements.js";
import * as history from "./history.js";
import { chosenModels, fillModels } from "./models.js";
import { showTurn } from "./turn.js";

let names = [];
let talk = history.begin();
let running = null; // the AbortController of the answers under way

export function startAsk(models) {
  names = models;
  fillModels(element("ask-models"), names);
  element("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.abort();
    else send();
  });
  element("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  element("question").addEventListener("input", grow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  window.addEventListener("pagehide", () => {
    if (running) store();
  });
  element("reset").addEventListener("click", () => open(history.begin()));
  element("save").addEventListener("click", () => history.save([talk]));
  element("save-all").addEventListener("click", () => history.save(history.conversations()));
  element("forget-all").addEventListener("click", () => {
    if (!confirm("Delete all conversations that this browser keeps?")) return;
    history.forgetAll();
    open(history.begin());
  });
  open(history.conversations()[0] ?? talk);
  offerExamples();
}

/** Questions that a model here answers rightly; the server has asked them itself. */
async function offerExamples() {
  const questions = await getJson("/api/examples").catch(() => []);
  element("examples").replaceChildren(...questions.map((text) => make("li", {}, button(text, () => ask(text)))));
  element("examples-note").hidden = !questions.length;
}

/** Where there is a keyboard; on a phone this would open one over the answer. */
export function focusQuestion() {
  if (matchMedia("(pointer: fine)").matches) element("question").focus({ preventScroll: true });
}

export async function ask(question) {
  if (running) return;
  const models = chosenModels(element("ask-models"));
  const turn = { question, answers: models.map((model) => ({ model, text: "", thought: "", note: "", failed: false })) };
  talk.turns.push(turn);
  const { element: shown, cards } = append(turn);
  shown.scrollIntoView({ block: "start" });
  await answer(turn, cards);
  focusQuestion();
}

/** Have the models of some cards answer a turn. */
async function answer(turn, cards) {
  running = new AbortController();
  showState();
  const before = talk.turns.slice(0, talk.turns.indexOf(turn));
  await Promise.all(cards.map((card) => stream(card, before, turn.question, running.signal)));
  running = null;
  showState();
}

async function stream(card, before, question, signal) {
  const said = card.answer;
  Object.assign(said, { text: "", thought: "", note: "", failed: false });
  card.busy(true);
  const start = performance.now();
  const system = element("system").value.trim();
  const messages = [
    ...(system ? [{ role: "system", content: system }] : []),
    ...history.messages(before, said.model),
    { role: "user", content: question },
  ];
  let end = "stop";
  let tokens = 0;
  try {
    for await (const chunk of streamChat({ model: said.model, messages, ...settings() }, signal)) {
      const choice = chunk.choices[0];
      said.thought += choice?.delta.reasoning_content ?? "";
      said.text += choice?.delta.content ?? "";
      end = choice?.finish_reason ?? end;
      tokens = chunk.usage?.completion_tokens ?? tokens;
      card.changed(follow);
    }
    const seconds = (performance.now() - start) / 1000;
    const cut = end === "length" ? ", cut at the longest answer" : "";
    said.note = `${tokens} tokens in ${seconds.toFixed(1)} s, ${(tokens / seconds).toPrecision(2)} tokens/s${cut}`;
  } catch (error) {
    said.failed = error.name !== "AbortError";
    said.note = said.failed ? error.message : "Stopped";
  }
  said.text = said.text.trim();
  follow(() => card.busy(false));
  store();
}

function settings() {
  const numbers = ["temperature", "max_tokens", "top_p", "top_k", "seed"].map((name) => [name, element(name).value]);
  return Object.fromEntries(numbers.filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
}

function send() {
  const text = element("question").value.trim();
  if (!text || running || !element("composer").reportValidity()) return;
  element("question").value = "";
  grow();
  ask(text);
}

/** Go on from another question in the place of one; the conversation as it was stays in the history. */
function edit(turn, question) {
  if (running) return;
  const before = talk.turns.slice(0, talk.turns.indexOf(turn));
  open(history.begin(structuredClone(before)));
  ask(question);
}

function retry(turn, card) {
  if (!running) answer(turn, [card]);
}

/** Show a conversation, and go on with it. */
function open(conversation) {
  talk = conversation;
  for (const shown of document.querySelectorAll(".turn")) shown.remove();
  for (const turn of talk.turns) append(turn);
  element("turns").scrollTop = element("turns").scrollHeight;
  element("history").open = false;
  showState();
  focusQuestion();
}

function append(turn) {
  const shown = showTurn(turn, names, {
    edit: (question) => edit(turn, question),
    retry: (_, card) => retry(turn, card),
  });
  element("turns").append(shown.element);
  return shown;
}

function store() {
  if (talk.turns.some((turn) => turn.answers.some((one) => one.text))) history.keep(talk);
  showHistory();
}

/** Change the conversation; keep its end in sight if it was. */
function follow(change) {
  const box = element("turns");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function showState() {
  element("welcome").hidden = talk.turns.length > 0;
  element("send").textContent = running ? "Stop" : "Send";
  // While answers are written, the button stops them whether or not a question is typed.
  element("composer").noValidate = Boolean(running);
  element("ask").classList.toggle("running", Boolean(running));
  element("reset").disabled = element("save").disabled = Boolean(running) || !talk.turns.length;
  showHistory();
}

function showHistory() {
  const all = history.conversations();
  element("history").querySelector("summary").textContent = all.length ? `History (${all.length})` : "History";
  element("save-all").disabled = !all.length;
  element("forget-all").disabled = Boolean(running) || !all.length;
  element("no-talks").hidden = all.length > 0;
  element("talks").replaceChildren(...all.map((one) => {
    const title = one.turns[0]?.question ?? "";
    const day = new Date(one.changed).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const name = button("", () => open(one), { className: "talk", disabled: Boolean(running) });
    name.append(make("span", { textContent: title }), make("span", { className: "soft small", textContent: day }));
    if (one.id === talk.id) name.setAttribute("aria-current", "true");
    const gone = () => {
      history.forget(one.id);
      if (one.id === talk.id) open(history.begin());
      else showHistory();
      element("history").open = true;
    };
    return make("li", {}, name, button("Delete", gone, { className: "quiet", label: `Delete: ${title}`, disabled: Boolean(running) }));
  }));
}

function grow() {
  const box = element("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

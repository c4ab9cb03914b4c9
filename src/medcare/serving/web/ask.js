// A conversation with up to three models, each with its own memory of it.

import { streamChat } from "./api.js";
import { chosenModels, colour, fillModels } from "./models.js";

const EXAMPLES = [
  "What is arachnodactyly?",
  "Which findings suggest iron deficiency anemia?",
  "How is type 1 diabetes told apart from type 2?",
];
const element = (id) => document.getElementById(id);

let names = [];
let turns = []; // {question, answers: Map of model to text}
let running = null; // the AbortController of the answers under way

export function startAsk(models) {
  names = models;
  fillModels(element("ask-models"), names);
  for (const text of EXAMPLES) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.addEventListener("click", () => ask(text));
    const item = document.createElement("li");
    item.append(button);
    element("examples").append(item);
  }
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
    if (event.key !== "Escape") return;
    element("settings").open = false;
    running?.abort();
  });
  document.addEventListener("click", (event) => {
    if (!element("settings").contains(event.target)) element("settings").open = false;
  });
  element("reset").addEventListener("click", reset);
  element("save").addEventListener("click", save);
}

function send() {
  const text = element("question").value.trim();
  if (!text || running || !element("composer").reportValidity()) return;
  element("question").value = "";
  grow();
  ask(text);
}

async function ask(question) {
  if (running) return;
  const models = chosenModels(element("ask-models"));
  const turn = { question, answers: new Map() };
  running = new AbortController();
  element("welcome").hidden = true;
  const cards = showTurn(question, models);
  showState();
  await Promise.all(models.map((name, index) => answer(name, turn, cards[index], running.signal)));
  running = null;
  turns.push(turn);
  showState();
  focusQuestion();
}

/** Where there is a keyboard; on a phone this would open one over the answer. */
export function focusQuestion() {
  if (matchMedia("(pointer: fine)").matches) element("question").focus({ preventScroll: true });
}

async function answer(name, turn, card, signal) {
  const text = card.querySelector(".text");
  const thought = card.querySelector(".thought");
  const footer = card.querySelector("footer");
  const start = performance.now();
  const body = { model: name, messages: history(name, turn.question), ...settings() };
  let end = "stop";
  let tokens = 0;
  try {
    for await (const chunk of streamChat(body, signal)) {
      const choice = chunk.choices[0];
      if (choice?.delta.reasoning_content) {
        thought.hidden = false;
        follow(() => thought.lastChild.append(choice.delta.reasoning_content));
      }
      if (choice?.delta.content) follow(() => text.append(choice.delta.content));
      end = choice?.finish_reason ?? end;
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    const seconds = (performance.now() - start) / 1000;
    const cut = end === "length" ? ", cut at the longest answer" : "";
    footer.textContent = `${tokens} tokens in ${seconds.toFixed(1)} s${cut}`;
  } catch (error) {
    footer.textContent = error.name === "AbortError" ? "Stopped" : error.message;
    footer.classList.toggle("error", error.name !== "AbortError");
  }
  card.setAttribute("aria-busy", "false");
  if (text.textContent.trim()) turn.answers.set(name, text.textContent.trim());
  else if (!footer.classList.contains("error")) text.textContent = "(empty answer)";
}

/** What a model has heard and said so far, with a new question. */
function history(name, question) {
  const messages = [];
  const system = element("system").value.trim();
  if (system) messages.push({ role: "system", content: system });
  for (const turn of turns) {
    if (!turn.answers.has(name)) continue;
    messages.push({ role: "user", content: turn.question });
    messages.push({ role: "assistant", content: turn.answers.get(name) });
  }
  return [...messages, { role: "user", content: question }];
}

function settings() {
  const seed = element("seed").value;
  return {
    temperature: Number(element("temperature").value),
    max_tokens: Number(element("longest").value),
    ...(seed === "" ? {} : { seed: Number(seed) }),
  };
}

function showTurn(question, models) {
  const turn = document.createElement("div");
  turn.className = "turn";
  const heading = Object.assign(document.createElement("p"), { className: "question", textContent: question });
  const answers = document.createElement("div");
  answers.className = "answers";
  answers.style.setProperty("--n", models.length);
  const cards = models.map((name) => {
    const card = document.createElement("article");
    card.className = `answer ${colour(names, name)}`;
    card.setAttribute("aria-busy", "true");
    card.setAttribute("aria-label", `Answer of ${name}`);
    const title = Object.assign(document.createElement("h2"), { textContent: name });
    const text = Object.assign(document.createElement("div"), { className: "text" });
    const thought = Object.assign(document.createElement("details"), { className: "thought", hidden: true });
    thought.append(
      Object.assign(document.createElement("summary"), { textContent: "Thought" }),
      Object.assign(document.createElement("div"), { className: "said" }),
    );
    card.append(title, thought, text, document.createElement("footer"));
    return card;
  });
  answers.append(...cards);
  turn.append(heading, answers);
  element("turns").append(turn);
  turn.scrollIntoView({ block: "start" });
  return cards;
}

/** Change the conversation; keep its end in sight if it was. */
function follow(change) {
  const box = element("turns");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function showState() {
  element("send").textContent = running ? "Stop" : "Send";
  // While answers are written, the button stops them whether or not a question is typed.
  element("composer").noValidate = Boolean(running);
  element("reset").disabled = element("save").disabled = Boolean(running) || !turns.length;
}

function reset() {
  turns = [];
  for (const turn of document.querySelectorAll(".turn")) turn.remove();
  element("welcome").hidden = false;
  showState();
  focusQuestion();
}

/** One line of JSONL a model, the form that `medcare train --data` reads. */
function save() {
  const rows = names.map((name) => ({ id: name, source: "chat", messages: history(name, "").slice(0, -1) }));
  const lines = rows.filter((row) => row.messages.some((turn) => turn.role === "assistant"));
  const blob = new Blob(lines.map((row) => `${JSON.stringify(row)}\n`), { type: "application/jsonl" });
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(blob), download: "conversation.jsonl",
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

function grow() {
  const box = element("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

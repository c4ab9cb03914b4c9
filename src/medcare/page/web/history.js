// Conversations, kept in this browser and nowhere else. Each is {id, changed, turns}, where a turn is
// {question, answers} and an answer {model, text, thought, note, failed}.

import { download } from "./elements.js";

const KEY = "medcare.conversations";
const MOST = 100;
const MOST_CHARACTERS = 2_000_000; // browsers give a page about five million

let kept = null; // where the browser keeps nothing, until the page is left

/** All of them, the one changed last first. */
export function conversations() {
  if (kept) return kept;
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter(isConversation) : [];
  } catch {
    return [];
  }
}

/** Keep a conversation as it is now; the oldest go where there are too many. */
export function keep(conversation) {
  const others = conversations().filter((other) => other.id !== conversation.id);
  store([{ ...conversation, changed: Date.now() }, ...others].slice(0, MOST));
}

export function forget(id) {
  store(conversations().filter((other) => other.id !== id));
}

export function forgetAll() {
  store([]);
}

export function begin(turns = []) {
  return { id: Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join(""), changed: 0, turns };
}

/** What a model has heard and said so far. */
export function messages(turns, model) {
  return turns.flatMap((turn) => {
    const answer = turn.answers.find((one) => one.model === model && one.text);
    return answer ? [{ role: "user", content: turn.question }, { role: "assistant", content: answer.text }] : [];
  });
}

/** Download conversations: one line of JSONL for each and each model, the form that `medcare train --data` reads. */
export function save(chosen) {
  const rows = chosen.flatMap(({ id, turns }) => {
    const models = new Set(turns.flatMap((turn) => turn.answers.map((answer) => answer.model)));
    return [...models].map((model) => ({ id: `${id}/${model}`, source: "chat", messages: messages(turns, model) }));
  });
  const lines = rows.filter((row) => row.messages.length).map((row) => `${JSON.stringify(row)}\n`);
  download(chosen.length === 1 ? "conversation.jsonl" : "conversations.jsonl", lines, "application/jsonl");
}

function store(all) {
  let size = 0;
  const fitting = all.filter((one, index) => (size += JSON.stringify(one).length) < MOST_CHARACTERS || index === 0);
  try {
    localStorage.setItem(KEY, JSON.stringify(fitting));
    kept = null;
  } catch {
    kept = fitting;
  }
}

function isConversation(value) {
  const isAnswer = (answer) => typeof answer?.model === "string" && typeof answer.text === "string";
  const isTurn = (turn) => typeof turn?.question === "string" && Array.isArray(turn.answers) && turn.answers.every(isAnswer);
  return typeof value?.id === "string" && Array.isArray(value.turns) && value.turns.every(isTurn);
}

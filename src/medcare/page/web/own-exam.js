// An exam of the user's own: a file or a pasted text, answered by the served models.

import { getJson, postJson } from "./api.js";
import { attempt, button, download, element, make, percent } from "./elements.js";
import { bar, letter, option } from "./exam.js";
import { chosenModels, fillModels } from "./models.js";

const EVERY = 700; // milliseconds between two looks at how far it is
const MOST_BYTES = 780_000; // what the server takes in one request
const MOST_SHOWN = 100;
const EXAMPLE = `question,A,B,C,D,answer
Which vitamin prevents scurvy?,Vitamin A,Vitamin B12,Vitamin C,Vitamin D,C
Which organ makes insulin?,Liver,Pancreas,Spleen,Kidney,B
`;

let names = [];
let file = null; // {name, bytes} of a chosen file; the text counts where there is none
let running = null; // the id of the exam under way

export function startOwnExam(models) {
  names = models;
  fillModels(element("own-models"), names);
  element("own-example").addEventListener("click", () => {
    choose(null);
    element("own-text").value = EXAMPLE;
  });
  element("own-file").addEventListener("change", () => choose(element("own-file").files[0] ?? null));
  element("own-text").addEventListener("input", () => choose(null));
  const form = element("own-form");
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt("own-error", running ? cancel : send);
  });
}

function choose(chosen) {
  file = chosen;
  element("own-chosen").textContent = chosen ? chosen.name : "or paste it below";
  if (chosen) element("own-text").value = "";
  else element("own-file").value = "";
}

async function send() {
  const [name, blob] = file ? [file.name, file] : [named(element("own-text").value), new Blob([element("own-text").value])];
  if (!blob.size) throw new Error("Choose a file, or paste an exam.");
  if (blob.size > MOST_BYTES) throw new Error(`At most ${MOST_BYTES / 1000} KB are taken at once; this has ${Math.round(blob.size / 1000)}. Send a part of it.`);
  element("own-result").replaceChildren();
  const job = await postJson("/api/own-exams", { name, content: await base64(blob), models: chosenModels(element("own-models")) });
  running = job.id;
  busy(true);
  try {
    await follow(job);
  } finally {
    running = null;
    busy(false);
  }
}

async function follow(first) {
  let job = first;
  while (job.state === "running") {
    element("own-bar").max = job.total;
    element("own-bar").value = job.done;
    element("own-done").textContent = `${job.done.toLocaleString()} of ${job.total.toLocaleString()} answers`;
    await new Promise((resolve) => setTimeout(resolve, EVERY));
    job = await getJson(`/api/own-exams/${job.id}`);
  }
  if (job.state === "failed") throw new Error(job.error);
  if (job.state === "cancelled") throw new Error("Cancelled.");
  show(job);
}

async function cancel() {
  await getJson(`/api/own-exams/${running}`, { method: "DELETE" });
}

function busy(now) {
  element("own-send").textContent = now ? "Cancel" : "Have it answered";
  element("own-progress").hidden = !now;
}

/** What a pasted text is: JSON says so itself, cells of a spreadsheet have tabs between them. */
function named(text) {
  const begin = text.trimStart();
  if (begin.startsWith("[")) return "pasted.json";
  if (begin.startsWith("{")) return "pasted.jsonl";
  return begin.split("\n", 1)[0].includes("\t") ? "pasted.tsv" : "pasted.csv";
}

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  return btoa(text);
}

function show({ result, set_aside: aside }) {
  const models = [...new Set(result.scores.map((score) => score.model))];
  const several = new Set(result.scores.map((score) => score.task)).size > 1;
  const scores = result.scores.map((score) => make("tr", {}, make("th", { scope: "row", textContent: several ? `${score.model}, ${score.task}` : score.model }),
    make("td", { className: "number" }, make("strong", { textContent: `${percent(score.value)} %` })),
    make("td", { className: "number", textContent: `${percent(score.low)} to ${percent(score.high)}` }),
    make("td", { className: "number", textContent: `${Math.round(score.value * score.n)} of ${score.n}` })));
  const list = make("div", { className: "questions" });
  const more = button("Show all questions", () => {
    list.append(...result.questions.slice(MOST_SHOWN).map((row, place) => question(row, MOST_SHOWN + place, models)));
    more.remove();
  });
  list.append(...result.questions.slice(0, MOST_SHOWN).map((row, place) => question(row, place, models)));
  element("own-result").replaceChildren(
    make("h2", { textContent: "Result" }),
    make("div", { className: "scrolled", tabIndex: 0 }, make("table", { className: "table" },
      make("thead", {}, make("tr", {}, ...["Model", "Accuracy", "95 % interval", "Right"].map((text, place) => make("th", { className: place ? "number" : "", textContent: text })))),
      make("tbody", {}, ...scores))),
    make("ul", { className: "findings" }, ...result.compared.map((text) => make("li", { textContent: text }))),
    ...aside.map(({ row, reason }) => make("p", { className: "error small", textContent: row === "" ? reason : `Row ${row} is set aside: ${reason}` })),
    make("p", { className: "links" }, button("Download CSV", () => download("exam.csv", [csv(result.questions, models)], "text/csv")), " ",
      button("Download JSON", () => download("exam.json", [JSON.stringify({ ...result, set_aside: aside }, null, 1)], "application/json"))),
    make("h2", { textContent: "Questions" }), list, ...(result.questions.length > MOST_SHOWN ? [more] : []));
}

/** A question, folded: who was right; open: how likely each option is to each model. */
function question(row, place, models) {
  const marks = models.map((model) => {
    const right = row.answers[model].choice === row.right;
    return make("span", { className: right ? "mark good" : "mark error", textContent: `${right ? "✓" : "✗"} ${model}` });
  });
  const fold = make("details", { className: "card" }, make("summary", {}, make("span", { className: "stem", textContent: `${place + 1}. ${row.question.split("\n", 1)[0]}` }), ...marks));
  fold.addEventListener("toggle", () => {
    if (fold.children.length > 1) return;
    fold.append(make("ol", { className: "options" }, ...row.options.map((text, index) => {
      const item = option(text, index, index === row.right);
      for (const model of models) item.append(bar(names, model, row.answers[model].shares[index], row.answers[model].choice === index));
      return item;
    })));
  });
  return fold;
}

function csv(questions, models) {
  const most = Math.max(...questions.map((row) => row.options.length));
  const letters = Array.from({ length: most }, (_, index) => letter(index));
  const head = ["id", "subject", "question", "right", ...models.flatMap((model) => [`${model} chose`, `${model} right`, ...letters.map((one) => `${model} p(${one})`)])];
  const rows = questions.map((row) => [row.id, row.subject, row.question, letter(row.right), ...models.flatMap((model) => {
    const { choice, shares } = row.answers[model];
    return [letter(choice), choice === row.right ? 1 : 0, ...letters.map((_, index) => shares[index]?.toFixed(6) ?? "")];
  })]);
  return [head, ...rows].map((cells) => cells.map(cell).join(",")).join("\r\n");
}

/** A spreadsheet would run a text that begins like a formula. */
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

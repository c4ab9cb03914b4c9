// Exam questions of a finished run, put to the models that are served.

import { getJson, postJson } from "./api.js";
import { attempt, element, make, percent } from "./elements.js";
import { chosenModels, colour, fillModels } from "./models.js";

export const letter = (index) => String.fromCharCode(65 + index);

let names = [];
let tasks = {};
let number = 0;
let question = null;
let shown = 0; // counts the questions shown, so that late answers to former ones are dropped

export function startExam(models, runs) {
  names = models;
  fillModels(element("exam-models"), names);
  element("exam-run").append(...runs.map((run) => new Option(run)));
  element("exam-run").addEventListener("change", () => attempt("exam-error", showRun));
  element("exam-task").addEventListener("change", () => attempt("exam-error", () => show(0)));
  element("previous").addEventListener("click", () => attempt("exam-error", () => show(number - 1)));
  element("next").addEventListener("click", () => attempt("exam-error", () => show(number + 1)));
  element("random").addEventListener("click", () => attempt("exam-error", () => show(Math.floor(Math.random() * count()))));
  element("score").addEventListener("click", () => attempt("exam-error", score));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (element("exam").hidden || element("exam-runs").hidden || typing || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") element("previous").click();
    if (event.key === "ArrowRight") element("next").click();
  });
  for (const choice of document.querySelectorAll("#exam-kind input")) choice.addEventListener("change", showKind);
  showKind();
  if (runs.length) attempt("exam-error", showRun);
  else none();
}

/** The questions of a run, or an exam of one's own. */
function showKind() {
  const own = document.querySelector("#exam-kind input:checked").value === "own";
  element("exam-runs").hidden = own;
  element("own-exam").hidden = !own;
}

async function showRun() {
  tasks = await getJson(`/api/runs/${encodeURIComponent(element("exam-run").value)}/tasks`);
  element("exam-task").replaceChildren(...Object.keys(tasks).map((task) => new Option(task.replaceAll("_", " "), task)));
  if (Object.keys(tasks).length) await show(0);
  else none();
}

function none() {
  element("exam-none").hidden = false;
  element("exam-body").hidden = true;
}

function count() {
  return tasks[element("exam-task").value] ?? 0;
}

async function show(wanted) {
  if (wanted < 0 || wanted >= count()) return;
  const run = encodeURIComponent(element("exam-run").value);
  const task = encodeURIComponent(element("exam-task").value);
  const now = ++shown;
  const found = await getJson(`/api/runs/${run}/questions/${task}/${wanted}`);
  if (now !== shown) return;
  number = wanted;
  question = found;
  element("position").textContent = `${number + 1} of ${count()}`;
  element("previous").disabled = number === 0;
  element("next").disabled = number === count() - 1;
  const splits = { taught: "a taught fact in new words", held_out: "a fact never taught" };
  element("facts").textContent = [question.subject, splits[question.split]].filter(Boolean).join(" · ");
  element("prompt").textContent = question.prompt;
  element("options").replaceChildren(...question.options.map((text, index) => option(text, index, false)));
}

/** An option with its letter; the right one is marked. */
export function option(text, index, right) {
  return make("li", { className: right ? "truth" : "" }, make("div", { className: "head" },
    make("span", { className: "letter", textContent: letter(index) }), make("span", { textContent: text }),
    ...(right ? [make("span", { className: "mark", textContent: "✓ correct" })] : [])));
}

async function score() {
  const now = shown;
  const place = { run: element("exam-run").value, task: element("exam-task").value, number };
  const models = chosenModels(element("exam-models"));
  element("score").disabled = true;
  element("paper").setAttribute("aria-busy", "true");
  try {
    const results = await Promise.all(models.map((model) => postJson("/api/exam", { model, ...place })));
    if (now === shown) reveal(models, results);
  } finally {
    element("score").disabled = false;
    element("paper").setAttribute("aria-busy", "false");
  }
}

function reveal(models, results) {
  element("options").replaceChildren(...question.options.map((text, index) => {
    const item = option(text, index, question.answers.includes(index));
    for (const [place, model] of models.entries()) {
      const { share, log_likelihood: value } = results[place].options[index];
      const row = bar(names, model, share, results[place].chosen === index);
      row.title = `Log-likelihood ${value.toFixed(2)} nats`;
      item.append(row);
    }
    return item;
  }));
}

/** How likely an option is to a model, as a bar. */
export function bar(all, model, share, chosen) {
  const row = make("div", { className: `share ${colour(all, model)}` });
  row.classList.toggle("chosen", chosen);
  const name = make("span", { className: "name", textContent: chosen ? `${model} ◂` : model });
  if (chosen) name.append(make("span", { className: "hidden", textContent: " chooses this" }));
  const fill = make("span", { className: "fill" });
  fill.style.setProperty("--share", share);
  row.append(name, make("span", { className: "track" }, fill), make("span", { className: "value", textContent: `${percent(share)} %` }));
  return row;
}

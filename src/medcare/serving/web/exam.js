// Exam questions of a finished run, put to the models that are served.

import { getJson, postJson } from "./api.js";
import { element } from "./elements.js";
import { chosenModels, colour, fillModels } from "./models.js";

const letter = (index) => String.fromCharCode(65 + index);

let names = [];
let tasks = {};
let number = 0;
let shown = 0; // counts the questions shown, so that late answers to former ones are dropped

export function startExam(models, runs) {
  names = models;
  fillModels(element("exam-models"), names);
  element("exam-run").append(...runs.map((run) => new Option(run)));
  element("exam-run").addEventListener("change", () => attempt(showRun));
  element("exam-task").addEventListener("change", () => attempt(() => show(0)));
  element("previous").addEventListener("click", () => attempt(() => show(number - 1)));
  element("next").addEventListener("click", () => attempt(() => show(number + 1)));
  element("random").addEventListener("click", () => attempt(() => show(Math.floor(Math.random() * count()))));
  element("score").addEventListener("click", () => attempt(score));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (element("exam").hidden || typing || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") element("previous").click();
    if (event.key === "ArrowRight") element("next").click();
  });
  if (runs.length) attempt(showRun);
  else none();
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
  const question = await getJson(`/api/runs/${run}/questions/${task}/${wanted}`);
  if (now !== shown) return;
  number = wanted;
  element("position").textContent = `${number + 1} of ${count()}`;
  element("previous").disabled = number === 0;
  element("next").disabled = number === count() - 1;
  const split = question.split === "taught" ? "a taught fact in new words" : "a fact never taught";
  element("facts").textContent = [question.subject, split].filter(Boolean).join(" · ");
  element("prompt").textContent = question.prompt;
  element("options").replaceChildren(...question.options.map((text, index) => option(text, index)));
  element("paper").answers = question.answers;
}

function option(text, index) {
  const item = document.createElement("li");
  const head = document.createElement("div");
  head.className = "head";
  const name = Object.assign(document.createElement("span"), { className: "letter", textContent: letter(index) });
  head.append(name, Object.assign(document.createElement("span"), { textContent: text }));
  item.append(head);
  return item;
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
  for (const [index, item] of [...element("options").children].entries()) {
    for (const former of item.querySelectorAll(".share, .mark")) former.remove();
    if (element("paper").answers.includes(index)) {
      item.classList.add("truth");
      const mark = Object.assign(document.createElement("span"), { className: "mark", textContent: "✓ correct" });
      item.querySelector(".head").append(mark);
    }
    for (const [place, model] of models.entries()) {
      item.append(bar(model, results[place].options[index], results[place].chosen === index));
    }
  }
}

function bar(model, { share, log_likelihood: value }, chosen) {
  const row = document.createElement("div");
  row.className = `share ${colour(names, model)}`;
  row.classList.toggle("chosen", chosen);
  row.title = `Log-likelihood ${value.toFixed(2)} nats`;
  const name = Object.assign(document.createElement("span"), { className: "name" });
  name.textContent = chosen ? `${model} ◂` : model;
  if (chosen) name.append(Object.assign(document.createElement("span"), { className: "hidden", textContent: " chooses this" }));
  const track = Object.assign(document.createElement("span"), { className: "track" });
  const fill = Object.assign(document.createElement("span"), { className: "fill" });
  fill.style.setProperty("--share", share);
  track.append(fill);
  const percent = Object.assign(document.createElement("span"), { className: "value" });
  percent.textContent = `${(100 * share).toFixed(1)} %`;
  row.append(name, track, percent);
  return row;
}

async function attempt(action) {
  element("exam-error").textContent = "";
  try {
    await action();
  } catch (error) {
    element("exam-error").textContent = error.message;
  }
}

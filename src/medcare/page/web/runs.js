// All runs of the server's folder; the server sends them again whenever one changes.

import { chart } from "./chart.js";
import { element, make, percent } from "./elements.js";

const STATES = { running: "Running", stopped: "Stopped", finished: "Finished" };
const FAMILIES = { knowledge: "Knowledge", alignment: "Alignment" };
const DAY = { dateStyle: "medium", timeStyle: "short" };

const cards = new Map(); // by the run's name, of those that are not finished
let source = null;
let shownTable = "";

export function startRuns() {
  document.addEventListener("visibilitychange", () => watchRuns(!element("runs").hidden));
  setInterval(() => cards.forEach((card) => card.showTime()), 1000);
}

/** Begin or end to listen for changes; a page that nobody looks at doesn't. */
export function watchRuns(watched) {
  if (!watched || document.hidden) {
    source?.close();
    source = null;
  } else if (!source) {
    source = new EventSource("/api/runs/events");
    source.addEventListener("message", (event) => {
      element("runs-error").textContent = "";
      show(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      const gone = source?.readyState === EventSource.CLOSED;
      element("runs-error").textContent = gone ? "The server sends no changes any more. Load the page again." : "The server can't be reached; the page tries again.";
      if (gone) source = null;
    });
  }
}

function show({ runs, ages }) {
  element("runs-none").hidden = runs.length > 0;
  const open = runs.filter((run) => run.state !== "finished");
  for (const name of cards.keys()) {
    if (!open.some((run) => run.name === name)) {
      cards.get(name).element.remove();
      cards.delete(name);
    }
  }
  for (const [place, run] of open.entries()) {
    if (!cards.has(run.name)) cards.set(run.name, new Card());
    const card = cards.get(run.name);
    card.show(run, ages[run.name]);
    const there = element("runs-open").children[place];
    if (there !== card.element) element("runs-open").insertBefore(card.element, there ?? null);
  }
  showTable(runs.filter((run) => run.state === "finished"));
}

/** The finished ones; left alone as long as they stay as they are. */
function showTable(runs) {
  const now = JSON.stringify(runs);
  if (now === shownTable) return;
  shownTable = now;
  element("runs-finished").hidden = !runs.length;
  element("runs-rows").replaceChildren(...runs.map((run) => {
    const name = make("th", { scope: "row" }, run.name);
    for (const note of run.notes) name.append(make("span", { className: "soft small", textContent: note }));
    const report = make("td", { className: "link" });
    if (run.report) report.append(make("a", { href: `/reports/${encodeURIComponent(run.name)}`, target: "_blank", rel: "noopener", textContent: "Report", label: `Open the report of ${run.name}` }));
    return make("tr", {}, name, cell("Date", day(run.begun)), cell("Base model", run.base), cell("Stage", run.title),
      ...Object.entries(FAMILIES).map(([family, title]) => cell(title, ...score(run.scores[family]))), report);
  }));
}

function cell(title, ...content) {
  const made = make("td", {}, ...content);
  made.dataset.title = title;
  return made;
}

function score(entry) {
  if (!entry) return [make("span", { className: "soft", textContent: "–" })];
  const before = entry.before === null ? "" : `, base ${percent(entry.before)}`;
  return [make("strong", { textContent: `${percent(entry.value)} %` }),
    make("span", { className: "soft small", textContent: `${percent(entry.low)} to ${percent(entry.high)}${before}` })];
}

/** A run that is not finished: what is known of it, and how its training goes. */
class Card {
  constructor() {
    this.name = make("strong", { className: "name" });
    this.state = make("span", { className: "state" });
    this.phase = make("span", { className: "soft" });
    this.facts = make("p", { className: "soft small" });
    this.notes = make("p", { className: "error small" });
    this.bar = make("progress", { max: 1 });
    this.where = make("span", {});
    this.left = make("span", { className: "soft" });
    this.progress = make("div", { className: "way" }, this.bar, make("p", {}, this.where, " ", this.left));
    this.charts = make("div", { className: "charts" });
    this.samples = make("div", { className: "samples" });
    this.element = make("details", { className: "card run" },
      make("summary", {}, this.name, this.state, this.phase), this.facts, this.notes, this.progress, this.charts, this.samples);
  }

  show(run, age) {
    const { live } = run;
    if (run.state !== this.run?.state) this.element.open = run.state === "running";
    this.run = run;
    this.told = performance.now() - 1000 * age; // when the run wrote its last line
    this.name.textContent = run.name;
    this.state.textContent = STATES[run.state];
    this.state.className = `state ${run.state}`;
    this.phase.textContent = run.phase;
    this.facts.textContent = [run.title === run.phase ? "" : run.title, run.base, `begun ${day(run.begun)}`].filter(Boolean).join(" · ");
    const damaged = live?.damaged ? [`${live.damaged} lines of its metrics can’t be read.`] : [];
    this.notes.textContent = [...run.notes, ...damaged].join(" ");
    this.notes.hidden = !this.notes.textContent;
    this.progress.hidden = this.charts.hidden = this.samples.hidden = !live;
    this.showTime();
    if (!live) return;
    if (live.steps) this.bar.value = live.step / live.steps;
    else this.bar.removeAttribute("value");
    this.bar.setAttribute("aria-label", `Progress of ${run.name}`);
    this.where.textContent = live.steps ? `Step ${live.step.toLocaleString()} of ${live.steps.toLocaleString()}` : `Step ${live.step.toLocaleString()}`;
    this.charts.replaceChildren(
      chart("Loss", [{ name: "training", points: live.loss }, { name: "validation", points: live.validation_loss }], live.steps, (value) => value.toPrecision(3)),
      chart("Learning rate", [{ name: "", points: live.learning_rate }], live.steps, (value) => value.toExponential(1)));
    this.showSamples(live.samples);
  }

  showSamples(samples) {
    const now = JSON.stringify(samples);
    if (now === this.shownSamples) return;
    this.shownSamples = now;
    this.samples.hidden = !samples.length;
    this.samples.replaceChildren(make("h3", { textContent: `What it answers after step ${samples[0]?.step.toLocaleString()}` }),
      ...samples.map(({ prompt, answer, right }) => make("dl", {},
        make("dt", { textContent: "Asked" }), make("dd", { textContent: prompt }),
        make("dt", { textContent: "Answer" }), make("dd", { className: "said", textContent: answer || "(empty answer)" }),
        make("dt", { textContent: "Expected" }), make("dd", { className: "soft", textContent: right }))));
  }

  /** How long it still takes, or since when nothing new has come. */
  showTime() {
    const { live, state } = this.run;
    const since = (performance.now() - this.told) / 1000;
    const rate = live?.tokens_per_second ? ` · ${Math.round(live.tokens_per_second).toLocaleString()} tokens/s` : "";
    if (state === "stopped") this.left.textContent = `No new line for ${duration(since)}: it was stopped, or works at something that takes long.`;
    else if (live?.seconds_left === null || !live) this.left.textContent = rate;
    else this.left.textContent = live.step >= live.steps ? "· its last step is done" : `· about ${duration(Math.max(live.seconds_left - since, 0))} left${rate}`;
    if (state === "stopped" && !live) {
      this.progress.hidden = false;
      this.bar.hidden = true;
    } else this.bar.hidden = false;
  }
}

function day(seconds) {
  return seconds ? new Date(1000 * seconds).toLocaleString([], DAY) : "";
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

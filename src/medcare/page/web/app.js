// The page: which view is shown, and the key that some servers ask for.

import { getJson, openSession } from "./api.js";
import { focusQuestion, startAsk } from "./ask.js";
import { showCompare, startCompare } from "./compare.js";
import { element, make } from "./elements.js";
import { startExam } from "./exam.js";
import { startOwnExam } from "./own-exam.js";
import { startRuns, watchRuns } from "./runs.js";

const VIEWS = ["ask", "exam", "runs", "compare"];

async function start() {
  let page;
  try {
    page = await getJson("/api/page");
  } catch (error) {
    if (error.status === 401) return askForKey();
    element("view").append(make("p", { className: "message error", textContent: error.message }));
    return undefined;
  }
  element("notice").textContent = page.notice.replace(/^For research only\. /, "");
  startAsk(page.models);
  startExam(page.models, page.runs);
  startOwnExam(page.models);
  startRuns();
  startCompare();
  window.addEventListener("hashchange", showView);
  showView();
  return undefined;
}

function showView() {
  const wanted = location.hash.slice(1);
  const view = VIEWS.includes(wanted) ? wanted : "ask";
  for (const name of VIEWS) element(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  watchRuns(view === "runs");
  if (view === "compare") showCompare();
  if (view === "ask") focusQuestion();
}

/** Close open menus on Escape, and on a click elsewhere. */
function closeMenus(event) {
  if (event.type === "keydown" && event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (event.type === "click" && event.composedPath().includes(menu)) continue;
    if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
    menu.open = false;
  }
}

function askForKey() {
  element("key").hidden = false;
  element("key-value").focus();
  element("key").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await openSession(element("key-value").value);
      element("key").hidden = true;
      await start();
    } catch (error) {
      element("key-error").textContent = error.message;
    }
  });
}

document.addEventListener("keydown", closeMenus);
document.addEventListener("click", closeMenus);
start();

"use strict";
(function () {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const one = (selector, root) => (root || document).querySelector(selector);
  const picked = (name) => { const input = one('input[name="' + name + '"]:checked'); return input ? input.value : ""; };
  const holds = (element, words) => {
    const text = element.textContent.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const words = (input) => (input ? input.value.toLowerCase().split(/\s+/).filter(Boolean) : []);

  function tasks() {
    const tables = all("table.tasks"), search = one("#task-search"), count = one("#task-count");
    if (!search) return;
    const filter = () => {
      const wanted = words(search);
      let shown = 0, total = 0;
      tables.forEach((table) => {
        let found = 0;
        for (const row of table.tBodies[0].rows) {
          row.hidden = !holds(row, wanted);
          if (!row.hidden) found += 1;
          total += 1;
        }
        if (wanted.length) table.closest("details").open = found > 0;
        shown += found;
      });
      count.textContent = shown + " of " + total + (total === 1 ? " task" : " tasks");
    };
    tables.forEach((table) => {
      const body = table.tBodies[0];
      let column = -1, up = false;
      const value = (row) => {
        const cell = row.cells[column], split = table.dataset.split;
        const text = cell.dataset[split] ?? cell.dataset.all ?? cell.textContent.trim();
        return text === "" ? null : isNaN(text) ? text.toLowerCase() : Number(text);
      };
      const sort = () => {
        if (column < 0) return;
        const order = (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : (a < b) === up ? -1 : 1);
        Array.from(body.rows).sort((a, b) => order(value(a), value(b))).forEach((row) => body.append(row));
      };
      all("thead th", table).forEach((head, index) => {
        const button = one("button", head);
        if (!button) return;
        button.addEventListener("click", () => {
          up = column === index ? !up : index === 0;
          column = index;
          all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
          head.setAttribute("aria-sort", up ? "ascending" : "descending");
          sort();
        });
      });
      all('input[name="split"]').forEach((input) => input.addEventListener("change", () => {
        table.dataset.split = picked("split");
        sort();
      }));
    });
    search.addEventListener("input", filter);
    filter();
  }

  function samples() {
    const select = one("#sample-task");
    if (!select) return;
    const show = () => all("#sample-list > *").forEach((card) => { card.hidden = card.dataset.task !== select.value; });
    select.addEventListener("change", show);
    show();
  }

  function errors() {
    const search = one("#error-search"), task = one("#error-task"), count = one("#error-count");
    if (!search) return;
    const cards = all("#error-list .case");
    const filter = () => {
      const kind = picked("cause"), wanted = words(search);
      let shown = 0;
      cards.forEach((card) => {
        card.hidden = (kind && card.dataset.cause !== kind) || (task.value && card.dataset.task !== task.value) || !holds(card, wanted);
        if (!card.hidden) shown += 1;
      });
      all("#error-list > div").forEach((group) => { group.hidden = !one(".case:not([hidden])", group); });
      count.textContent = shown + " of " + cards.length + " examples";
    };
    all('input[name="cause"]').forEach((input) => input.addEventListener("change", filter));
    task.addEventListener("change", filter);
    search.addEventListener("input", filter);
    filter();
  }

  function forest() {
    const search = one("#forest-search"), only = one("#forest-shown"), count = one("#forest-count");
    if (!search) return;
    const lines = all(".forest .line[data-verdict]");
    const filter = () => {
      const wanted = words(search);
      let shown = 0;
      lines.forEach((line) => {
        line.hidden = (only.checked && line.dataset.verdict === "no difference shown") || !holds(line, wanted);
        if (!line.hidden) shown += 1;
      });
      count.textContent = shown + " of " + lines.length + " rows";
    };
    search.addEventListener("input", filter);
    only.addEventListener("change", filter);
    filter();
  }

  addEventListener("beforeprint", () => all("details.more, details.fold, #sample-list details").forEach((entry) => { entry.open = true; }));
  tasks();
  samples();
  errors();
  forest();
})();

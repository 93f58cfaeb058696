"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Tip: the figures of a mark or a cell, at hover and at keyboard focus; Escape hides it.
const tip = document.getElementById("tip");
function showTip(target, text) {
  tip.textContent = text;
  tip.hidden = false;
  const at = target.getBoundingClientRect(), width = document.documentElement.clientWidth;
  const left = Math.min(Math.max(at.left + at.width / 2 - tip.offsetWidth / 2, 6), width - tip.offsetWidth - 6);
  const above = at.top - tip.offsetHeight - 10;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 4 ? above : at.bottom + 10) + scrollY}px`;
}
const hideTip = () => { tip.hidden = true; };
function tells(target, text) {
  for (const event of ["pointerenter", "focus"]) target.addEventListener(event, () => showTip(target, text()));
  for (const event of ["pointerleave", "blur"]) target.addEventListener(event, hideTip);
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

// Plot: marks, their arrow keys, and the switches.
for (const plot of all(".trade")) {
  for (const mark of all(".mark", plot)) {
    mark.querySelector("title").remove();
    tells(mark, () => mark.dataset.tip);
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const marks = all(".mark:not([hidden])", mark.ownerSVGElement);
      if (!step || !marks.length) return;
      event.preventDefault();
      const next = marks[(marks.indexOf(mark) + step + marks.length) % marks.length];
      for (const each of marks) each.setAttribute("tabindex", each === next ? 0 : -1);
      next.focus();
    });
  }
  const switches = all("[data-hides]", plot), axes = all("[data-axes] input", plot);
  const update = () => {
    const off = (kind) => new Set(switches.filter((s) => s.dataset.hides === kind && !s.checked).map((s) => s.value));
    const clocks = off("clock"), kinds = off("kind");
    for (const part of all("[data-clock]", plot)) {
      part.toggleAttribute("hidden", clocks.has(part.dataset.clock) || kinds.has(part.dataset.kind));
    }
    for (const svg of all(".panels svg", plot)) {
      const bands = all("[data-band]:not([hidden])", svg);  // of the last clock that is shown
      bands.slice(0, -1).forEach((band) => band.setAttribute("hidden", ""));
      all(".mark:not([hidden])", svg).forEach((mark, i) => mark.setAttribute("tabindex", i ? -1 : 0));
    }
    const axis = axes.find((each) => each.checked).value;
    for (const panel of all("[data-axis]", plot)) panel.hidden = panel.dataset.axis !== axis;
  };
  plot.addEventListener("change", update);
  plot.querySelector("[data-axes]").hidden = false;
  update();
}

// Grid: seed, outcome and score of a cell.
const OUTCOMES = { y: "success", n: "failure", p: "success by some training seeds" };
for (const table of all(".grid table")) {
  const seeds = table.dataset.seeds.split(" ");
  for (const row of all("[data-row]", table)) {
    const scores = row.dataset.scores.split(" ");
    all("use", row).forEach((cell, i) => {
      const target = cell.closest("a") || cell, kind = cell.getAttribute("href").slice(1);
      tells(target, () => `${row.dataset.row}, seed ${seeds[i]}\n${OUTCOMES[kind]}, score ${scores[i]}`
        + (target === cell ? "" : "\nclick: its film"));
      if (target !== cell) target.addEventListener("click", () => document.getElementById(target.getAttribute("href").slice(1)).focus());
    });
  }
}

// Tables: sorted by their heads; more columns on demand.
const number = (cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value));
function sortBy(table, column, descending) {
  const body = table.tBodies[0], text = (row) => row.cells[column].textContent;
  const order = (a, b) => {
    const [x, y] = [a, b].map((row) => number(row.cells[column]));
    if (x === null || y === null) return (x === null) - (y === null) || text(a).localeCompare(text(b));
    return x - y;
  };
  const rows = [...body.rows].sort((a, b) => (descending ? order(b, a) : order(a, b)));
  body.append(...rows);
}
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
  if (table.classList.contains("has-more")) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "button" });
    const toggle = (narrow) => {
      table.classList.toggle("narrow", narrow);
      button.textContent = narrow ? "More columns" : "Fewer columns";
      button.setAttribute("aria-expanded", !narrow);
    };
    button.addEventListener("click", () => toggle(!table.classList.contains("narrow")));
    toggle(true);
    table.closest(".scroll").before(button);
  }
}

// Details are open in print.
let opened = [];
addEventListener("beforeprint", () => {
  opened = all("details:not([open])");
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => { for (const each of opened) each.open = false; });

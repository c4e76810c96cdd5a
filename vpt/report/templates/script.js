"use strict";
// A click or Enter on a heading sorts its table by it, again the other way round, a third time as it was at first.
// Empty cells stay last, as do sums and means (tfoot). A column is of numbers where all its cells begin with one.
const NUMBER = /^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?(?![\d.:/\-])/i;
for (const table of document.querySelectorAll("main table")) {
  const body = table.tBodies[0], first = [...(body?.rows ?? [])];
  if (!first.length || !table.tHead) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const way = next[head.getAttribute("aria-sort") ?? "none"];
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (way !== "none") head.setAttribute("aria-sort", way);
      body.append(...(way === "none" ? first : sorted(first, column, way === "ascending")));
    });
  });
}
function sorted(rows, column, up) {
  const words = (row) => (row.cells[column].dataset.value ?? row.cells[column].innerText).trim();
  const keyed = rows.map((row) => [words(row), row]);
  const empty = (value) => value === "" || value === "-";
  const numeric = keyed.every(([value]) => empty(value) || NUMBER.test(value));
  const number = (value) => Number(NUMBER.exec(value)[0].replaceAll(",", ""));
  const order = (a, b) => (numeric ? number(a) - number(b) : a.localeCompare(b, undefined, { numeric: true }));
  keyed.sort(([a], [b]) => (empty(a) || empty(b) ? empty(a) - empty(b) : up ? order(a, b) : order(b, a)));
  return keyed.map(([, row]) => row);
}

"use strict";
document.documentElement.classList.add("live");

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const order = key(a, column).localeCompare(key(b, column), "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}

for (const box of document.querySelectorAll("input[data-hides]")) {
  const update = () => document.getElementById(box.dataset.hides).classList.toggle("hide-whole", box.checked);
  box.addEventListener("change", update);
  update();
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([data-long])")) details.open = true;
});

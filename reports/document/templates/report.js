"use strict";
const value = (row, column) => row.cells[column].dataset.v;
const text = (row, column) => row.cells[column].textContent.trim();

function compare(column, numeric, sign) {
  return (a, b) => {
    if (!numeric) return sign * text(a, column).localeCompare(text(b, column), "en", { numeric: true });
    const [x, y] = [value(a, column), value(b, column)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (x - y);
  };
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort(compare(column, header.classList.contains("n"), down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

function narrow(elements, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const element of elements) {
    const of = element.closest("details.items")?.dataset.of ?? "";
    const said = `${of} ${element.textContent}`.toLowerCase();
    element.hidden = !wanted.every((word) => said.includes(word));
    count += !element.hidden;
  }
  return count;
}

for (const input of document.querySelectorAll("input.filter")) {
  const box = input.closest(".table");
  const rows = box.querySelectorAll("tbody tr");
  input.addEventListener("input", () => {
    const count = narrow(rows, input.value);
    box.querySelector(".count").textContent = input.value ? `${count} of ${rows.length} rows` : "";
  });
}

for (const input of document.querySelectorAll("input.search")) {
  const box = input.closest(".listing");
  const items = box.querySelectorAll(".item");
  input.addEventListener("input", () => {
    const count = narrow(items, input.value);
    box.querySelector(".count").textContent = input.value ? `${count} of ${items.length} items shown here` : "";
    for (const list of box.querySelectorAll("details.items")) {
      const found = [...list.querySelectorAll(".item")].some((item) => !item.hidden);
      list.hidden = !found;
      list.open = Boolean(input.value) && found;
    }
  });
}

for (const button of document.querySelectorAll("button.uncover")) {
  button.addEventListener("click", () => {
    const covers = button.closest(".listing").querySelectorAll("details.covered");
    const open = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Cover again" : "Uncover all here";
    covers.forEach((cover) => { cover.open = open; });
  });
}

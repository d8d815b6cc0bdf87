"use strict";
// Tables that sort by any column, with the mouse and the keyboard: the heading is a button.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== (heading.classList.contains("n") ? "descending" : "ascending");
      const ascending = up !== heading.classList.contains("n");
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = row => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value === "" ? null : +cell.dataset.value;
      };
      const rows = [...body.rows].map((row, place) => ({ row, place, key: key(row) }));
      rows.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        const order = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key, undefined, { numeric: true });
        return (ascending ? order : -order) || a.place - b.place;
      });
      body.append(...rows.map(each => each.row));
    });
  });
}

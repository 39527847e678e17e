"use strict";
// Shows the rejects that contain all the words, in any column, and have the chosen stage.
(() => {
  const form = document.getElementById("search");
  if (!form) return;
  const words = document.getElementById("words");
  const stage = document.getElementById("stage");
  const found = document.getElementById("found");
  const rows = Array.from(document.querySelectorAll("tbody tr"), (row) => ({
    row,
    stage: row.cells[2].textContent,
    // Cell by cell, so that no match spans two cells; of the last one only the item.
    text: Array.from(row.cells, (cell) => (cell.querySelector("details code") ?? cell).textContent.toLowerCase()).join("\n"),
  }));

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, stage: own, text } of rows) {
      const fits = (!stage.value || stage.value === own) && wanted.every((word) => text.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    found.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  for (const kind of ["input", "change"]) form.addEventListener(kind, filter);
  form.hidden = false;
  filter();
})();

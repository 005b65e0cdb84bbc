// Keeps the figures and tables of the open page fresh. Only what has changed is touched: what is selected stays so.
import { hear } from "./live.js";

const freshness = document.querySelector("#freshness");
const doctor = document.querySelector("#asking");
let isChecking = doctor.textContent.trim() !== "";

function show({ figures, rows, asking }) {
  for (const place of document.querySelectorAll("[data-figure]")) put(place, figures[place.dataset.figure]);
  for (const body of document.querySelectorAll("[data-rows]")) fill(body, rows[body.dataset.rows]);
  for (const place of document.querySelectorAll("[data-none]")) place.hidden = rows[place.dataset.none].length > 0;
  for (const place of document.querySelectorAll("[data-some]")) place.hidden = rows[place.dataset.some].length === 0;
  put(freshness, "Refreshed every two seconds while the bot answers.");
  if (isChecking && !asking) showFindings();
  isChecking = asking;
}

/** What the doctor found, taken from the page as it is now. */
async function showFindings() {
  const there = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  const found = there?.ok && new DOMParser().parseFromString(await there.text(), "text/html").querySelector("#findings");
  if (found) document.querySelector("#findings").replaceWith(found);
  put(doctor, found ? "The doctor has finished." : "The doctor has finished: reload the page to see its findings.");
}

function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, number) => {
    const row = body.rows[number] ?? body.insertRow();
    cells.forEach((text, place) => put(row.cells[place] ?? row.appendChild(cell(place)), text));
  });
}

function cell(place) {
  const made = document.createElement(place ? "td" : "th");
  if (!place) made.scope = "row";
  return made;
}

hear("/dashboard/system/events", { state: show });

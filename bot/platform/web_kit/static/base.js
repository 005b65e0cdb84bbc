/** On every page: times in the reader's own zone. Pages work without it. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
/** Dates are written as the browser does. */
const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Write the times below an element in the reader's zone; what they said in UTC becomes their title. */
export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = shown.format(new Date(time.dateTime));
  }
}

/** A whole number with separators of thousands. */
export function wholeNumber(value) {
  return WHOLE.format(value);
}

/** Ask before what was typed in a form is lost; `counts` says of an input event whether it is saved by the form. */
export function guardUnsaved(form, counts = () => true) {
  let unsaved = Boolean(form.querySelector("[aria-invalid]"));
  form.addEventListener("input", (event) => { if (counts(event)) unsaved = true; });
  form.addEventListener("submit", () => { unsaved = false; });
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
}

/** Say something, words or elements, to whoever reads the page, where forms say what they did. Gives the line. */
export function say(words, kind = "") {
  const line = document.createElement("p");
  line.className = `said ${kind}`;
  line.append(...[words].flat());
  document.getElementById("said").replaceChildren(line);
  return line;
}

/** Open the folded part that the address names. */
function openNamed() {
  document.querySelector("details:target")?.setAttribute("open", "");
}

addEventListener("hashchange", openNamed);
openNamed();
localTimes();

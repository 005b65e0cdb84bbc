/** On every page: times in the reader's own zone, and the texts of scripts in the page's language. Pages work without
    it. */

const TEXTS = JSON.parse(document.body.dataset.texts ?? "{}");
const LANGUAGE = document.documentElement.lang;
const COMMA_LANGUAGES = ["vi", "de", "es"];
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
/** Where a page is English, dates are written as the browser does. */
export const dateLanguage = LANGUAGE === "en" ? undefined : LANGUAGE;
const shown = new Intl.DateTimeFormat(dateLanguage, { dateStyle: "medium", timeStyle: "short" });

/** Write the times below an element in the reader's zone; what they said in UTC becomes their title. */
export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = shown.format(new Date(time.dateTime));
  }
}

/** A text in the page's language, with its gaps, such as `{name}`, filled. */
export function translate(text, values = {}) {
  return (TEXTS[text] ?? text).replace(/\{(\w+)\}/g, (gap, name) => values[name] ?? gap);
}

/** A number in English as the page's language writes it; see `localisable_number` in bot/platform/localisation. */
export function localNumber(text) {
  if (!COMMA_LANGUAGES.includes(LANGUAGE)) return text;
  return text.replaceAll(",", "\u202f").replaceAll(".", ",");
}

/** A whole number with separators of thousands. */
export function wholeNumber(value) {
  return localNumber(WHOLE.format(value));
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

localTimes();

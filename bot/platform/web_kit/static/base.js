/** On every page: times in the reader's own zone. Pages work without it. */

const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const drawn = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "numeric", minute: "2-digit" });

/** Write the times below an element in the reader's zone; what they said in UTC becomes their title. Those of a drawing
    are short. */
export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = shown.format(new Date(time.dateTime));
  }
  for (const text of root.querySelectorAll("text[data-at]")) {
    text.textContent = drawn.format(new Date(text.dataset.at));
  }
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

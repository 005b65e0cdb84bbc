/** Shows a run of the playground while it is made, and lets its tokens be looked at one by one. */

import { translate } from "./base.js";
import { hear } from "./live.js";

const run = document.getElementById("run");
const end = document.getElementById("end");
const speakers = JSON.parse(run.dataset.speakers);

/** The element of a line; a duet gets one for each line that begins. */
function lineElement(number) {
  let line = document.getElementById(`line-${number}`);
  if (!line && run.dataset.kind === "duet") {
    line = document.createElement("div");
    line.className = "line";
    line.id = `line-${number}`;
    const name = document.createElement("h3");
    const words = document.createElement("p");
    words.className = "words";
    line.append(name, words);
    run.querySelector(".transcript").append(line);
  }
  return line;
}

/** The name of a line's speaker in the page's language; in a duet they take turns. */
function nameOf(line) {
  return speakers[line % speakers.length];
}

function begun({ line }) {
  const name = lineElement(line).querySelector("h3");
  if (name) name.textContent = nameOf(line);
}

function grown({ line, text }) {
  const element = lineElement(line);
  element.querySelector(".words").append(text);
  const waiting = element.querySelector(".waiting");
  if (waiting) waiting.textContent = translate("generating …");
}

/** A reply is complete: the page's own part for it takes its place, with all that is known of it. */
async function completed({ line, state }) {
  const answer = await fetch(`/dashboard/play/runs/${run.dataset.run}/lines/${line}`);
  if (!answer.ok) return;
  const part = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".line");
  lineElement(line).replaceWith(part);
  upgrade(part);
  const name = nameOf(line);
  end.textContent = translate(state === "failed" ? "{name} could not answer." : "{name} has answered.", { name });
}

function follow() {
  const parts = [];
  hear(`/dashboard/play/runs/${run.dataset.run}/events?after=${run.dataset.after}`, {
    line: begun,
    piece: grown,
    withdrawn: ({ line }) => lineElement(line).querySelector(".words").replaceChildren(),
    done: (data) => parts.push(completed(data)),
    end: async ({ why }, source) => {
      source.close();
      await Promise.all(parts);
      ended(translate("Ended: {reason}.", { reason: translate(why) }));
    },
  }, { gone });
}

function ended(...words) {
  document.getElementById("stop")?.remove();
  end.replaceChildren(...words);
  run.dataset.ended = "";
}

/** Runs live in the bot's memory: this page is now all that is left of one. */
function gone() {
  for (const waiting of run.querySelectorAll(".waiting")) waiting.remove();
  for (const button of document.querySelectorAll("main form:not(#stop) button")) button.disabled = true;
  const again = document.createElement("a");
  [again.href, again.textContent] = [run.dataset.again, translate("Start again")];
  ended(`${translate("The bot was restarted, which ended this run. Its text stays on this page.")} `, again, ".");
}

/** Stopping needs no new page. */
function stopInPlace() {
  const form = document.getElementById("stop");
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    form.querySelector("button").disabled = true;
    fetch(`/dashboard/play/runs/${run.dataset.run}/stop`, { method: "POST" });
  });
}

/** Tokens are one stop of the tab key; arrows go from one to the next, and each says what else was likely there. */
function upgrade(part) {
  for (const tokens of part.querySelectorAll(".tokens")) {
    const all = [...tokens.querySelectorAll(".token")];
    const shown = tokens.parentElement.querySelector(".alternatives");
    const rows = tokens.parentElement.querySelectorAll("tbody tr");
    const show = (token) => {
      const cells = [...rows[token.dataset.row].cells].map((cell) => cell.cloneNode(true));
      const what = document.createElement("b");
      what.append(...cells[0].childNodes);
      const list = document.createElement("span");
      list.append(...cells[2].childNodes);
      const probability = cells[1].textContent;
      const text = list.textContent
        ? translate("{token} {probability}. Likeliest: {others}", { probability })
        : `{token} ${probability}`;
      // Elements take the places of the other gaps.
      const [before, between, after] = text.split(/\{token\}|\{others\}/);
      shown.replaceChildren(before, what, between, list, after ?? "");
      shown.hidden = false;
    };
    all.forEach((token, at) => {
      token.removeAttribute("title");
      token.setAttribute("role", "button");
      token.tabIndex = at ? -1 : 0;
      token.addEventListener("mouseenter", () => show(token));
      token.addEventListener("focus", () => show(token));
      token.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, Home: -all.length, End: all.length }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
        token.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      });
    });
  }
}

upgrade(run);
if (!("ended" in run.dataset)) {
  stopInPlace();
  follow();
}

/** Shows a run of the playground while it is made. */

import { hear } from "./live.js";

const run = document.getElementById("run");
const end = document.getElementById("end");

/** The element of a line. */
function lineElement(number) {
  return document.getElementById(`line-${number}`);
}

/** A duet gets an element for each line that begins. */
function begun({ line, speaker }) {
  if (lineElement(line) || run.dataset.kind !== "duet") return;
  const element = document.createElement("div");
  [element.className, element.id] = ["line", `line-${line}`];
  const name = document.createElement("h3");
  name.textContent = speaker.name;
  const words = document.createElement("p");
  words.className = "words";
  element.append(name, words);
  run.querySelector(".transcript").append(element);
}

function grown({ line, text }) {
  const element = lineElement(line);
  element.querySelector(".words").append(text);
  const waiting = element.querySelector(".waiting");
  if (waiting) waiting.textContent = "generating …";
}

/** A reply is complete: what the page has for it now takes its place, with all that is known of it. */
async function completed({ line, speaker, state }) {
  const answer = await fetch(location.href);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const made = page.getElementById(`line-${line}`);
  if (!made) return;
  lineElement(line).replaceWith(made);
  end.textContent = `${speaker.name} ${state === "failed" ? "could not answer" : "has answered"}.`;
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
      ended(`Ended: ${why}.`);
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
  [again.href, again.textContent] = [run.dataset.again, "Start again"];
  ended("The bot was restarted, which ended this run. Its text stays on this page. ", again, ".");
}

/** Stopping needs no new page. */
function stopInPlace() {
  const form = document.getElementById("stop");
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    form.querySelector("button").disabled = true;
    fetch(form.action, { method: "POST" });
  });
}

if (!("ended" in run.dataset)) {
  stopInPlace();
  follow();
}

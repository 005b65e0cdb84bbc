/** The form of a new persona: its faults and its first line while one writes, and a sample reply. Without this it still works. */

import { wholeNumber } from "./base.js";
import { eventsOf, posted, settled } from "./personas.js";

const EXAMPLES = 3;
const FIELDS = ["name", "description", "speech", "first_mes"];
const part = (id) => document.getElementById(id);

/** What the form says, as the page asks for its check. */
function bodyOf() {
  const examples = [];
  for (let number = 1; number <= EXAMPLES; number += 1) {
    const said = part(`said-${number}`).value;
    const reply = part(`reply-${number}`).value;
    if (said.trim() || reply.trim()) examples.push({ said, reply });
  }
  const fields = Object.fromEntries(FIELDS.map((name) => [name, part(name).value]));
  return { ...fields, examples, guild: part("place").value.split("/")[0] || "0" };
}

/** Show the faults of the fields that somebody has left, or changed after leaving. */
function showFaults(wrong, left) {
  for (const name of [...FIELDS, "mes_example"]) {
    const line = part(`${name}-error`);
    const fault = left.has(name) ? wrong[name] : undefined;
    line.hidden = fault === undefined;
    line.textContent = fault ?? "";
    part(name)?.toggleAttribute("aria-invalid", fault !== undefined);
  }
}

/** Show the name and the first line; at once as they are typed, then as the bot says it will send them. */
function showFirstLine(line) {
  const name = part("name").value.trim();
  part("shown-name").textContent = name || "Their name";
  if (!part("face").querySelector("img")) part("face").textContent = [...name][0] ?? "?";
  part("shown-line").textContent = line || "Their first line appears here.";
  part("shown-line").classList.toggle("muted", !line);
}

function show({ first_line: line, prompt, tokens, context_tokens: room }) {
  showFirstLine(line || part("first_mes").value);
  part("prompt").textContent = prompt;
  part("tokens").textContent = tokens === null
    ? ""
    : `${wholeNumber(tokens)} of ${wholeNumber(room)} tokens of every prompt`;
}

function watch(form) {
  const left = new Set();
  const look = settled(async (signal) => {
    const answer = await posted("/dashboard/new-persona/check", bodyOf(), signal);
    const found = await answer.json();
    if (!answer.ok) return;
    showFaults(found.wrong, left);
    show(found);
  });
  form.addEventListener("input", ({ target }) => {
    if (["name", "first_mes"].includes(target.id)) showFirstLine(part("first_mes").value);
    look();
  });
  form.addEventListener("focusout", ({ target }) => {
    const name = /^(said|reply)-/.test(target.id) ? "mes_example" : target.id;
    if (!target.value || left.has(name)) return;
    left.add(name);
    look();
  });
  look();
}

/** Show a chosen picture; a card that is no picture changes nothing here. */
function watchPicture() {
  part("file").addEventListener("change", ({ target: { files } }) => {
    if (!files.length || !files[0].type.startsWith("image/")) return;
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      const picture = document.createElement("img");
      Object.assign(picture, { src: reader.result, alt: "", width: 44, height: 44, className: "face" });
      part("face").replaceChildren(picture);
    });
    reader.readAsDataURL(files[0]);
  });
}

function watchHello() {
  let running;

  function take({ name, data }) {
    if (name === "text") part("reply").textContent += data.text;
    if (name === "withdrawn") part("reply").textContent = "";
    if (name === "problem") part("made").textContent = `${data.detail} ${data.advice ?? ""}`;
    if (name === "reply") {
      part("reply").textContent = data.text || "(nothing came out)";
      part("made").textContent = "by the base model, untrained";
    }
  }

  async function ask() {
    running = new AbortController();
    part("answer").hidden = false;
    part("answer").setAttribute("aria-busy", "true");
    part("reply").textContent = part("made").textContent = "";
    part("hello").disabled = true;
    part("stop").hidden = false;
    try {
      const answer = await posted("/dashboard/new-persona/hello/events", bodyOf(), running.signal);
      if (!answer.ok) take({ name: "problem", data: await answer.json() });
      else for await (const event of eventsOf(answer)) take(event);
    } catch (error) {
      part("made").textContent = error.name === "AbortError" ? "Stopped." : "The bot does not answer.";
    } finally {
      part("answer").removeAttribute("aria-busy");
      part("hello").disabled = false;
      part("stop").hidden = true;
    }
  }

  part("hello").addEventListener("click", (event) => { event.preventDefault(); ask(); });
  part("stop").addEventListener("click", () => { running?.abort(); part("hello").focus(); });
}

watch(document.querySelector("form.creator"));
watchPicture();
watchHello();

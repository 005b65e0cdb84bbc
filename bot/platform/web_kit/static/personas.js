/** The card's form: tokens and faults while one writes, the voice before it is kept. Without this both still work. */

import { guardUnsaved, say, wholeNumber } from "./base.js";

const WAIT_MS = 400;

/** What the form says of the card, as the page asks for its check. */
function cardIn(form) {
  const card = {};
  for (const element of form.querySelectorAll("fieldset [name]")) {
    if (element.name === "alternate_greetings") (card[element.name] ??= []).push(element.value);
    else if (element.name === "tags") card.tags = element.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    else card[element.name] = element.value;
  }
  return card;
}

export function posted(path, body, signal) {
  return fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
}

/** Call what is given once nothing has happened for a while; a call that is overtaken is broken off. */
export function settled(call) {
  let timer, running;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      running?.abort();
      running = new AbortController();
      try {
        await call(running.signal);
      } catch (error) {
        if (error.name !== "AbortError") say("The bot does not answer: token counts may be outdated.");
      }
    }, WAIT_MS);
  };
}

/** Ask before what was written is lost, and say that it is not saved yet. */
function guard(form) {
  const note = document.getElementById("unsaved");
  guardUnsaved(form, (event) => {
    if (event.target.closest("#voice")) return false;
    note.hidden = false;
    return true;
  });
}

// ------------------------------------------------------------------------------------------ the card

/** An error or advice without the backticks in which commands stand. */
function plain(text) {
  return (text ?? "").replaceAll("`", "");
}

function showFaults(form, wrong) {
  const whole = document.getElementById("whole-error");
  whole.hidden = !("" in wrong);
  whole.textContent = plain(wrong[""]);
  for (const line of form.querySelectorAll(".error")) {
    const name = line.id.replace(/-error$/, "");
    line.hidden = !(name in wrong);
    line.textContent = plain(wrong[name]);
    for (const element of form.querySelectorAll(`fieldset [name="${name}"]`)) {
      if (name in wrong) element.setAttribute("aria-invalid", "true");
      else element.removeAttribute("aria-invalid");
    }
  }
}

function showTokens(form, tokens) {
  for (const count of form.querySelectorAll("[data-count]")) {
    count.textContent = wholeNumber(tokens.fields[count.dataset.count] ?? 0);
  }
  for (const part of form.querySelectorAll("[data-room]")) {
    const value = tokens[part.dataset.room];
    const shown = part.dataset.room === "share" ? `${Math.round(value * 100)} %` : wholeNumber(value);
    part.textContent = value === null ? "–" : shown;
  }
  form.querySelector("meter").value = tokens.tokens ?? tokens.context_tokens;
}

function watchCard(form) {
  const told = document.getElementById("counted");
  const look = settled(async (signal) => {
    const answer = await posted(`/dashboard/personas/${form.dataset.persona}/card/check`, cardIn(form), signal);
    const found = await answer.json();
    if (!answer.ok) {
      showFaults(form, { "": found.detail });
      return;
    }
    showFaults(form, found.wrong);
    showTokens(form, found.tokens);
    const faults = Object.values(found.wrong);
    told.textContent = faults.length ? faults.join(" ") : `The card takes ${wholeNumber(found.tokens.tokens)} tokens.`;
  });
  form.addEventListener("input", (event) => {
    if (!event.target.closest("fieldset")) return;
    moreRoom(event.target);
    look();
  });
}

/** There is always one empty box more than greetings. */
function moreRoom(box) {
  const several = box.closest(".several");
  if (!several || !several.lastElementChild.value) return;
  const added = several.lastElementChild.cloneNode();
  added.value = "";
  added.removeAttribute("id");
  added.setAttribute("aria-label", added.getAttribute("aria-label").replace(/\d+$/, several.children.length + 1));
  several.append(added);
}

// ------------------------------------------------------------------------------------------ the voice

/** The events of an answer's stream, one after another. */
export async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const name = /^event: ?(.*)$/m.exec(block)?.[1];
      const data = /^data: ?(.*)$/m.exec(block)?.[1];
      if (name && data) yield { name, data: JSON.parse(data) };
    }
  }
}

function hearVoice(form) {
  const part = (id) => document.getElementById(id);
  const [message, button, stop, box, reply, by, made] =
    ["message", "say", "stop", "answer", "reply", "by", "made"].map(part);
  let running;

  function begin() {
    box.hidden = false;
    box.setAttribute("aria-busy", "true");
    [reply.textContent, by.textContent, made.textContent] = ["", "", ""];
    button.disabled = true;
    stop.hidden = false;
  }

  function end() {
    box.removeAttribute("aria-busy");
    button.disabled = false;
    stop.hidden = true;
  }

  function take({ name, data }) {
    if (name === "text") reply.textContent += data.text;
    if (name === "withdrawn") reply.textContent = "";
    if (name === "problem") made.textContent = plain(`${data.detail} ${data.advice ?? ""}`);
    if (name === "reply") {
      reply.textContent = data.text || "(nothing came out)";
      by.textContent = data.version ?? "base model";
      const lore = data.lore.map((hit) => hit.source).join(", ");
      const notes = [
        lore && `lore: ${lore}`,
        data.finish === "length" && "cut off at the length limit",
        data.repeated && "ended at a repetition, which was removed",
        data.shortened && "the message was too long: its middle was left out",
      ];
      const counts = `${wholeNumber(data.new_tokens)} new tokens, ${wholeNumber(data.prompt_tokens)} in the prompt`;
      made.textContent = [counts, ...notes.filter(Boolean)].join("; ");
    }
  }

  async function ask() {
    if (!message.value.trim() || button.disabled) {
      message.focus();
      return;
    }
    running = new AbortController();
    begin();
    try {
      const body = { message: message.value, version: part("version").value, card: cardIn(form) };
      const answer = await posted(`/dashboard/personas/${form.dataset.persona}/preview/events`, body, running.signal);
      if (!answer.ok) take({ name: "problem", data: await answer.json() });
      else for await (const event of eventsOf(answer)) take(event);
    } catch (error) {
      made.textContent = error.name === "AbortError" ? "Stopped." : "The bot does not answer.";
    } finally {
      end();
    }
  }

  button.addEventListener("click", (event) => { event.preventDefault(); ask(); });
  stop.addEventListener("click", () => { running?.abort(); button.focus(); });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask();
    }
  });
}

// ------------------------------------------------------------------------------------------ a file of lore

function watchText(form) {
  const count = form.querySelector("[data-live]");
  const box = document.getElementById(count.dataset.live);
  box.addEventListener("input", settled(async (signal) => {
    const answer = await posted("/dashboard/tokens", { texts: { text: box.value } }, signal);
    if (answer.ok) count.textContent = wholeNumber((await answer.json()).tokens.text);
  }));
}

/** What was written before this was loaded counts too: a line may be slow, and a browser brings back what was typed. */
function takeUp(form) {
  for (const element of form.querySelectorAll("input, textarea")) {
    if (element.value !== element.defaultValue) element.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

// ------------------------------------------------------------------------------------------ an adapter from outside

/** Send the zip and show how far it is; the page then shows the import itself. A hub's name is sent as any form. */
function sendAdapter(form) {
  const [zip, box, words, error, cancel] =
    ["#zip", "#progress", "#progress-words", "#upload-error", "#cancel"].map((name) => form.querySelector(name));
  const bar = box.querySelector("progress");
  let request;

  function end(text) {
    request = undefined;
    box.hidden = true;
    error.textContent = text;
  }

  form.addEventListener("submit", (event) => {
    if (!zip.files.length || request) return void (request && event.preventDefault());
    event.preventDefault();
    request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.responseType = "document";
    request.setRequestHeader("Accept", "text/html");
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = loaded / total;
      const percent = Math.floor((100 * loaded) / total);
      words.textContent = `Uploading: ${percent} % of ${(total / 2 ** 20).toFixed(1)} MiB`;
    });
    request.addEventListener("load", () => {
      const { status, response } = request;
      if (status < 400) return location.assign(form.action.replace(/\/import$/, ""));
      end([...(response?.querySelectorAll(".problem p:not(.muted)") ?? [])].map((line) => line.textContent).join(" "));
    });
    request.addEventListener("error", () => end("The bot cannot be reached. Send it again."));
    request.addEventListener("abort", () => end("The upload was cancelled."));
    error.textContent = "";
    words.textContent = "Uploading…";
    box.hidden = false;
    request.send(new FormData(form));
  });
  cancel.addEventListener("click", () => request?.abort());
}

const editor = document.querySelector("form.editor");
if (editor) {
  guard(editor);
  watchCard(editor);
  hearVoice(editor);
  takeUp(editor);
}
const file = document.querySelector("form.guarded");
if (file) {
  guard(file);
  watchText(file);
  takeUp(file);
}
const adapter = document.getElementById("import");
if (adapter) sendAdapter(adapter);

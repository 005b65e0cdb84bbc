/** The data pages: files that are dropped, chosen or pasted are sent as they are; work is watched as it happens. */
import { say } from "./base.js";
import { hear } from "./live.js";

const MOST_KEPT_IN_FIELD = 200_000; // a longer paste goes straight to the server: the page would stand still over it

class Upload {
  constructor(form) {
    this.form = form;
    this.request = null;
    this.busy = false;
    this.drop = form.querySelector("#drop");
    this.file = form.querySelector("#file");
    this.name = form.querySelector("#name");
    this.text = form.querySelector("#text");
    this.progress = form.querySelector("#progress");
    this.bar = this.progress.querySelector("progress");
    this.words = form.querySelector("#progress-words");
    this.error = form.querySelector("#upload-error");
    this.listen();
  }

  listen() {
    for (const kind of ["dragenter", "dragover"]) {
      this.drop.addEventListener(kind, (event) => { event.preventDefault(); this.drop.classList.add("over"); });
    }
    for (const kind of ["dragleave", "drop"]) {
      this.drop.addEventListener(kind, () => this.drop.classList.remove("over"));
    }
    this.drop.addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer.files[0];
      if (file) this.send(file, this.name.value || file.name);
    });
    this.form.closest(".card").addEventListener("paste", (event) => this.pasted(event));
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.chosen(); });
    this.form.querySelector("#cancel").addEventListener("click", () => this.request?.abort());
    addEventListener("beforeunload", (event) => { if (this.busy) event.preventDefault(); });
  }

  pasted(event) {
    const file = event.clipboardData.files[0];
    const text = file ? "" : event.clipboardData.getData("text/plain");
    const isField = event.target.closest?.("input, textarea");
    if (!file && (!text || (isField && text.length < MOST_KEPT_IN_FIELD))) return;
    event.preventDefault();
    if (file) this.send(file, this.name.value || file.name);
    else this.send(new Blob([text]), this.name.value || "pasted.txt");
  }

  chosen() {
    const [file] = this.file.files;
    if (file) this.send(file, this.name.value || file.name);
    else if (this.text.value) this.send(new Blob([this.text.value]), this.name.value || "pasted.txt");
    else this.fail("Choose a file, or paste text.");
  }

  /** The server is asked before gigabytes are sent: whether the name can be, and is free. */
  async send(body, name) {
    if (this.busy) return void (this.error.textContent = "Wait for the other file, or cancel it.");
    this.busy = true;
    this.error.textContent = "";
    let replace = this.form.querySelector("#replace").checked;
    const path = `/dashboard/data/uploads/${encodeURIComponent(name)}`;
    const there = await fetch(path).catch(() => null);
    if (!there) return this.fail("The bot cannot be reached. Send it again.");
    if (there.ok && !replace) {
      replace = confirm(`There is a file ${name} already. Replace it?`);
      if (!replace) return this.fail(`There is a file ${name} already. Give this one another name.`);
    } else if (!there.ok && there.status !== 404) {
      return this.fail(wordsOf(problemIn(await there.text())));
    }
    if (body.size > Number(this.form.dataset.room)) return this.fail("The disk has no room for it.");
    this.begin(body, `${path}?replace=${replace}`);
  }

  begin(body, path) {
    const request = (this.request = new XMLHttpRequest());
    request.open("PUT", path);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => this.tell(event));
    for (const kind of ["load", "error"]) request.addEventListener(kind, () => this.ended());
    request.addEventListener("abort", () => { this.rest(); say("The upload was cancelled; nothing of it is stored."); });
    this.progress.hidden = false;
    this.bar.value = 0;
    this.words.textContent = "Uploading…";
    request.send(body);
  }

  tell(event) {
    if (!event.lengthComputable) return;
    this.bar.value = event.loaded / event.total;
    const percent = Math.floor((100 * event.loaded) / event.total);
    const size = (event.total / 2 ** 20).toFixed(1);
    const words = `Uploading: ${percent} % of ${size} MiB`;
    if (this.words.textContent !== words) this.words.textContent = words;
  }

  async ended() {
    const { status, responseText } = this.request;
    this.rest();
    if (status !== 201) {
      return this.fail(status ? wordsOf(problemIn(responseText)) : "It is incomplete. Send it again.");
    }
    const path = `/dashboard/data/uploads/${encodeURIComponent(JSON.parse(responseText).name)}`;
    await fetch(`${path}/inspect`, { method: "POST" });
    location.assign(path);
  }

  rest() {
    this.request = null;
    this.busy = false;
    this.progress.hidden = true;
  }

  fail(words) {
    if (!this.request) this.busy = false;
    this.error.textContent = words;
  }
}

function wordsOf(problem) {
  return [problem.detail, problem.advice].filter(Boolean).join(" ");
}

function problemIn(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: "The bot rejected it.", advice: "" };
  }
}

/** Show how far work is; once it has ended, the page shows what came of it. */
function watch(card) {
  const show = (work, source) => {
    for (const part of card.querySelectorAll("[data-shows]")) {
      const words = work[part.dataset.shows];
      if (words && part.textContent !== words) part.textContent = words;
    }
    if (!["waiting", "running"].includes(work.state)) {
      source.close();
      location.reload();
    }
  };
  hear(`/dashboard/data/works/${card.dataset.work}/events`, { work: show });
}

const form = document.getElementById("upload");
if (form) new Upload(form);
for (const card of document.querySelectorAll("[data-work][data-running='yes']")) watch(card);
for (const asks of document.querySelectorAll("form[data-confirm]")) {
  asks.addEventListener("submit", (event) => { if (!confirm(asks.dataset.confirm)) event.preventDefault(); });
}

/** The data pages: files that are dropped, chosen or pasted are sent as they are; work is watched as it happens. */
import { say } from "./base.js";

const MOST_KEPT_IN_FIELD = 200_000; // a longer paste goes straight to the server: the page would stand still over it

class Upload {
  constructor(form) {
    this.form = form;
    this.request = null;
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

  send(body, name, replace = this.form.querySelector("#replace").checked) {
    if (this.request) return this.fail("Wait for the other file, or cancel it.");
    this.error.textContent = "";
    const request = (this.request = new XMLHttpRequest());
    request.open("PUT", `/uploads/${encodeURIComponent(name)}?replace=${replace}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => this.tell(event));
    request.addEventListener("load", () => this.ended(body, name));
    request.addEventListener("error", () => this.ended(body, name));
    request.addEventListener("abort", () => { this.rest(); say("The upload was cancelled; nothing of it is kept."); });
    this.progress.hidden = false;
    this.bar.value = 0;
    this.words.textContent = "Uploading…";
    request.send(body);
  }

  tell(event) {
    if (!event.lengthComputable) return;
    this.bar.value = event.loaded / event.total;
    const percent = Math.floor((100 * event.loaded) / event.total);
    const words = `Uploading: ${percent} % of ${(event.total / 2 ** 20).toFixed(1)} MiB`;
    if (this.words.textContent !== words) this.words.textContent = words;
  }

  async ended(body, name) {
    const { status, responseText } = this.request;
    this.rest();
    if (status === 201) {
      const answer = JSON.parse(responseText);
      await fetch(`${answer.links.self}/inspect`, { method: "POST" });
      location.assign(`/dashboard/data/uploads/${encodeURIComponent(answer.name)}`);
      return;
    }
    const problem = problemIn(responseText);
    if (status === 409 && confirm(`${problem.detail} Replace it?`)) this.send(body, name, true);
    else this.fail(status ? `${problem.detail} ${problem.advice ?? ""}` : "The bot cannot be reached. Send it again.");
  }

  rest() {
    this.request = null;
    this.progress.hidden = true;
  }

  fail(words) {
    this.error.textContent = words;
  }
}

function problemIn(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: "The bot did not take it.", advice: "" };
  }
}

/** Show how far work is; once it has ended, the page shows what came of it. */
function watch(card) {
  const events = new EventSource(`/dashboard/data/works/${card.dataset.work}/events`);
  events.addEventListener("work", (event) => {
    const work = JSON.parse(event.data);
    for (const part of card.querySelectorAll("[data-shows]")) {
      const words = work[part.dataset.shows];
      if (words && part.textContent !== words) part.textContent = words;
    }
    if (!["waiting", "running"].includes(work.state)) {
      events.close();
      location.reload();
    }
  });
}

const form = document.getElementById("upload");
if (form) new Upload(form);
for (const card of document.querySelectorAll("[data-work][data-running='yes']")) watch(card);
for (const asks of document.querySelectorAll("form[data-confirm]")) {
  asks.addEventListener("submit", (event) => { if (!confirm(asks.dataset.confirm)) event.preventDefault(); });
}
for (const busy of document.querySelectorAll("form[data-busy]")) {
  busy.addEventListener("submit", () => { document.getElementById("busy").textContent = busy.dataset.busy; });
}

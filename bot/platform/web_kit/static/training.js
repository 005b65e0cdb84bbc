/** The training pages as things happen: figures at once, what the server draws every few seconds. */

import { guardUnsaved, localTimes, wholeNumber } from "./base.js";
import { hear } from "./live.js";

const DRAW_EVERY_MS = 2000;
const POLL_EVERY_MS = 5000;
const LATE_EVERY_MS = 60_000;
const ENDED = ["done", "failed", "cancelled"];
const OPEN_CARDS = ["waiting", "running"];

const run = document.getElementById("run");
const runs = document.getElementById("runs");
const PHASE_LABELS = JSON.parse(run?.dataset.phases ?? "{}");

/** Fetch this page again and put these parts of it in place of the old ones. Throws where it cannot be had now. */
async function renew(ids) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (answer.status >= 500) throw new Error(answer.statusText);
  if (!answer.ok) return; // it is gone
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ids) {
    const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
    if (old && now) exchange(old, document.adoptNode(now));
  }
}

/** Replace an element; what is opened, scrolled and focused in it stays so. */
function exchange(old, now) {
  const details = [...old.querySelectorAll("details")].map((one) => one.open);
  [...now.querySelectorAll("details")].forEach((one, n) => { if (n < details.length) one.open = details[n]; });
  const scrolled = [...old.querySelectorAll(".scroll, pre")].map((one) => [one.scrollLeft, one.scrollTop]);
  const inside = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const id = document.activeElement?.id;
  localTimes(now);
  old.replaceWith(now);
  [...now.querySelectorAll(".scroll, pre")].forEach((one, n) => scrolled[n] && one.scrollTo(...scrolled[n]));
  if (inside < 0) return;
  const again = (id && document.getElementById(id)) || now.querySelectorAll(FOCUSABLE)[inside];
  again?.focus({ preventScroll: true });
}
const FOCUSABLE = "a[href], button, input, select, summary, [tabindex]";

/** Call a function soon, and not again before some time has passed; what is asked for meanwhile is done then. One that
    throws, as while the bot starts again, is tried again. */
function calmly(work) {
  let due = 0, waits = false;
  const ask = () => {
    if (waits) return;
    waits = true;
    setTimeout(() => {
      waits = false; // what happens from here on may be missing in what is fetched
      due = Date.now() + DRAW_EVERY_MS;
      work().catch(ask);
    }, Math.max(0, due - Date.now()));
  };
  return ask;
}

function tell(words) {
  document.getElementById("news").textContent = words;
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function size(bytes) {
  const gib = bytes / 2 ** 30;
  return gib < 1 ? `${wholeNumber(bytes / 2 ** 20)} MiB` : `${gib.toFixed(1)} GiB`;
}

const FIGURES = {
  step: (at) => `${wholeNumber(at.step)} of ${wholeNumber(at.of)}`,
  epoch: (at) => at.epoch.toFixed(2),
  loss: (at) => at.loss.toFixed(4),
  lr: (at) => String(Number(at.lr.toPrecision(3))),
  tokens_per_s: (at) => wholeNumber(at.tokens_per_s),
  memory_bytes: (at) => size(at.memory_bytes),
  held_s: (at) => duration(at.held_s),
};

function showProgress(at) {
  for (const place of document.querySelectorAll("[data-of]")) place.textContent = FIGURES[place.dataset.of](at);
  const detail = `step ${wholeNumber(at.step)} of ${wholeNumber(at.of)}, loss ${at.loss.toFixed(3)}`;
  showPosition(at, "training", detail);
}

/** Say how far the whole run is, its phase, and when its version will be ready, as the server does. */
function showPosition(at, phase, detail) {
  const [bar, position, doing] = ["bar", "position", "doing"].map((id) => document.getElementById(id));
  if (!position) return;
  const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });
  position.replaceChildren(PHASE_LABELS[phase]);
  if (typeof at.count === "number") {
    position.append(`, ${wholeNumber(at.count)} of ${wholeNumber(at.of)}`);
  }
  if (typeof at.done === "number") {
    bar.value = at.done;
    position.prepend(bold(`${wholeNumber(at.done * 100)} %`), " · ");
  }
  if (typeof at.left_s === "number") {
    position.append(" · ready in about ", bold(timeLeft(at.left_s, at.most_left_s)));
  }
  const reading = document.getElementById("reading");
  if (reading) reading.hidden = phase !== "writing replies";
  doing.textContent = detail.slice(0, 1).toUpperCase() + detail.slice(1);
}

/** As personas/schemas/formatting.py. */
function timeLeft(seconds, mostSeconds) {
  const least = oneTimeLeft(seconds);
  const most = typeof mostSeconds === "number" ? oneTimeLeft(mostSeconds) : least;
  if (least === most) return least;
  const [number, unit] = least.split(" ");
  if (["s", "min"].includes(unit) && most.endsWith(` ${unit}`) && !most.includes("h")) return `${number}–${most}`;
  return `${least} – ${most}`;
}

function oneTimeLeft(seconds) {
  if (seconds < 95) return `${Math.max(10, Math.round(seconds / 10) * 10)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const tens = Math.round(minutes / 10) * 10;
  return `${Math.floor(tens / 60)} h ${tens % 60} min`;
}

function showPhase(phase) {
  const rest = document.getElementById("rest-of-card");
  if (rest && phase.share) {
    const percent = Math.round(phase.share * 100);
    rest.textContent = `The rest of its score card is being measured: ${percent} %, at most ${duration(phase.eta_s)} left.`;
  }
  showPosition(phase, phase.name, phase.detail);
}

/** Follow one run until it has ended. */
function followRun() {
  const draw = calmly(() => renew(document.querySelector("[data-of]") ? ["curves", "figures"] : EVERYTHING));
  const drawAll = calmly(() => renew(EVERYTHING));
  let place;
  hear(run.dataset.follow, {
    progress: (at) => { showProgress(at); draw(); },
    phase: showPhase,
    evaluation: draw, epoch: draw, scorecard: draw, anew: draw,
    job: (job, source) => {
      if (ENDED.includes(job.state) && !OPEN_CARDS.includes(job.card?.state)) source.close();
      const card = job.card?.state ?? "";
      const moved = (place !== undefined && job.place !== place) || card !== run.dataset.card;
      run.dataset.card = card;
      place = job.place;
      if (job.state !== run.dataset.state) {
        run.dataset.state = job.state;
        tell(`${job.name} ${job.version}: ${job.state}.`);
      } else if (!moved) return;
      renew(EVERYTHING).catch(drawAll);
    },
  }, { back: drawAll });
  // The server says so where the run is late, which no event tells.
  setInterval(() => document.getElementById("position") && renew(["position"]).catch(() => null), LATE_EVERY_MS);
}
const EVERYTHING = ["standing", "curves", "figures", "settings", "data", "log"];

/** Keep the list of runs, or the overview, as it is now. */
function followRuns() {
  const states = new Map();
  const draw = calmly(() => renew(["now-trains", "now-waits", "all-runs", "decisions", "persona-cards"]));
  hear(runs.dataset.follow, {
    job: (job) => {
      if (states.has(job.job_id) && states.get(job.job_id) !== job.state) tell(`${job.name} ${job.version}: ${job.state}.`);
      states.set(job.job_id, job.state);
      draw();
    },
  }, { back: draw });
}

/** Draw a part of a page anew every few seconds, where no events can be heard: members have none. */
function poll(id) {
  const before = document.getElementById(id).dataset.state;
  setTimeout(async () => {
    if (!document.hidden) await renew([id]).catch(() => null);
    const { state, poll: goesOn } = document.getElementById(id).dataset;
    if (state !== before) tell(state);
    if (goesOn !== undefined) poll(id);
  }, POLL_EVERY_MS);
}

/** The curves follow the slider. */
function smoothAsMoved(form) {
  const slider = form.elements.smoothing;
  let waits = null;
  form.querySelector("button").hidden = true;
  slider.addEventListener("input", () => {
    document.getElementById("smoothing-is").value = slider.value;
    clearTimeout(waits);
    waits = setTimeout(() => {
      const here = new URL(location.href);
      here.searchParams.set("smoothing", slider.value);
      history.replaceState(null, "", here);
      renew(["curves"]).catch(() => null);
    }, 150);
  });
}

/** Say at each field of a repeat whether it is other than in the run. */
function markChanges(form) {
  const said = document.getElementById("changes-now");
  document.getElementById("no-changes")?.remove();
  const mark = () => {
    const changed = [...form.querySelectorAll("[data-used]")].filter((field) => field.value.trim() !== field.dataset.used);
    for (const field of form.querySelectorAll("[data-used]")) {
      field.closest(".field").classList.toggle("changed", changed.includes(field));
    }
    said.textContent = changed.length
      ? `Changed: ${changed
          .map((one) => `${one.dataset.name} ${one.dataset.used || "–"} → ${one.value.trim() || "–"}`)
          .join("; ")}.`
      : "Nothing is changed.";
  };
  form.addEventListener("input", mark);
  mark();
}

/** Ask before a form with `data-sure` at its button is sent: once for a double click, and not again while it is sent. */
let sending = null;
document.addEventListener("click", (event) => {
  if (event.detail > 1 && event.target.closest("[data-sure]")) event.preventDefault();
});
document.addEventListener("submit", (event) => {
  const sure = event.submitter?.dataset.sure;
  if (!sure) return;
  if (sending === event.target || !confirm(sure)) return void event.preventDefault();
  sending = event.target;
});
addEventListener("pageshow", () => { sending = null; });
if (run?.dataset.follow) followRun();
if (runs) followRuns();
for (const part of document.querySelectorAll("[data-poll]")) poll(part.id);
for (const form of document.querySelectorAll("form.smoothing")) smoothAsMoved(form);
for (const form of document.querySelectorAll("form.repeat")) markChanges(form);
const replies = document.getElementById("replies");
if (replies) guardUnsaved(replies);

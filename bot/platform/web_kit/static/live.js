/** Pages that stay open: events as they come, over the bot's restarts, and a word while it does not answer. */

import { say } from "./base.js";

const AGAIN_MS = 2000;
const PATIENCE_MS = 3000; // a stream that a proxy dropped is back by then
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Hear a stream of events. Where the browser gives up, as it does while the bot starts again, the stream is asked for
    until it is there, and goes on after the last event heard. `back` is called when it goes on, `gone` where the bot
    knows of no such stream any more. */
export function hear(path, listeners, { back = () => {}, gone = () => location.reload() } = {}) {
  let last = "", patience = null, told = null;
  const here = () => (last ? path.replace(/after=\d+/, `after=${last}`) : path);

  function start() {
    const source = new EventSource(here());
    for (const [name, listener] of Object.entries(listeners)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId || last;
        listener(JSON.parse(event.data), source);
      });
    }
    source.addEventListener("open", () => { if (answers()) back(); });
    source.addEventListener("error", () => {
      lost();
      if (source.readyState === EventSource.CLOSED) setTimeout(again, AGAIN_MS);
    });
  }

  /** An EventSource does not say why it was refused. */
  async function again() {
    const answer = await fetch(here(), { method: "HEAD", headers: { Accept: "text/event-stream" } }).catch(() => null);
    if (answer?.ok) return start();
    if (answer?.status === 404) return answers(), gone();
    if (answer?.status === 401) askToSignIn();
    setTimeout(again, AGAIN_MS);
  }

  function lost() {
    if (patience) return;
    const at = clock.format(new Date());
    patience = setTimeout(() => {
      told = say(`The bot does not answer; this was its state at ${at}.`, "lost");
    }, PATIENCE_MS);
  }

  /** Take back what was said. Gives whether it had not answered. */
  function answers() {
    const wasLost = patience !== null;
    clearTimeout(patience);
    told?.remove();
    patience = told = null;
    return wasLost;
  }

  /** In a window of its own: what the page shows may be nowhere else. */
  function askToSignIn() {
    if (told?.querySelector("a")) return;
    clearTimeout(patience);
    const link = document.createElement("a");
    [link.href, link.target, link.textContent] = ["/dashboard/sign-in", "_blank", "Sign in"];
    told = say([link, " (in a new window): your session has ended."], "lost");
  }

  start();
}

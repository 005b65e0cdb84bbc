/**
 * A notice above the conversation, which the server of the bot words: with the welcome, and once what it
 * offers has begun until that is done.
 */

import { state } from "/page/api.js";
import { $, h, iconButton } from "/page/dom.js";
import { isWelcomed } from "/page/welcome.js";

const POLL_MS = 1000;
const RETRY_MS = 3000;
const STARTING = 503;
const key = () => `read:${state.guild_id}`;
let notice = {};
let timer;

/** Ask for the notice, or press its button, and ask again while it changes by itself. */
export async function loadNotice(method = "GET") {
  clearTimeout(timer);
  if (!state.notice) return;
  const headers = { Accept: "application/json" };
  const answer = await fetch(state.notice, { method, headers }).catch(() => null);
  clearTimeout(timer); // of another call meanwhile
  if (answer?.ok) notice = await answer.json();
  drawNotice();
  if (notice.is_running) timer = setTimeout(loadNotice, POLL_MS);
  else if (answer?.status === STARTING) timer = setTimeout(loadNotice, RETRY_MS);
}

/** Draw the notice, unless it was dismissed. */
export function drawNotice() {
  const box = $("notice");
  const isRead = localStorage.getItem(key()) === notice.text || (!notice.begun && isWelcomed());
  box.hidden = !notice.text || isRead;
  if (box.hidden) {
    box.replaceChildren();
    return;
  }
  const [label, href] = notice.link ?? [];
  const dismiss = () => {
    localStorage.setItem(key(), notice.text);
    drawNotice();
  };
  const press = (event) => {
    event.target.disabled = true;
    loadNotice("POST");
  };
  const link = href && h("a", { href, target: "_blank", rel: "noreferrer" }, label);
  const about = { type: "button", className: "button primary", onclick: press };
  const button = notice.button && h("button", about, notice.button);
  const close = iconButton("✕", "Dismiss the notice", { onclick: dismiss });
  box.replaceChildren(
    h("div", {}, h("p", {}, notice.text, " ", link || null), button || null),
    ...(notice.is_running ? [] : [close]),
  );
}

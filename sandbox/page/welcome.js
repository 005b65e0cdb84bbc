/** The welcome above the conversation: who one is, and what to try, until a message is sent. */

import { state } from "/page/api.js";
import { $, h, iconButton } from "/page/dom.js";
import { person, roleText, userName } from "/page/guild.js";

const key = () => `welcomed:${state.guild_id}`;

export const isWelcomed = () => localStorage.getItem(key()) === "dismissed";

/** Remove the welcome for good. */
export function dismissWelcome() {
  localStorage.setItem(key(), "dismissed");
  drawWelcome();
}

/** Draw the welcome of the guild's seed, if it has one that nobody dismissed. */
export function drawWelcome(onDismiss) {
  const box = $("welcome-screen");
  box.hidden = !state.welcome.length || isWelcomed();
  if (box.hidden) {
    box.replaceChildren();
    return;
  }
  const me = person(state.me);
  const dismiss = () => {
    dismissWelcome();
    onDismiss();
  };
  const close = iconButton("✕", "Dismiss the welcome", { onclick: dismiss });
  const [first, ...others] = state.welcome;
  const name = h("b", {}, userName(me.user));
  // Open, it would cover a third of a phone's screen.
  const open = box.querySelector("details")?.open ?? !matchMedia("(max-width: 48rem)").matches;
  box.replaceChildren(
    h(
      "details",
      { open },
      h("summary", {}, h("h2", {}, `Welcome to ${state.guild}`)),
      h("p", {}, "You are ", name, ` (${roleText(me)}). ${first}`),
      ...others.map((line) => h("p", {}, line)),
    ),
    close,
  );
}

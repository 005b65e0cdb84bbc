/** The right panel: members, or the bench with fault controls. */

import { act, state } from "/page/api.js";
import { $, h, afterRelease, iconButton } from "/page/dom.js";
import { avatar, channelName, findChannel, rolesOf, roleText, applyRoleColour, userName } from "/page/guild.js";

const WIDE = matchMedia("(min-width: 70rem)");
let shown = null, userMenu = () => {}, from = null;
// Outlives the redraw that another control's change causes between typing a number and pressing the button.
let requestsToRefuse = 3;

function entry(user, hint) {
  const button = h("button", { type: "button", className: "member", "aria-haspopup": "menu", onclick: () => userMenu(user, button) },
    avatar(user), h("span", { className: "who" }, applyRoleColour(h("b", { className: "name" }, userName(user)), user.id), h("small", {}, hint)), user.bot && h("span", { className: "app" }, "APP"));
  button.oncontextmenu = (event) => { event.preventDefault(); afterRelease(event, () => userMenu(user, button)); };
  return button;
}

function members() {
  const groups = Map.groupBy(state.people, (one) => rolesOf(one.user.id)[0]?.name ?? "Members");
  return [...groups].flatMap(([name, people]) => [h("h3", {}, `${name} — ${people.length}`), ...people.map((one) => entry(one.user, roleText(one)))])
    .concat(h("h3", {}, "App — 1"), entry(state.bot, "the bot under test"));
}

/** Change a fault control; the live event that follows redraws the bench. */
const control = (name, body = {}) => act("control", { name, ...body }).then(() => say(""), (error) => say(error.message));
const say = (words) => $("side").querySelector(".problem")?.replaceChildren(words);
const press = (words, onclick, props) => h("button", { type: "button", className: "button secondary", onclick, ...props }, words);
const part = (title, about, ...rest) => h("section", {}, h("h3", {}, title), h("p", {}, about), rest);
const tick = (label, checked, onchange) => h("label", { className: "tick" }, h("input", { type: "checkbox", checked, onchange: (event) => onchange(event.target.checked) }), label);

function ahead(seconds) {
  const minutes = Math.round(seconds / 60);
  return minutes ? ` Now ${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h ${minutes % 60} min ahead.` : "";
}

function bench() {
  const now = state.controls, late = h("output", {}, `${now.delay_s} s`);
  const count = h("input", { type: "number", min: 1, max: 100, value: requestsToRefuse, ariaLabel: "How many requests" });
  count.oninput = () => { requestsToRefuse = Number(count.value); };
  const delay = h("input", { type: "range", min: 0, max: 10, step: 0.5, value: now.delay_s, ariaLabel: "Delay in seconds" });
  delay.oninput = () => { late.textContent = `${delay.value} s`; };
  delay.onchange = () => control("delay", { seconds: Number(delay.value) });
  return [
    h("p", { className: "problem", role: "alert" }),
    part("Gateway", "A lost connection to Discord: the bot reconnects and receives what it missed.",
      h("p", { className: now.connected ? "state on" : "state" }, now.connected ? "The bot is connected." : "The bot is not connected."),
      press("Drop gateway", () => control("drop"), { disabled: !now.connected })),
    part("Delay", "A slow network: delays every response and event that the bot receives.", h("div", { className: "row" }, delay, late)),
    part("Rate limit", "Discord's 429: the bot's next requests are refused and must be repeated.",
      h("div", { className: "row" }, count, press("Refuse next", () => control("rate_limit", { count: requestsToRefuse }))),
      now.rate_limited > 0 && h("p", { className: "state" }, `${now.rate_limited} still to be refused.`)),
    part("Permissions", "A moderator revokes a permission of the bot's role.",
      now.permissions.map((one) => tick(one.label, one.granted, (granted) => control("permission", { permission: one.name, granted })))),
    part("Webhooks", "Someone deletes a webhook that the bot posts through.", now.webhooks.length ? now.webhooks.map((one) =>
      h("div", { className: "row" }, h("span", { className: "label" }, `${one.name} in ${findChannel(one.channel_id) ? channelName(findChannel(one.channel_id)) : "a channel"}`),
        press("Delete", () => control("delete_webhook", { id: one.id }), { ariaLabel: `Delete ${one.name}` }))) : h("p", { className: "state" }, "There are none.")),
    part("Message content", "The developer portal's privileged intent: when off, the bot receives messages without content.",
      tick("The bot may read messages", now.message_content, (on) => control("message_content", { on }))),
    part("Clock", `Advances the clock: tokens and rate limits expire.${ahead(now.clock_ahead_s)}`,
      h("div", { className: "row" }, [["+1 min", 60], ["+15 min", 900], ["+1 day", 86400]].map(([words, seconds]) => press(words, () => control("advance", { seconds }))))),
  ];
}

const VIEWS = { people: ["Members", members], bench: ["Bench", bench] };

/** Redraw the panel, and keep the focus on the control at the same position. */
export function drawSidePanel() {
  const side = $("side"), parts = () => [...side.querySelectorAll("button, input")], at = parts().indexOf(document.activeElement), scrolled = side.scrollTop;
  side.hidden = !shown;
  Object.keys(VIEWS).forEach((name) => $(name).setAttribute("aria-pressed", String(shown === name)));
  if (!shown) return side.replaceChildren();
  const [title, make] = VIEWS[shown];
  side.ariaLabel = title;
  side.className = shown;
  side.replaceChildren(h("header", {}, h("h2", {}, title), iconButton("✕", `Close ${title.toLowerCase()}`, { onclick: () => toggle(null) })), ...make());
  if (at >= 0) parts()[at]?.focus();
  side.scrollTop = scrolled;
}

/** The panel that a wide screen shows by default. */
const resting = () => (WIDE.matches && localStorage.getItem("members") !== "hidden" ? "people" : null);

function toggle(view) {
  const closes = view === shown || !view;
  if (!$("side").contains(document.activeElement)) from = document.activeElement;
  if (WIDE.matches && (view ?? shown) === "people") localStorage.setItem("members", closes ? "hidden" : "shown");
  shown = closes ? resting() : view;
  drawSidePanel();
  (closes ? from : $("side").querySelector("button"))?.focus();
}

export function mountSidePanel(menu) {
  userMenu = menu;
  shown = resting();
  Object.keys(VIEWS).forEach((name) => { $(name).onclick = () => toggle(name); });
  $("side").onkeydown = (event) => { if (event.key === "Escape") { event.stopPropagation(); toggle(null); } };
}

/** The right panel: members, or the bench with fault controls. */

import { act, state } from "/page/api.js";
import { $, h, afterRelease, iconButton } from "/page/dom.js";
import {
  applyRoleColour, avatar, channelName, findChannel, rolesOf, roleText, shownUser, userName,
} from "/page/guild.js";

const WIDE = matchMedia("(min-width: 70rem)");
const CLOCK_STEPS = [["+1 min", 60], ["+15 min", 900], ["+1 day", 86400]];
let shown = null;
let userMenu = () => {};
// The element that had the focus before the panel was opened.
let from = null;
// Outlives the redraw that another control's change causes between typing a number and pressing
// the button.
let requestsToRefuse = 3;

// ---------------------------------------------------------------------------------------- members

function entry(user, hint) {
  const name = applyRoleColour(h("b", { className: "name" }, userName(user)), user.id);
  const button = h(
    "button",
    {
      type: "button",
      className: "member",
      "aria-haspopup": "menu",
      onclick: () => userMenu(user, button),
    },
    avatar(user),
    h("span", { className: "who" }, name, h("small", {}, hint)),
    user.bot && h("span", { className: "app" }, "APP"),
  );
  button.oncontextmenu = (event) => {
    event.preventDefault();
    afterRelease(event, () => userMenu(user, button));
  };
  return button;
}

function members() {
  const groups = Map.groupBy(state.people, (person) => {
    const [highest] = rolesOf(person.user.id);
    return highest?.name ?? "Members";
  });
  const rows = [];
  for (const [name, people] of groups) {
    rows.push(h("h3", {}, `${name} — ${people.length}`));
    for (const person of people) rows.push(entry(person.user, roleText(person)));
  }
  const hint = showsBench() ? "the bot under test" : "bot";
  rows.push(h("h3", {}, "App — 1"), entry(shownUser(state.bot), hint));
  return rows;
}

// ------------------------------------------------------------------------------------------ bench

/** Show an error above the controls; an empty text removes it. */
function say(words) {
  $("side").querySelector(".problem")?.replaceChildren(words);
}

/** Change a fault control; the live event that follows redraws the bench. */
async function control(name, body = {}) {
  try {
    await act("control", { name, ...body });
    say("");
  } catch (error) {
    say(error.message);
  }
}

function press(words, onclick, props) {
  const common = { type: "button", className: "button secondary", onclick };
  return h("button", { ...common, ...props }, words);
}

function part(title, about, ...rest) {
  return h("section", {}, h("h3", {}, title), h("p", {}, about), rest);
}

function row(...children) {
  return h("div", { className: "row" }, children);
}

function tick(label, checked, onTick) {
  const onchange = (event) => onTick(event.target.checked);
  const box = h("input", { type: "checkbox", checked, onchange });
  return h("label", { className: "tick" }, box, label);
}

function gatewayPart(now) {
  const words = now.connected ? "The bot is connected." : "The bot is not connected.";
  return part(
    "Gateway",
    "A lost connection to Discord: the bot reconnects and receives what it missed.",
    h("p", { className: now.connected ? "state on" : "state" }, words),
    press("Drop gateway", () => control("drop"), { disabled: !now.connected }),
  );
}

function delayPart(now) {
  const late = h("output", {}, `${now.delay_s} s`);
  const delay = h("input", {
    type: "range",
    min: 0,
    max: 10,
    step: 0.5,
    value: now.delay_s,
    ariaLabel: "Delay in seconds",
  });
  delay.oninput = () => { late.textContent = `${delay.value} s`; };
  // Sent on release: while the slider moves, each redraw would replace it.
  delay.onchange = () => control("delay", { seconds: Number(delay.value) });
  const about = "A slow network: delays every response and event that the bot receives.";
  return part("Delay", about, row(delay, late));
}

function rateLimitPart(now) {
  const count = h("input", {
    type: "number",
    min: 1,
    max: 100,
    value: requestsToRefuse,
    ariaLabel: "How many requests",
  });
  count.oninput = () => { requestsToRefuse = Number(count.value); };
  const refuse = press("Refuse next", () => control("rate_limit", { count: requestsToRefuse }));
  return part(
    "Rate limit",
    "Discord's 429: the bot's next requests are refused and must be repeated.",
    row(count, refuse),
    now.rate_limited > 0
      && h("p", { className: "state" }, `${now.rate_limited} still to be refused.`),
  );
}

function permissionsPart(now) {
  const ticks = now.permissions.map(({ name, label, granted }) =>
    tick(label, granted, (on) => control("permission", { permission: name, granted: on })));
  return part("Permissions", "A moderator revokes a permission of the bot's role.", ticks);
}

function webhookRow(webhook) {
  const channel = findChannel(webhook.channel_id);
  const place = channel ? channelName(channel) : "a channel";
  const label = h("span", { className: "label" }, `${webhook.name} in ${place}`);
  const remove = () => control("delete_webhook", { id: webhook.id });
  return row(label, press("Delete", remove, { ariaLabel: `Delete ${webhook.name}` }));
}

function webhooksPart(now) {
  let rows = now.webhooks.map(webhookRow);
  if (!rows.length) rows = h("p", { className: "state" }, "There are none.");
  return part("Webhooks", "Someone deletes a webhook that the bot posts through.", rows);
}

function messageContentPart(now) {
  const onTick = (on) => control("message_content", { on });
  return part(
    "Message content",
    "The developer portal's privileged intent: when off, the bot receives messages without "
      + "content.",
    tick("The bot may read messages", now.message_content, onTick),
  );
}

function ahead(seconds) {
  const minutes = Math.round(seconds / 60);
  if (!minutes) return "";
  const days = Math.floor(minutes / 1440);
  const hours = Math.floor(minutes / 60) % 24;
  return ` Now ${days} d ${hours} h ${minutes % 60} min ahead.`;
}

function clockPart(now) {
  const about = `Advances the clock: tokens and rate limits expire.${ahead(now.clock_ahead_s)}`;
  const buttons = CLOCK_STEPS.map(([words, seconds]) =>
    press(words, () => control("advance", { seconds })));
  return part("Clock", about, row(buttons));
}

function bench() {
  const now = state.controls;
  return [
    h("p", { className: "problem", role: "alert" }),
    gatewayPart(now),
    delayPart(now),
    rateLimitPart(now),
    permissionsPart(now),
    webhooksPart(now),
    messageContentPart(now),
    clockPart(now),
  ];
}

// ------------------------------------------------------------------------------------------ panel

/** Whether the page shows what is for a bot's developers: the bench. */
export function showsBench() {
  const chosen = localStorage.getItem("developer-tools");
  return chosen ? chosen === "on" : state.developer_tools;
}

export function showBench(on) {
  localStorage.setItem("developer-tools", on ? "on" : "off");
  if (!on && shown === "bench") toggle(null);
  drawSidePanel();
}

const VIEWS = { people: ["Members", members], bench: ["Bench", bench] };

/** Redraw the panel, and keep the focus on the control at the same position. */
export function drawSidePanel() {
  const side = $("side");
  const parts = () => [...side.querySelectorAll("button, input")];
  const focused = parts().indexOf(document.activeElement);
  const scrolled = side.scrollTop;
  side.hidden = !shown;
  $("bench").hidden = !showsBench();
  for (const name of Object.keys(VIEWS)) {
    $(name).setAttribute("aria-pressed", String(shown === name));
  }
  if (!shown) {
    side.replaceChildren();
    return;
  }
  const [title, draw] = VIEWS[shown];
  side.ariaLabel = title;
  side.className = shown;
  const close = iconButton("✕", `Close ${title.toLowerCase()}`, { onclick: () => toggle(null) });
  side.replaceChildren(h("header", {}, h("h2", {}, title), close), ...draw());
  if (focused >= 0) parts()[focused]?.focus();
  side.scrollTop = scrolled;
}

/** The panel that a wide screen shows by default. */
function resting() {
  const shows = WIDE.matches && localStorage.getItem("members") !== "hidden";
  return shows ? "people" : null;
}

function toggle(view) {
  const closes = view === shown || !view;
  if (!$("side").contains(document.activeElement)) from = document.activeElement;
  if (WIDE.matches && (view ?? shown) === "people") {
    localStorage.setItem("members", closes ? "hidden" : "shown");
  }
  shown = closes ? resting() : view;
  drawSidePanel();
  const next = closes ? from : $("side").querySelector("button");
  next?.focus();
}

export function mountSidePanel(menu) {
  userMenu = menu;
  shown = resting();
  for (const name of Object.keys(VIEWS)) $(name).onclick = () => toggle(name);
  $("side").onkeydown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    toggle(null);
  };
}

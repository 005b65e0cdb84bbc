/** Entry point of the page: wires its parts, handles live events and keyboard shortcuts. */

import { makeActions } from "/page/actions.js";
import { act, listen, loadState, state } from "/page/api.js";
import { makeComposer } from "/page/composer.js";
import * as conversation from "/page/conversation.js";
import { $, h, openDialog, suggest } from "/page/dom.js";
import { openForm } from "/page/form.js";
import { EPHEMERAL } from "/page/message.js";
import { avatar, isLater, person, findChannel, channelName, roleText, userName } from "/page/guild.js";
import { drawSidePanel, mountSidePanel } from "/page/side_panel.js";
import { drawActing, drawSidebar, listedChannels, openGuild } from "/page/sidebar.js";
import { mentionCount, countMention, countMentions, isUnread, markRead } from "/page/unread.js";

const TYPING_MS = 8000, RETRY_MS = 2000, THEMES = { system: "◐", dark: "☾", light: "☀" };
const typists = new Map();
let pendingEvents = null, stopListening = () => {}, lost = false;

const composer = makeComposer($("composer"), { onRun: conversation.jumpToEnd, onAnswer, onArrowUp: () => actions.editLast(), onEscape: conversation.jumpToEnd });
const actions = makeActions({ composer, onAnswer, openChannel, actAs });

function onAnswer(answer, onTimeout = () => conversation.notice("The application did not respond.")) {
  if (answer.type === null) onTimeout();
  if (answer.modal) openForm(answer, onAnswer);
}

function onEvent(kind, data) {
  // Events that arrive while the history loads are applied after it, in order.
  if (pendingEvents) return pendingEvents.push([kind, data]);
  EVENT_HANDLERS[kind]?.(data, kind);
}

function onChannel(channel) {
  const index = state.channels.findIndex((one) => one.id === channel.id);
  if (index < 0) state.channels.push(channel);
  else state.channels[index] = channel;
  conversation.redraw();
  drawAll();
}

function onTyping({ channel_id, user }) {
  if (channel_id !== state.channel || user.id === state.me) return;
  clearTimeout(typists.get(user.id)?.timer);
  typists.set(user.id, { name: userName(user), timer: setTimeout(() => { typists.delete(user.id); drawStatus(); }, TYPING_MS) });
  drawStatus();
}

function onMessage(message, kind) {
  const channel = findChannel(message.channel_id);
  if (kind === "message" && channel && !(message.flags & EPHEMERAL)) {
    if (!channel.last_message_id || isLater(message.id, channel.last_message_id)) channel.last_message_id = message.id;
    if (message.author.id === state.me) markRead(channel.id, message.id);
    else if (message.channel_id !== state.channel) countMention(message);
  }
  if (message.channel_id === state.channel) {
    // The bot types under its own name and then posts as a persona.
    if (kind === "message") typists.delete(message.author.bot ? state.bot.id : message.author.id);
    conversation.show(message);
    drawStatus();
  }
  if (kind === "message") drawPlaces();
}

/** Handlers of live events, by kind. */
const EVENT_HANDLERS = {
  message: onMessage, edit: onMessage, typing: onTyping, channel: onChannel,
  delete: (message) => { if (message.channel_id === state.channel) conversation.remove(message.id); },
  commands: () => loadState().then(drawAll),
  controls: (controls) => { state.controls = controls; drawSidePanel(); },
};

function drawStatus() {
  const names = [...typists.values()].map((one) => one.name), status = $("status");
  status.classList.toggle("lost", lost);
  status.replaceChildren(...(lost ? ["Connection lost. Reconnecting…"] : names.length
    ? [h("i", { className: "dots" }), ` ${names.length > 3 ? "Several people are" : `${names.join(", ")} ${names.length > 1 ? "are" : "is"}`} typing`] : []));
}

const drawPlaces = () => drawSidebar({ open: openChannel, openDirect: actions.openDirect });

function drawAll() {
  drawPlaces();
  drawActing(actAs);
  drawSidePanel();
  composer.reset();
}

const hashOf = (channel) => (channel.type === 0 ? channel.name : channel.id);
const channelOfHash = () => { const words = decodeURIComponent(location.hash.slice(1)); return state.channels.find((one) => hashOf(one) === words); };

/** Show or hide the sidebar, which on a phone covers the conversation. */
function toggleSidebar(over) {
  document.body.classList.toggle("sided", over);
  $("menu").ariaExpanded = String(over);
}

/** Open a channel. `created` is a new channel whose event has not arrived yet. */
async function openChannel(id, created) {
  toggleSidebar(false);
  if (created && !findChannel(id)) state.channels.push(created);
  state.channel = id;
  location.hash = hashOf(findChannel());
  typists.clear();
  composer.reset();
  await load();
  if (matchMedia("(hover: hover)").matches && !document.querySelector("dialog:modal, .menu")) composer.focus();
}

/** Load the open channel; events that arrive meanwhile are handled afterwards. */
async function load(again = false) {
  pendingEvents ??= [];
  const turn = (load.turn = (load.turn ?? 0) + 1);
  await conversation.open({ again }).catch((error) => composer.refuse(error.message));
  if (turn !== load.turn) return;
  const missed = pendingEvents;
  pendingEvents = null;
  missed.forEach((event) => onEvent(...event));
  drawStatus();
  drawPlaces();
}

/** Switch to another member's view of the guild. */
async function actAs(id) {
  toggleSidebar(false);
  state.me = id;
  stopListening();
  pendingEvents = [];
  await start();
  composer.focus();
}

async function start() {
  try {
    await loadState();
  } catch (error) {
    composer.refuse(error.message);
    setTimeout(start, RETRY_MS);
    return;
  }
  const stayed = findChannel() ?? channelOfHash() ?? state.channels[0];
  state.channel = stayed.id;
  location.hash = hashOf(stayed);
  drawAll();
  let again = false;
  pendingEvents = [];
  stopListening = listen({
    onEvent,
    onLost() {
      // Still lost: it may return with a new guild, in which the former member does not exist.
      if (lost) loadState().catch(() => {});
      lost = true;
      drawStatus();
    },
    async onOpen() {
      lost = false;
      pendingEvents = [];
      if (again) { await loadState().catch(() => {}); if (!findChannel()) state.channel = state.channels[0].id; }
      await load(again);
      again = true;
      await countMentions().catch(() => {});
      drawAll();
    },
  });
}

/** Open the quick switcher, which finds channels and members by a few letters. */
function openQuickSwitcher() {
  if (document.querySelector("dialog:modal")) return;
  const input = h("input", { ariaLabel: "Where to?", placeholder: "Where to? A channel, a thread, a person", autocomplete: "off" });
  const ways = [...listedChannels().map((one) => ({ title: channelName(one), hint: [mentionCount(one.id) && `${mentionCount(one.id)} mentions`, isUnread(one) && "unread", one.topic].filter(Boolean).join(" · "), run: () => openChannel(one.id) })),
    { title: `Message ${userName(state.bot)}`, face: avatar(state.bot, "avatar tiny"), run: actions.openDirect },
    ...state.guilds.filter((one) => one.id !== state.guild_id).map((one) => ({ title: one.name, hint: "guild", run: () => openGuild(one.id) })),
    ...state.people.map((one) => ({ title: userName(one.user), face: avatar(one.user, "avatar tiny"), hint: `act as · ${roleText(one)}`, run: () => actAs(one.user.id) }))];
  const dialog = openDialog({ title: "Go to", body: [input], submit: "Go", onSubmit: () => {} });
  const { list, show } = suggest(input, (way) => { dialog.close(); way.run(); });
  const offer = () => show(ways.filter((way) => way.title.toLowerCase().includes(input.value.trim().toLowerCase())).slice(0, 12));
  input.after(list);
  dialog.classList.add("quick");
  input.oninput = offer;
  input.focus();
  offer();
}

function step(by) {
  const all = listedChannels(), index = all.findIndex((one) => one.id === state.channel);
  openChannel(all.at((index + by) % all.length).id);
}

document.addEventListener("keydown", (event) => {
  const way = event.altKey && { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (way) step(way);
  else if ((event.ctrlKey || event.metaKey) && event.key === "k") openQuickSwitcher();
  else if (event.key === "Escape" && document.body.classList.contains("sided")) { toggleSidebar(false); $("menu").focus(); }
  else if (event.key === "Escape" && !document.querySelector("dialog:modal, .menu:popover-open")) { conversation.jumpToEnd(); composer.focus(); }
  else return;
  event.preventDefault();
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  $("theme").firstChild.textContent = THEMES[theme];
  $("theme").ariaLabel = $("theme").title = `Colours: ${theme}`;
}

$("theme").onclick = () => { const names = Object.keys(THEMES); setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]); };
$("menu").onclick = () => {
  toggleSidebar(true);
  $("channels").querySelector("[aria-current]")?.focus();
};
$("scrim").onclick = () => toggleSidebar(false);
$("topic").onclick = () => { $("topic").ariaExpanded = String($("topic").classList.toggle("whole")); };
addEventListener("hashchange", () => { const there = channelOfHash(); if (there && there.id !== state.channel) openChannel(there.id); });
setTheme(localStorage.getItem("theme") ?? "system");
conversation.watch(drawPlaces);
mountSidePanel(actions.userMenu);
start();

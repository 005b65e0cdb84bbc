/** The page: puts its parts together, follows what happens, and turns keys into ways. */

import { makeActions } from "/page/actions.js";
import { act, listen, loadState, state } from "/page/api.js";
import { makeComposer } from "/page/composer.js";
import * as conversation from "/page/conversation.js";
import { $, h, openDialog, suggest } from "/page/dom.js";
import { openForm } from "/page/form.js";
import { EPHEMERAL } from "/page/message.js";
import { avatar, later, person, place, placeName, standing, userName } from "/page/names.js";
import { drawSide, watchSide } from "/page/side.js";
import { drawActing, drawSidebar, places } from "/page/sidebar.js";
import { callsIn, countCall, countCalls, isUnread, markRead } from "/page/unread.js";

const TYPING_MS = 8000, RETRY_MS = 2000, THEMES = { system: "◐", dark: "☾", light: "☀" };
const typists = new Map();
let waiting = null, stopListening = () => {}, lost = false;

const composer = makeComposer($("composer"), { onRun: conversation.toPresent, onAnswer, onEmptyUp: () => actions.editLast(), onEscape: conversation.toPresent });
const actions = makeActions({ composer, onAnswer, openChannel, actAs });

function onAnswer(answer, onSilence = () => conversation.notice("The application did not respond.")) {
  if (answer.type === null) onSilence();
  if (answer.modal) openForm(answer, onAnswer);
}

function onEvent(kind, data) {
  // Events during the request are older or newer than the history; applied in order, both are right.
  if (waiting) return waiting.push([kind, data]);
  TOLD[kind]?.(data, kind);
}

function onChannel(channel) {
  const index = state.channels.findIndex((one) => one.id === channel.id);
  if (index < 0) state.channels.push(channel);
  else state.channels[index] = channel;
  conversation.redraw();
  drawAround();
}

function onTyping({ channel_id, user }) {
  if (channel_id !== state.channel || user.id === state.me) return;
  clearTimeout(typists.get(user.id)?.timer);
  typists.set(user.id, { name: userName(user), timer: setTimeout(() => { typists.delete(user.id); sayStatus(); }, TYPING_MS) });
  sayStatus();
}

function onMessage(message, kind) {
  const channel = place(message.channel_id);
  if (kind === "message" && channel && !(message.flags & EPHEMERAL)) {
    if (!channel.last_message_id || later(message.id, channel.last_message_id)) channel.last_message_id = message.id;
    if (message.author.id === state.me) markRead(channel.id, message.id);
    else if (message.channel_id !== state.channel) countCall(message);
  }
  if (message.channel_id === state.channel) {
    // The bot types under its own name and then posts as a persona.
    if (kind === "message") typists.delete(message.author.bot ? state.bot.id : message.author.id);
    conversation.show(message);
    sayStatus();
  }
  if (kind === "message") drawPlaces();
}

/** What is done about each kind of event. */
const TOLD = {
  message: onMessage, edit: onMessage, typing: onTyping, channel: onChannel,
  delete: (message) => { if (message.channel_id === state.channel) conversation.remove(message.id); },
  commands: () => loadState().then(drawAround),
  controls: (controls) => { state.controls = controls; drawSide(); },
};

function sayStatus() {
  const names = [...typists.values()].map((one) => one.name), status = $("status");
  status.classList.toggle("lost", lost);
  status.replaceChildren(...(lost ? ["Connection lost. Reconnecting…"] : names.length
    ? [h("i", { className: "dots" }), ` ${names.length > 3 ? "Several people are" : `${names.join(", ")} ${names.length > 1 ? "are" : "is"}`} typing`] : []));
}

const drawPlaces = () => drawSidebar({ open: openChannel, openDirect: actions.openDirect });

function drawAround() {
  drawPlaces();
  drawActing(actAs);
  drawSide();
  composer.reset();
}

const addressOf = (channel) => (channel.type === 0 ? channel.name : channel.id);
const addressed = () => { const words = decodeURIComponent(location.hash.slice(1)); return state.channels.find((one) => addressOf(one) === words); };

/** On a phone the sidebar slides over the conversation. */
function slide(over) {
  document.body.classList.toggle("sided", over);
  $("menu").ariaExpanded = String(over);
}

/** Open a channel, `made` if the page has not been told of it yet. */
async function openChannel(id, made) {
  slide(false);
  if (made && !place(id)) state.channels.push(made);
  state.channel = id;
  location.hash = addressOf(place());
  typists.clear();
  composer.reset();
  await load();
  if (matchMedia("(hover: hover)").matches && !document.querySelector("dialog:modal, .menu")) composer.focus();
}

/** Load the open channel; what happens meanwhile is told afterwards. */
async function load(again = false) {
  waiting ??= [];
  const turn = (load.turn = (load.turn ?? 0) + 1);
  await conversation.open({ again }).catch((error) => composer.refuse(error.message));
  if (turn !== load.turn) return;
  const missed = waiting;
  waiting = null;
  missed.forEach((event) => onEvent(...event));
  sayStatus();
  drawPlaces();
}

/** Look at the guild through a member's eyes from now on. */
async function actAs(id) {
  slide(false);
  state.me = id;
  stopListening();
  waiting = [];
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
  const stayed = place() ?? addressed() ?? state.channels[0];
  state.channel = stayed.id;
  location.hash = addressOf(stayed);
  drawAround();
  let again = false;
  waiting = [];
  stopListening = listen({
    onEvent,
    onLost() {
      // Still lost: it may return with a new guild, in which the former member does not exist.
      if (lost) loadState().catch(() => {});
      lost = true;
      sayStatus();
    },
    async onOpen() {
      lost = false;
      waiting = [];
      if (again) { await loadState().catch(() => {}); if (!place()) state.channel = state.channels[0].id; }
      await load(again);
      again = true;
      await countCalls().catch(() => {});
      drawAround();
    },
  });
}

/** Go anywhere by a few letters. */
function quickly() {
  if (document.querySelector("dialog:modal")) return;
  const input = h("input", { ariaLabel: "Where to?", placeholder: "Where to? A channel, a thread, a person", autocomplete: "off" });
  const ways = [...places().map((one) => ({ title: placeName(one), hint: [callsIn(one.id) && `${callsIn(one.id)} mentions`, isUnread(one) && "unread", one.topic].filter(Boolean).join(" · "), run: () => openChannel(one.id) })),
    { title: `Message ${userName(state.bot)}`, face: avatar(state.bot, "avatar tiny"), run: actions.openDirect },
    ...state.people.map((one) => ({ title: userName(one.user), face: avatar(one.user, "avatar tiny"), hint: `act as · ${standing(one)}`, run: () => actAs(one.user.id) }))];
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
  const all = places(), index = all.findIndex((one) => one.id === state.channel);
  openChannel(all.at((index + by) % all.length).id);
}

document.addEventListener("keydown", (event) => {
  const way = event.altKey && { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (way) step(way);
  else if ((event.ctrlKey || event.metaKey) && event.key === "k") quickly();
  else if (event.key === "Escape" && document.body.classList.contains("sided")) { slide(false); $("menu").focus(); }
  else if (event.key === "Escape" && !document.querySelector("dialog:modal, .menu:popover-open")) { conversation.toPresent(); composer.focus(); }
  else return;
  event.preventDefault();
});

function wear(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  $("theme").firstChild.textContent = THEMES[theme];
  $("theme").ariaLabel = $("theme").title = `Colours: ${theme}`;
}

$("theme").onclick = () => { const names = Object.keys(THEMES); wear(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]); };
$("menu").onclick = () => {
  slide(true);
  $("channels").querySelector("[aria-current]")?.focus();
};
$("scrim").onclick = () => slide(false);
$("topic").onclick = () => { $("topic").ariaExpanded = String($("topic").classList.toggle("whole")); };
addEventListener("hashchange", () => { const there = addressed(); if (there && there.id !== state.channel) openChannel(there.id); });
wear(localStorage.getItem("theme") ?? "system");
conversation.watch(drawPlaces);
watchSide(actions.userMenu);
start();

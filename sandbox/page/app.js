/** Entry point of the page: wires its parts, handles live events and keyboard shortcuts. */

import { makeActions } from "/page/actions.js";
import { act, listen, loadState, state } from "/page/api.js";
import { makeComposer } from "/page/composer.js";
import * as conversation from "/page/conversation.js";
import { $, h, openDialog, suggest } from "/page/dom.js";
import { openForm } from "/page/form.js";
import { EPHEMERAL } from "/page/message.js";
import {
  avatar, channelName, findChannel, FORUM, isLater, roleText, shownUser, TEXT, userName,
} from "/page/guild.js";
import { drawNotice, loadNotice } from "/page/notice.js";
import { drawSidePanel, mountSidePanel } from "/page/side_panel.js";
import { drawActing, drawSidebar, listedChannels, openGuild } from "/page/sidebar.js";
import { mentionCount, countMention, countMentions, isUnread, markRead } from "/page/unread.js";
import { dismissWelcome, drawWelcome } from "/page/welcome.js";

const TYPING_MS = 8000;
const RETRY_MS = 2000;
const THEMES = { system: "◐", dark: "☾", light: "☀" };
const MAX_WAYS = 12;
const typists = new Map();
let pendingEvents = null;
let stopListening = () => {};
let lost = false;

const composer = makeComposer($("composer"), {
  onRun: conversation.jumpToEnd,
  onAnswer,
  onArrowUp: () => actions.editLast(),
  onEscape: conversation.jumpToEnd,
});
const actions = makeActions({ composer, onAnswer, openChannel, actAs });

const sayTimeout = () => conversation.notice("The application did not respond.");

function onAnswer(answer, onTimeout = sayTimeout) {
  if (answer.type === null) onTimeout();
  if (answer.modal) openForm(answer, onAnswer);
}

function onEvent(kind, data) {
  // Events that arrive while the history loads are applied after it, in order.
  if (pendingEvents) pendingEvents.push([kind, data]);
  else EVENT_HANDLERS[kind]?.(data, kind);
}

function onChannel(channel) {
  const index = state.channels.findIndex((one) => one.id === channel.id);
  if (index < 0) state.channels.push(channel);
  else state.channels[index] = channel;
  conversation.redraw();
  drawAll();
}

/** The bot has another name or picture in the guild: also its earlier messages show it. */
function onMember(member) {
  state.bot_member = member;
  conversation.redraw();
  drawAll();
}

function onTyping({ channel_id, user }) {
  if (channel_id !== state.channel || user.id === state.me) return;
  clearTimeout(typists.get(user.id)?.timer);
  const stop = () => {
    typists.delete(user.id);
    drawStatus();
  };
  typists.set(user.id, { name: userName(shownUser(user)), timer: setTimeout(stop, TYPING_MS) });
  drawStatus();
}

function onMessage(message, kind) {
  const channel = findChannel(message.channel_id);
  if (kind === "message" && channel && !(message.flags & EPHEMERAL)) {
    const isLast = !channel.last_message_id || isLater(message.id, channel.last_message_id);
    if (isLast) channel.last_message_id = message.id;
    if (message.author.id === state.me) {
      markRead(channel.id, message.id);
      dismissWelcome();
      drawNotice();
    } else if (message.channel_id !== state.channel) countMention(message);
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
  message: onMessage,
  edit: onMessage,
  typing: onTyping,
  channel: onChannel,
  delete: onDelete,
  commands: () => loadState().then(drawAll),
  controls: onControls,
  member: onMember,
};

function onDelete(message) {
  if (message.channel_id === state.channel) conversation.remove(message.id);
}

function onControls(controls) {
  state.controls = controls;
  drawSidePanel();
}

/** Who types, as Discord's client says it. */
function typingText(names) {
  if (names.length > 3) return " Several people are typing";
  return ` ${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing`;
}

function drawStatus() {
  const names = [...typists.values()].map((typist) => typist.name);
  const status = $("status");
  status.classList.toggle("lost", lost);
  if (lost) status.replaceChildren("Connection lost. Reconnecting…");
  else if (names.length) status.replaceChildren(h("i", { className: "dots" }), typingText(names));
  else status.replaceChildren();
}

const drawPlaces = () => drawSidebar({ open: openChannel, openDirect: actions.openDirect });

function drawAll() {
  drawPlaces();
  drawActing(actAs);
  drawSidePanel();
  drawWelcome(() => {
    drawNotice();
    composer.focus();
  });
  drawNotice();
  composer.reset();
}

/** A channel's part of the address: a text channel's name, any other's id. */
function hashOf(channel) {
  return channel.type === TEXT ? channel.name : channel.id;
}

function channelOfHash() {
  const words = decodeURIComponent(location.hash.slice(1));
  return listedChannels().find((channel) => hashOf(channel) === words);
}

/** Show or hide the sidebar, which on a phone covers the conversation. */
function toggleSidebar(over) {
  document.body.classList.toggle("sided", over);
  $("menu").ariaExpanded = String(over);
}

/** Open a channel. `created` is a new channel whose event has not arrived yet. */
async function openChannel(id, created) {
  toggleSidebar(false);
  const forum = findChannel(id);
  if (forum?.type === FORUM) {
    actions.createPost(forum);
    return;
  }
  if (created && !findChannel(id)) state.channels.push(created);
  state.channel = id;
  location.hash = hashOf(findChannel());
  typists.clear();
  composer.reset();
  await load();
  // On a phone, the focus would open a keyboard.
  const hasPointer = matchMedia("(hover: hover)").matches;
  if (hasPointer && !document.querySelector("dialog:modal, .menu")) composer.focus();
}

/** Load the open channel; events that arrive meanwhile are handled afterwards. */
async function load(again = false) {
  pendingEvents ??= [];
  load.turn = (load.turn ?? 0) + 1;
  const { turn } = load;
  await conversation.open({ again }).catch((error) => composer.refuse(error.message));
  if (turn !== load.turn) return; // a later load is under way
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
  const stayed = findChannel() ?? channelOfHash() ?? listedChannels()[0];
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
      // Also the first time: what happened between the first answer and this moment came as no event.
      await loadState().catch(() => {});
      if (!findChannel()) state.channel = listedChannels()[0].id;
      await load(again);
      again = true;
      loadNotice();
      await countMentions().catch(() => {});
      drawAll();
    },
  });
}

function channelWay(channel) {
  const mentions = mentionCount(channel.id);
  const hints = [];
  if (mentions) hints.push(`${mentions} mentions`);
  if (isUnread(channel)) hints.push("unread");
  if (channel.topic) hints.push(channel.topic);
  const run = () => openChannel(channel.id);
  return { title: channelName(channel), hint: hints.join(" · "), run };
}

function memberWay(member) {
  return {
    title: userName(member.user),
    face: avatar(member.user, "avatar tiny"),
    hint: `act as · ${roleText(member)}`,
    run: () => actAs(member.user.id),
  };
}

/** Places to go to: channels, the bot's direct messages, other guilds, and members to act as. */
function quickWays() {
  const ways = listedChannels().map(channelWay);
  const face = avatar(state.bot, "avatar tiny");
  ways.push({ title: `Message ${userName(state.bot)}`, face, run: actions.openDirect });
  for (const guild of state.guilds) {
    if (guild.id === state.guild_id) continue;
    ways.push({ title: guild.name, hint: "guild", run: () => openGuild(guild.id) });
  }
  ways.push(...state.people.map(memberWay));
  return ways;
}

/** Open the quick switcher, which finds channels and members by a few letters. */
function openQuickSwitcher() {
  if (document.querySelector("dialog:modal")) return;
  const input = h("input", {
    ariaLabel: "Where to?",
    placeholder: "Where to? A channel, a thread, a person",
    autocomplete: "off",
  });
  const ways = quickWays();
  const dialog = openDialog({ title: "Go to", body: [input], submit: "Go", onSubmit: () => {} });
  const { list, show } = suggest(input, (way) => {
    dialog.close();
    way.run();
  });
  const offer = () => {
    const typed = input.value.trim().toLowerCase();
    const matching = ways.filter((way) => way.title.toLowerCase().includes(typed));
    show(matching.slice(0, MAX_WAYS));
  };
  input.after(list);
  dialog.classList.add("quick");
  input.oninput = offer;
  input.focus();
  offer();
}

/** Open the channel that is `by` places below in the sidebar. */
function step(by) {
  const all = listedChannels();
  const index = all.findIndex((channel) => channel.id === state.channel);
  openChannel(all.at((index + by) % all.length).id);
}

/** Handle Escape; returns false where it belongs to an open dialog or menu. */
function onEscape() {
  if (document.body.classList.contains("sided")) {
    toggleSidebar(false);
    $("menu").focus();
    return true;
  }
  if (document.querySelector("dialog:modal, .menu:popover-open")) return false;
  conversation.jumpToEnd();
  composer.focus();
  return true;
}

document.addEventListener("keydown", (event) => {
  const by = event.altKey && { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (by) step(by);
  else if ((event.ctrlKey || event.metaKey) && event.key === "k") openQuickSwitcher();
  else if (event.key !== "Escape" || !onEscape()) return;
  event.preventDefault();
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  $("theme").firstChild.textContent = THEMES[theme];
  $("theme").title = `Colours: ${theme}`;
  $("theme").ariaLabel = $("theme").title;
}

$("theme").onclick = () => {
  const names = Object.keys(THEMES);
  const index = names.indexOf(document.documentElement.dataset.theme);
  setTheme(names[(index + 1) % names.length]);
};
$("menu").onclick = () => {
  toggleSidebar(true);
  $("channels").querySelector("[aria-current]")?.focus();
};
$("scrim").onclick = () => toggleSidebar(false);
$("topic").onclick = () => {
  const isWhole = $("topic").classList.toggle("whole");
  $("topic").ariaExpanded = String(isWhole);
};
addEventListener("hashchange", () => {
  const there = channelOfHash();
  if (there && there.id !== state.channel) openChannel(there.id);
});
setTheme(localStorage.getItem("theme") ?? "system");
conversation.watch(drawPlaces);
mountSidePanel(actions.userMenu);
start();

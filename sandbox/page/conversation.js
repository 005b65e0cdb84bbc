/**
 * The open channel's messages. `log` holds all loaded messages, oldest first; the list shows a
 * window of them (`drawn`, as indexes into `log`), so that scrolling through thousands stays
 * smooth.
 */

import { loadMessages, state } from "/page/api.js";
import { $, h } from "/page/dom.js";
import { draw, EPHEMERAL, regroup, USER_MESSAGE_TYPES } from "/page/message.js";
import {
  idAt, isLater, now, findChannel, channelName, shownUser, userName,
} from "/page/guild.js";
import { lastRead, markRead } from "/page/unread.js";

const PAGE = 100;
const STEP = 50;
const WINDOW = 400;
const NEAR_PX = 60;
const AHEAD_PX = 1500;
const SPEAK_DELAY_MS = 1500;
const RETRY_DELAY_MS = 2000;
const FLASH_MS = 2000;
const list = $("messages");
const scroller = $("scroller");
const latest = $("latest");
const beginning = $("beginning");
const items = new Map(); // list items by message
const dismissed = new Set();
let log = [];
let drawn = { from: 0, to: 0 };
let complete = false; // the first message is loaded
let loading = false;
let stuck = true; // the end is shown, and followed
let anchor = null; // the message being read, while the end is not
let lastTop = 0; // the scroll position when it was last looked at
let newAfter = null; // the last message that had been read when the channel was opened
let missed = 0;
let onRead = () => {};

const find = (id) => log.findIndex((message) => message.id === id);
const isAtEnd = () => drawn.to === log.length;

function distanceToEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
}

const isNearEnd = () => distanceToEnd() < NEAR_PX;

/**
 * Whether the reader has scrolled up since it was last looked at. Growth never moves the view up,
 * and content that shrinks moves it to the new end at most.
 */
const hasScrolledUp = () => scroller.scrollTop < lastTop && !isNearEnd();

/** Update the list to show the window. */
function render() {
  const wanted = log.slice(drawn.from, drawn.to).map((message) => {
    if (!items.has(message.id)) items.set(message.id, draw(message));
    return items.get(message.id);
  });
  const kept = new Set(wanted);
  for (const item of [...list.children]) {
    if (kept.has(item)) continue;
    item.remove();
    items.delete(item.message.id);
  }
  let next = list.firstElementChild;
  wanted.forEach((item, index) => {
    if (item === next) next = next.nextElementSibling;
    else list.insertBefore(item, next);
    regroup(item, log[drawn.from + index - 1], newAfter);
  });
  beginning.hidden = !(complete && drawn.from === 0);
  $("loading").hidden = complete || drawn.from > 0;
  settle();
}

/**
 * Keep the scroll position at the end, or at the message being read, when content above changes.
 */
function settle() {
  if (stuck && hasScrolledUp()) {
    // The scroll event is still to come.
    stuck = false;
    hold();
  }
  if (stuck && isAtEnd()) scroller.scrollTop = scroller.scrollHeight;
  else if (anchor?.item.isConnected) {
    // Its movement within the list, regardless of scrolling since.
    const moved = depth(anchor.item) - anchor.depth;
    anchor.depth += moved;
    scroller.scrollTop += moved;
  }
  lastTop = scroller.scrollTop;
  latest.hidden = stuck && isAtEnd();
  let label = "Jump to present ↓";
  if (missed) label = `${missed} new message${missed > 1 ? "s" : ""} ↓`;
  latest.textContent = label;
  if (stuck && isAtEnd()) read();
}

function read() {
  missed = 0;
  if (document.visibilityState !== "visible") return;
  const newest = log.findLast((message) => !(message.flags & EPHEMERAL));
  const id = newest?.id ?? findChannel()?.last_message_id;
  if (markRead(state.channel, id)) onRead();
}

function onScroll() {
  stuck = (isNearEnd() || (stuck && !hasScrolledUp())) && isAtEnd();
  lastTop = scroller.scrollTop;
  hold();
  latest.hidden = stuck;
  if (stuck) read();
  extend();
}

// Its lower edge: a message inserted before it can remove its avatar and name.
const depth = (item) => item.getBoundingClientRect().bottom + scroller.scrollTop;

/** Remember the message being read and its position. */
function hold() {
  const top = scroller.getBoundingClientRect().top;
  anchor = null;
  if (stuck) return;
  const item = [...list.children].find((each) => each.getBoundingClientRect().bottom > top);
  if (item) anchor = { item, depth: depth(item) };
}

/** Show a range of messages; the ends are clamped. */
function look(from, to) {
  drawn = { from: Math.max(0, from), to: Math.min(log.length, to) };
  render();
}

/** Near an end of the window: extend it there, and shrink it at the other end. */
async function extend() {
  if (scroller.scrollTop < AHEAD_PX && (drawn.from > 0 || !complete)) {
    const before = log;
    if (drawn.from === 0 && !(await loadOlder())) {
      // Reloaded meanwhile: nothing else would ask again here, either.
      if (log !== before) extend();
      return;
    }
    look(drawn.from - STEP, Math.min(drawn.to, drawn.from - STEP + WINDOW));
  } else if (!isAtEnd() && distanceToEnd() < AHEAD_PX) {
    look(Math.max(drawn.from, drawn.to + STEP - WINDOW), drawn.to + STEP);
  }
}

/**
 * Return these messages with the page before them; null if another channel was opened meanwhile.
 */
async function prependOlder(messages) {
  const { channel } = state;
  const page = await loadMessages(channel, messages[0]?.id);
  if (channel !== state.channel) return null;
  // This member's ephemeral messages come with the page and do not mark its end.
  const ended = page.filter((message) => !(message.flags & EPHEMERAL)).length < PAGE;
  const older = page.filter((message) => !dismissed.has(message.id));
  return { messages: [...older, ...messages], ended };
}

async function loadOlder() {
  if (complete || loading) return false;
  const before = log;
  loading = true;
  // At the top, no scroll event would ask again.
  const loaded = await prependOlder(before).catch(() => { setTimeout(extend, RETRY_DELAY_MS); });
  loading = false;
  if (!loaded || log !== before) return false;
  const added = loaded.messages.length - log.length;
  log = loaded.messages;
  complete = loaded.ended;
  drawn = { from: drawn.from + added, to: drawn.to + added };
  return true;
}

/** Load the channel; after a lost connection, back to the message that was on top. */
export async function open({ again = false } = {}) {
  const reaching = again ? log[drawn.from]?.id : null;
  const { channel } = state;
  let loaded = { messages: [], ended: false };
  do loaded = await prependOlder(loaded.messages);
  while (loaded && !loaded.ended && reaching && isLater(loaded.messages[0].id, reaching));
  if (!loaded) return;
  // Only now: the reader may have scrolled while the messages were loaded.
  const wasStuck = !again || stuck;
  const next = loaded.messages;
  newAfter = (again && newAfter) || lastRead(channel);
  let from = 0;
  if (reaching) from = Math.max(0, next.findIndex((message) => !isLater(reaching, message.id)));
  const to = again && !wasStuck ? Math.min(next.length, from + WINDOW) : next.length;
  if (!again) {
    items.clear();
    list.replaceChildren();
    anchor = null;
    lastTop = 0;
    missed = 0;
  }
  // Notices of the page itself are in no history.
  const notes = again ? log.filter((message) => message.failed) : [];
  log = [...next, ...notes];
  const end = to === next.length ? log.length : to;
  drawn = { from: Math.max(from, to + notes.length - WINDOW), to: end };
  complete = loaded.ended;
  stuck = wasStuck;
  for (const message of log) {
    if (items.has(message.id)) draw(message, items.get(message.id));
  }
  $("welcome").textContent = `This is the beginning of ${channelName(findChannel())}.`;
  // Own messages are never new.
  const unread = log.find((message) => isLater(message.id, newAfter));
  if (!unread || unread.author.id === state.me) newAfter = null;
  const opensAtNew = !again && newAfter;
  if (opensAtNew) stuck = false;
  render();
  if (opensAtNew) showNew();
}

/** Scroll to the first unread message, unless all of them fit. */
function showNew() {
  const line = list.querySelector(".divider.new");
  const below = list.getBoundingClientRect().bottom - line.getBoundingClientRect().top;
  stuck = below < scroller.clientHeight;
  if (stuck) settle();
  else line.scrollIntoView({ block: "center" });
  hold();
  extend();
}

/** Show a new or changed message of this channel. */
export function show(message) {
  if (dismissed.has(message.id)) return;
  const index = find(message.id);
  const present = isAtEnd();
  if (index >= 0) {
    log[index] = message;
    if (items.has(message.id)) draw(message, items.get(message.id));
    settle();
  } else {
    // Edits of messages that are not loaded yet come with their page.
    if (log.length && !complete && isLater(log[0].id, message.id)) return;
    const at = log.findLastIndex((one) => isLater(message.id, one.id)) + 1;
    log.splice(at, 0, message);
    const reading = stuck && present && document.visibilityState === "visible";
    if (message.author.id === state.me) {
      jumpToEnd();
      return;
    }
    if (!reading) {
      newAfter ??= lastRead(state.channel);
      missed += 1;
    }
    if (present) drawn.to = log.length;
    else if (at < drawn.to) drawn.to += 1;
    if (at < drawn.from) drawn.from += 1;
    drawn.from = Math.max(drawn.from, stuck ? drawn.to - WINDOW : 0);
    render();
  }
  speak(items.get(message.id));
}

export function remove(id, forGood = false) {
  const index = find(id);
  if (forGood) dismissed.add(id);
  if (index < 0) return;
  log.splice(index, 1);
  look(drawn.from - (index < drawn.from), drawn.to - (index < drawn.to));
}

/** Show a notice of the page as an ephemeral message. */
export function notice(content) {
  const timestamp = new Date(now()).toISOString();
  const newest = log.at(-1)?.id ?? idAt(timestamp);
  show({
    id: String(BigInt(newest) + 1n),
    channel_id: state.channel,
    author: state.bot,
    type: 0,
    flags: EPHEMERAL,
    failed: true,
    content,
    timestamp,
    edited_timestamp: null,
    mentions: [],
    embeds: [],
    attachments: [],
    components: [],
  });
}

/** Announce a message to screen readers once it has stopped changing. */
function speak(item) {
  if (!item) return;
  clearTimeout(item.speaking);
  if (item.spoken) return;
  item.speaking = setTimeout(() => {
    item.spoken = item.isConnected;
    if (!item.spoken) return;
    const parts = item.querySelectorAll(".content, .display");
    const texts = [...parts].map((part) => part.textContent).filter(Boolean);
    const words = `${userName(shownUser(item.message.author))}: ${texts.join(" ")}`;
    $("spoken").replaceChildren(h("p", {}, words));
  }, SPEAK_DELAY_MS);
}

/** Scroll to a message, loading older ones if needed. */
export async function jump(id) {
  while (find(id) < 0 && !complete && isLater(log[0]?.id ?? "0", id)) {
    if (!(await loadOlder())) break;
  }
  const index = find(id);
  if (index < 0) return;
  stuck = false;
  anchor = null;
  if (index < drawn.from || index >= drawn.to) look(index - STEP, index + STEP);
  const { article } = items.get(id);
  article.scrollIntoView({ block: "center" });
  hold();
  article.focus({ preventScroll: true });
  article.classList.add("flash");
  setTimeout(() => article.classList.remove("flash"), FLASH_MS);
}

/** Jump to the newest message. */
export function jumpToEnd() {
  stuck = true;
  newAfter = null;
  anchor = null;
  lastTop = 0;
  look(log.length - PAGE, log.length);
}

/** The list item of the member's last message, if it is in the window. */
export function lastOwn() {
  const isOwn = ({ author, type }) => author.id === state.me && USER_MESSAGE_TYPES.includes(type);
  return items.get(log.findLast(isOwn)?.id);
}

export const redraw = () => items.forEach((item) => draw(item.message, item));

export function watch(told) {
  onRead = told;
  scroller.addEventListener("scroll", onScroll, { passive: true });
  // Loading images, growing replies and the composer push the end down.
  const sizes = new ResizeObserver(settle);
  sizes.observe(list);
  sizes.observe(scroller);
  document.addEventListener("visibilitychange", () => {
    if (stuck && isAtEnd()) read();
  });
  latest.onclick = jumpToEnd;
}

/** One message as a list item, and its changes in place: an edit replaces the parts that differ. */

import { h } from "/page/dom.js";
import { markdown, plainText } from "/page/markdown.js";
import {
  applyRoleColour, avatar, findChannel, isLater, mentionsMember, now, shownUser, userName,
} from "/page/guild.js";
import {
  attachment, component, embed, forwarded, messageText, poll, sticker,
} from "/page/message_parts.js";

export const EPHEMERAL = 1 << 6;
export const FIRST_OF_THREAD = 21;
const LOADING = 1 << 7;
const IS_COMPONENTS_V2 = 1 << 15;
const STARTED_THREAD = 18;
const REPLY = 19;
const USED_COMMAND = 20;
const USED_MENU = 23;
/** Types of messages that users write and may edit. */
export const USER_MESSAGE_TYPES = [0, REPLY];
/** Types with a line above the message: they never follow another without avatar and name. */
const TYPES_WITH_HEAD = [REPLY, USED_COMMAND, USED_MENU, STARTED_THREAD];
const GROUP_MS = 5 * 60 * 1000;
const STREAMED_MS = 60 * 1000;
const DAY_MS = 24 * 60 * 60 * 1000;
const QUOTED_CHARACTERS = 140;

// Created once: creating a format takes longer than rendering a message.
const DAY = new Intl.DateTimeFormat([], { dateStyle: "long" });
const CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const day = (message) => DAY.format(new Date(message.timestamp));
const midnight = (time) => new Date(time).setHours(0, 0, 0, 0);

function when(message) {
  const date = new Date(message.timestamp);
  // Rounded: a day on which the clocks change has 23 or 25 hours.
  const days = Math.round((midnight(now()) - midnight(date)) / DAY_MS);
  let shown = CLOCK.format(date);
  if (days === 1) shown = `Yesterday at ${shown}`;
  else if (days !== 0) shown = `${date.toLocaleDateString()} ${shown}`;
  return h("time", { dateTime: message.timestamp, title: date.toLocaleString() }, shown);
}

function cause(message) {
  const used = message.interaction_metadata;
  if (used && [USED_COMMAND, USED_MENU].includes(message.type)) {
    const name = message.type === USED_MENU ? used.name : `/${used.name}`;
    const user = h("b", {}, userName(used.user));
    return [avatar(used.user, "avatar tiny"), user, " used ", h("b", { className: "used" }, name)];
  }
  if (message.type !== REPLY) return [];
  const target = message.referenced_message;
  if (!target) return [h("i", {}, "Original message was deleted")];
  const words = plainText(messageText(target)).slice(0, QUOTED_CHARACTERS) || "Press to see attachment";
  const props = { type: "button", className: "plain", "data-do": "jump", "data-id": target.id };
  const author = shownUser(target.author);
  const name = applyRoleColour(h("b", {}, userName(author)), author.id);
  const face = avatar(author, "avatar tiny");
  return [h("button", props, face, name, h("span", {}, words))];
}

/** The message to display: a thread's first one is the message it was started under. */
export function displayedMessage(message) {
  if (message.type !== FIRST_OF_THREAD || !message.referenced_message) return message;
  const started = message.referenced_message;
  const { author, content, mentions, embeds, attachments, components } = started;
  const { sticker_items: stickers, poll: asked } = started;
  return {
    ...message, author, content, mentions, embeds, attachments, components,
    sticker_items: stickers, poll: asked,
  };
}

function head({ author, timestamp }) {
  const name = h("strong", { className: "name" }, userName(shownUser(author)));
  const parts = [applyRoleColour(name, author.id)];
  if (author.bot) parts.push(h("span", { className: "app" }, "APP"));
  parts.push(" ", when({ timestamp }));
  return parts;
}

/**
 * Members' edits are marked as on Discord. A bot streams a reply through edits, and replaces
 * "is thinking…" by one: only its edits more than a minute later are marked.
 */
function isEdited({ edited_timestamp, timestamp, author }) {
  if (!edited_timestamp) return false;
  return !author.bot || new Date(edited_timestamp) - new Date(timestamp) > STREAMED_MS;
}

function editedMark({ edited_timestamp }) {
  const title = new Date(edited_timestamp).toLocaleString();
  return h("small", { className: "edited", title }, " (edited)");
}

function content(message) {
  if (message.failed) return [h("p", { className: "problem" }, message.content)];
  if (message.type === STARTED_THREAD) {
    const name = h("b", {}, message.content);
    return [h("p", { className: "muted" }, "started a thread: ", name)];
  }
  if (message.flags & LOADING) {
    const dots = h("i", { className: "dots" });
    const name = userName(shownUser(message.author));
    return [h("p", { className: "thinking" }, `${name} is thinking`, dots)];
  }
  const nodes = markdown(message.content);
  if (!isEdited(message) || message.flags & IS_COMPONENTS_V2) return nodes;
  const mark = editedMark(message);
  const last = nodes.at(-1);
  if (last?.matches(".text")) last.append(mark);
  else nodes.push(mark);
  return nodes;
}

/** Buttons and menus below the text, or a layout, which has the text too. */
function components(message) {
  const nodes = message.components.map(component);
  if (message.flags & IS_COMPONENTS_V2 && isEdited(message)) nodes.push(editedMark(message));
  return nodes;
}

/** Files below the text; beside a layout of components, only those that it names are shown. */
function attachments({ flags, attachments: files }) {
  return flags & IS_COMPONENTS_V2 ? [] : files.map(attachment);
}

function thread(message) {
  // A thread has the id of its message; its own first message has that of the channel.
  const started = message.id !== message.channel_id && findChannel(message.id);
  if (!started) return [];
  const props = { type: "button", className: "begun", "data-do": "open", "data-id": started.id };
  return [h("button", props, h("b", {}, started.name), h("span", {}, "See thread ›"))];
}

function note(message) {
  if (!(message.flags & EPHEMERAL)) return [];
  const props = { type: "button", className: "plain", "data-do": "dismiss" };
  return [h("span", {}, "Only you can see this · "), h("button", props, "Dismiss message")];
}

function face({ author, timestamp }) {
  return [avatar(shownUser(author)), h("time", {}, CLOCK.format(new Date(timestamp)))];
}

const shownAuthor = (message) => message && shownUser(message.author);
const quoted = ({ referenced_message: target }) => target && messageText(target);

/** Parts of a message: class, the fields it depends on, and its renderer. */
const PARTS = [
  ["face", shownAuthor, face],
  ["cause", (m) => [m.type, quoted(m), shownAuthor(m.referenced_message)], cause],
  ["head", shownAuthor, head],
  ["content", (m) => [m.content, m.flags, m.mentions, m.failed, isEdited(m)], content],
  ["embeds", (m) => m.embeds, (m) => m.embeds.map(embed)],
  ["attachments", (m) => m.attachments, attachments],
  ["stickers", (m) => m.sticker_items, (m) => (m.sticker_items ?? []).map(sticker)],
  ["polled", (m) => m.poll, (m) => (m.poll ? [poll(m.poll)] : [])],
  ["snapshots", (m) => m.message_snapshots, (m) => (m.message_snapshots ?? []).map(forwarded)],
  ["components", (m) => [m.components, isEdited(m)], components],
  ["thread", (m) => findChannel(m.id)?.name, thread],
  ["note", (m) => m.flags, note],
];

function newItem(message) {
  const parts = PARTS.map(([name]) => h("div", { className: name }));
  parts.find((part) => part.className === "face").ariaHidden = "true";
  const item = h("li");
  item.article = h("article", { className: "message", tabIndex: -1 }, parts);
  item.drawn = {}; // by part, what it depends on as it was drawn
  item.append(item.article);
  return item;
}

/** Create a message's list item, or update it. */
export function draw(raw, item = newItem(displayedMessage(raw))) {
  const message = displayedMessage(raw);
  const { article } = item;
  item.message = message;
  const time = new Date(message.timestamp).toLocaleString();
  article.ariaLabel = `${userName(shownUser(message.author))}, ${time}`;
  article.classList.toggle("ephemeral", Boolean(message.flags & EPHEMERAL));
  article.classList.toggle("pinged", mentionsMember(message));
  for (const [name, depends, make] of PARTS) {
    const key = JSON.stringify(depends(message)) ?? "";
    if (item.drawn[name] === key || (name === "content" && item.editing)) continue;
    const part = article.querySelector(`:scope > .${name}`);
    part.replaceChildren(...make(message).flat());
    part.hidden = !part.childNodes.length;
    item.drawn[name] = key;
  }
  return item;
}

function divider(message, before, newAfter) {
  const newDay = !before || day(before) !== day(message);
  const isAfter = (other) => isLater(other.id, newAfter);
  const isNew = newAfter && isAfter(message) && !(before && isAfter(before));
  if (!newDay && !isNew) return null;
  const words = [];
  if (isNew) words.push("New messages");
  if (newDay) words.push(day(message));
  return h(
    "div",
    {
      className: isNew ? "divider new" : "divider",
      role: "separator",
      ariaLabel: words.join(", "),
    },
    newDay && h("span", {}, day(message)),
    isNew && h("b", {}, "NEW"),
  );
}

/** Tell whether a message follows another one closely enough to have no avatar and name. */
function follows(message, before) {
  if (!before || TYPES_WITH_HEAD.includes(message.type)) return false;
  const { author } = displayedMessage(before);
  const isSame = author.id === message.author.id && userName(author) === userName(message.author);
  const pause = new Date(message.timestamp) - new Date(before.timestamp);
  if (!isSame || pause >= GROUP_MS) return false;
  return ((before.flags ^ message.flags) & EPHEMERAL) === 0 && before.type !== STARTED_THREAD;
}

/**
 * Update what depends on the message before: day and unread dividers, and whether avatar and name
 * are omitted.
 */
export function regroup(item, before, newAfter) {
  const { message, article } = item;
  const line = divider(message, before, newAfter);
  const key = line?.ariaLabel ?? "";
  if (item.dividedBy !== key) {
    item.querySelector(":scope > .divider")?.remove();
    if (line) item.prepend(line);
    item.dividedBy = key;
  }
  article.classList.toggle("follows", !line && follows(message, before));
}

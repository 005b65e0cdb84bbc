/** One message as a list item, and its changes in place: an edit replaces only the parts that differ. */

import { h } from "/page/dom.js";
import { markdown, plainText } from "/page/markdown.js";
import { avatar, isLater, now, mentionsMember, findChannel, applyRoleColour, userName } from "/page/guild.js";
import { attachment, embed, row } from "/page/message_parts.js";

export const EPHEMERAL = 1 << 6, FIRST_OF_THREAD = 21;
const LOADING = 1 << 7;
const STARTED_THREAD = 18, REPLY = 19, USED_COMMAND = 20, USED_MENU = 23;
/** Types of messages that users write and may edit. */
export const USER_MESSAGE_TYPES = [0, REPLY];
const GROUP_MS = 5 * 60 * 1000, STREAMED_MS = 60 * 1000;

// Created once: creating a format takes longer than rendering a message.
const DAY = new Intl.DateTimeFormat([], { dateStyle: "long" }), CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const day = (message) => DAY.format(new Date(message.timestamp));

function when(message) {
  const date = new Date(message.timestamp), days = Math.round((new Date(now()).setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5);
  const clock = CLOCK.format(date);
  const shown = days === 0 ? clock : days === 1 ? `Yesterday at ${clock}` : `${date.toLocaleDateString()} ${clock}`;
  return h("time", { dateTime: message.timestamp, title: date.toLocaleString() }, shown);
}

function cause(message) {
  const used = message.interaction_metadata;
  if (used && [USED_COMMAND, USED_MENU].includes(message.type)) {
    const name = message.type === USED_MENU ? used.name : `/${used.name}`;
    return [avatar(used.user, "avatar tiny"), h("b", {}, userName(used.user)), " used ", h("b", { className: "used" }, name)];
  }
  if (message.type !== REPLY) return [];
  const target = message.referenced_message;
  if (!target) return [h("i", {}, "Original message was deleted")];
  const words = plainText(target.content).slice(0, 140) || "Press to see attachment";
  return [h("button", { type: "button", className: "plain", "data-do": "jump", "data-id": target.id },
    avatar(target.author, "avatar tiny"), applyRoleColour(h("b", {}, userName(target.author)), target.author.id), h("span", {}, words))];
}

/** The message to display: a thread's first one is the message it was started under. */
export function displayedMessage(message) {
  if (message.type !== FIRST_OF_THREAD || !message.referenced_message) return message;
  const { author, content, mentions, embeds, attachments } = message.referenced_message;
  return { ...message, author, content, mentions, embeds, attachments };
}

const head = (message) => [
  applyRoleColour(h("strong", { className: "name" }, userName(message.author)), message.author.id),
  message.author.bot && h("span", { className: "app" }, "APP"), " ", when(message),
].filter(Boolean);

/**
 * Members' edits are marked as on Discord. A bot streams a reply through edits, and replaces "is thinking…" by one: only
 * its edits more than a minute later are marked.
 */
function isEdited({ edited_timestamp, timestamp, author }) {
  return Boolean(edited_timestamp) && (!author.bot || new Date(edited_timestamp) - new Date(timestamp) > STREAMED_MS);
}

function content(message) {
  if (message.failed) return [h("p", { className: "problem" }, message.content)];
  if (message.type === STARTED_THREAD) return [h("p", { className: "muted" }, "started a thread: ", h("b", {}, message.content))];
  if (message.flags & LOADING) return [h("p", { className: "thinking" }, `${userName(message.author)} is thinking`, h("i", { className: "dots" }))];
  const nodes = markdown(message.content), last = nodes.at(-1);
  if (!isEdited(message)) return nodes;
  const mark = h("small", { className: "edited", title: new Date(message.edited_timestamp).toLocaleString() }, " (edited)");
  if (last?.matches(".text")) last.append(mark);
  else nodes.push(mark);
  return nodes;
}

function thread(message) {
  const started = message.id !== message.channel_id && findChannel(message.id);
  return started ? [h("button", { type: "button", className: "begun", "data-do": "open", "data-id": started.id }, h("b", {}, started.name), h("span", {}, "See thread ›"))] : [];
}

const note = (message) => (message.flags & EPHEMERAL
  ? [h("span", {}, "Only you can see this · "), h("button", { type: "button", className: "plain", "data-do": "dismiss" }, "Dismiss message")] : []);

/** Parts of a message: class, the fields it depends on, and its renderer. */
const PARTS = [
  ["cause", (m) => [m.type, m.referenced_message?.content], cause],
  ["head", (m) => m.author, head],
  ["content", (m) => [m.content, m.flags, m.mentions, m.failed, isEdited(m)], content],
  ["embeds", (m) => m.embeds, (m) => m.embeds.map(embed)],
  ["attachments", (m) => m.attachments, (m) => m.attachments.map(attachment)],
  ["components", (m) => m.components, (m) => m.components.map(row)],
  ["thread", (m) => findChannel(m.id)?.name, thread],
  ["note", (m) => m.flags, note],
];

function newItem(message) {
  const face = h("div", { className: "face", ariaHidden: "true" }, avatar(message.author), h("time", {}, CLOCK.format(new Date(message.timestamp))));
  const article = h("article", { className: "message", tabIndex: -1 }, face, PARTS.map(([name]) => h("div", { className: name })));
  return Object.assign(h("li", {}, article), { drawn: {}, article });
}

/** Create a message's list item, or update it. */
export function draw(raw, item = newItem(displayedMessage(raw))) {
  const message = displayedMessage(raw), { article } = item;
  item.message = message;
  article.ariaLabel = `${userName(message.author)}, ${new Date(message.timestamp).toLocaleString()}`;
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
  const isNew = newAfter && isLater(message.id, newAfter) && !(before && isLater(before.id, newAfter));
  if (!newDay && !isNew) return null;
  return h("div", { className: isNew ? "divider new" : "divider", role: "separator", ariaLabel: [isNew && "New messages", newDay && day(message)].filter(Boolean).join(", ") },
    newDay && h("span", {}, day(message)), isNew && h("b", {}, "NEW"));
}

/** Update what depends on the message before: day and unread dividers, and whether avatar and name are omitted. */
export function regroup(item, before, newAfter) {
  const { message, article } = item, line = divider(message, before, newAfter);
  const key = line?.ariaLabel ?? "";
  if (item.dividedBy !== key) {
    item.querySelector(":scope > .divider")?.remove();
    if (line) item.prepend(line);
    item.dividedBy = key;
  }
  const near = before && new Date(message.timestamp) - new Date(before.timestamp) < GROUP_MS, author = near && displayedMessage(before).author;
  const same = near && author.id === message.author.id && userName(author) === userName(message.author);
  const alike = same && ((before.flags ^ message.flags) & EPHEMERAL) === 0 && before.type !== STARTED_THREAD;
  article.classList.toggle("follows", Boolean(alike && !line && ![REPLY, USED_COMMAND, USED_MENU, STARTED_THREAD].includes(message.type)));
}

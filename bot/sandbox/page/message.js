/** One message as a list item, and its changes in place: an edit replaces only the parts that differ. */

import { findName, state, userName } from "/page/api.js";
import { h } from "/page/dom.js";
import { markdown } from "/page/markdown.js";

const EPHEMERAL = 1 << 6, LOADING = 1 << 7, GROUP_MS = 5 * 60 * 1000;
const LINK = 5, STYLES = { 1: "primary", 2: "secondary", 3: "success", 4: "danger", 5: "secondary" };
const colour = (number) => `#${number.toString(16).padStart(6, "0")}`;

function avatar(author) {
  const initial = h("span", { className: "avatar", ariaHidden: "true" }, userName(author).slice(0, 1).toUpperCase());
  const hue = [...userName(author)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  initial.style.setProperty("--hue", String(hue));
  if (!author.avatar) return initial;
  const image = h("img", { className: "avatar", alt: "", src: `/cdn/avatars/${author.id}/${author.avatar}.png` });
  image.onerror = () => image.replaceWith(initial);
  return image;
}

function nameOf(author) {
  const name = h("strong", { className: "name" }, userName(author));
  const held = state.people.find((person) => person.user.id === author.id)?.roles ?? [];
  const role = state.roles.filter((one) => held.includes(one.id) && one.color).pop();
  if (role) name.style.setProperty("--role", colour(role.color));
  return name;
}

function when(message) {
  const date = new Date(message.timestamp), today = date.toDateString() === new Date().toDateString();
  const short = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return h("time", { dateTime: message.timestamp, title: date.toLocaleString() }, today ? short : `${date.toLocaleDateString()} ${short}`);
}

function cause(message) {
  const asked = message.interaction_metadata;
  if (message.type === 20) return [h("span", {}, `${userName(asked.user)} used `, h("b", {}, `/${asked.name}`))];
  if (message.type !== 19) return [];
  const target = message.referenced_message;
  if (!target) return [h("i", {}, "Original message was deleted")];
  return [h("span", {}, "↱ ", h("b", {}, userName(target.author)), ` ${target.content.replace(/<@!?(\d+)>/g, (_, id) => `@${findName(id)}`).slice(0, 120)}`)];
}

const head = (message) => [nameOf(message.author), message.author.bot && h("span", { className: "app" }, "APP"), when(message)].filter(Boolean);

function content(message) {
  if (message.flags & LOADING) return [h("p", { className: "thinking" }, `${userName(message.author)} is thinking`, h("i", { className: "dots" }))];
  const nodes = markdown(message.content), last = nodes.at(-1);
  if (last && message.edited_timestamp && !message.interaction_metadata) {
    const mark = h("small", {}, " (edited)");
    if (last.matches("pre")) nodes.push(mark);
    else last.append(mark);
  }
  return nodes;
}

function embed(data) {
  const box = h("article", { className: "embed" },
    data.author?.name && h("div", { className: "embed-author" }, data.author.name),
    data.title && h("div", { className: "embed-title" }, ...markdown(data.title)),
    data.description && h("div", {}, ...markdown(data.description)),
    data.fields?.length && h("dl", {}, ...data.fields.map((field) => h("div", { className: field.inline ? "inline" : "" },
      h("dt", {}, ...markdown(field.name)), h("dd", {}, ...markdown(field.value))))),
    data.image?.url && h("img", { alt: "", src: data.image.url }),
    data.footer?.text && h("footer", {}, data.footer.text));
  if (data.color !== undefined && data.color !== null) box.style.setProperty("--edge", colour(data.color));
  return box;
}

function attachment(file) {
  if (file.content_type?.startsWith("image/")) return h("img", { className: "picture", alt: file.description ?? file.filename, src: file.url });
  return h("a", { className: "file", href: file.url, download: file.filename }, `${file.filename} · ${Math.ceil(file.size / 1024)} KiB`);
}

function component(message, part, actions) {
  if (part.type !== 2) return null;
  const label = [part.emoji?.name, part.label].filter(Boolean).join(" ");
  if (part.style === LINK) return h("a", { className: "button secondary", href: part.url, target: "_blank", rel: "noreferrer" }, `${label} ↗`);
  const button = h("button", { type: "button", className: `button ${STYLES[part.style]}`, disabled: Boolean(part.disabled) }, label);
  button.onclick = () => actions.press(message, part.custom_id, button);
  return button;
}

function note(message, actions) {
  if (!(message.flags & EPHEMERAL)) return [];
  const dismiss = h("button", { type: "button", className: "plain", onclick: () => actions.dismiss(message) }, "Dismiss message");
  return [h("span", {}, "Only you can see this · ", dismiss)];
}

/** Class of the part, what of the message it depends on, and how it is drawn. */
const PARTS = [
  ["cause", (m) => [m.type, m.referenced_message?.content], cause],
  ["head", (m) => m.author, head],
  ["content", (m) => [m.content, m.flags, m.mentions, Boolean(m.edited_timestamp)], content],
  ["embeds", (m) => m.embeds, (m) => m.embeds.map(embed)],
  ["attachments", (m) => m.attachments, (m) => m.attachments.map(attachment)],
  ["components", (m) => m.components, (m, actions) => m.components.map((row) => h("div", { className: "row" }, row.components?.map((part) => component(m, part, actions))))],
  ["note", (m) => m.flags, note],
];

/** Draw the message, or bring its element up to date. */
export function draw(message, actions, item = h("li", { className: "message" })) {
  if (!item.drawn) {
    item.drawn = {};
    const reply = h("button", { type: "button", className: "plain reply", title: "Reply", ariaLabel: `Reply to ${userName(message.author)}` }, "↩");
    reply.onclick = () => actions.reply(item.message);
    item.append(avatar(message.author), ...PARTS.map(([name]) => h("div", { className: name })), message.flags & EPHEMERAL ? "" : reply);
  }
  item.message = message;
  item.classList.toggle("ephemeral", Boolean(message.flags & EPHEMERAL));
  item.classList.toggle("pinged", message.mentions.some((user) => user.id === state.me) || message.mention_everyone);
  for (const [name, depends, make] of PARTS) {
    const key = JSON.stringify(depends(message));
    if (item.drawn[name] !== key) item.querySelector(`:scope > .${name}`).replaceChildren(...make(message, actions));
    item.drawn[name] = key;
  }
  return item;
}

/** Leave out the face and the name under a message of the same author shortly before. */
export function regroup(item) {
  const before = item?.previousElementSibling?.message, message = item?.message;
  if (!message) return;
  const near = before && new Date(message.timestamp) - new Date(before.timestamp) < GROUP_MS;
  const same = near && before.author.id === message.author.id && userName(before.author) === userName(message.author);
  const alike = same && ((before.flags ^ message.flags) & EPHEMERAL) === 0;
  item.classList.toggle("follows", Boolean(alike && ![19, 20].includes(message.type)));
}

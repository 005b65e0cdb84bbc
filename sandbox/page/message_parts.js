/** Parts of a message beside its text: embeds, attachments, and components of every kind. */

import { state } from "/page/api.js";
import { h } from "/page/dom.js";
import { markdown } from "/page/markdown.js";
import { colour } from "/page/guild.js";

const ACTION_ROW = 1;
const BUTTON = 2;
const SECTION = 9;
const TEXT_DISPLAY = 10;
const THUMBNAIL = 11;
const MEDIA_GALLERY = 12;
const FILE = 13;
const SEPARATOR = 14;
const CONTAINER = 17;
const LARGE_SPACING = 2;
const LINK = 5;
const STYLES = { 1: "primary", 2: "secondary", 3: "success", 4: "danger", 5: "secondary" };
const UNITS = ["bytes", "KB", "MB", "GB"];

export function size(bytes) {
  const step = Math.min(Math.floor(Math.log2(bytes || 1) / 10), 3);
  return `${(bytes / 1024 ** step).toFixed(step ? 1 : 0)} ${UNITS[step]}`;
}

function outward(url, ...words) {
  return h("a", { href: url, target: "_blank", rel: "noreferrer noopener" }, ...words);
}

/** A picture, or its description if it cannot be loaded. */
function picture(url, className = "picture", alt = "Picture") {
  const image = h("img", { className, alt, src: url });
  image.onerror = () => image.replaceWith(h("small", {}, alt));
  return outward(url, image);
}

const small = (url) => url && h("img", { className: "icon", alt: "", src: url });

function embedAuthor({ name, url, icon_url: icon }) {
  return h("div", { className: "embed-author" }, small(icon), url ? outward(url, name) : name);
}

function embedTitle({ title, url }) {
  const words = markdown(title);
  return h("div", { className: "embed-title" }, url ? outward(url, ...words) : words);
}

function embedField({ name, value, inline }) {
  const term = h("dt", {}, markdown(name));
  return h("div", { className: inline ? "inline" : "" }, term, h("dd", {}, markdown(value)));
}

/** The footer's text and the embed's time; null without either. */
function embedFooter({ footer, timestamp }) {
  const words = [];
  if (footer?.text) words.push(footer.text);
  if (timestamp) words.push(new Date(timestamp).toLocaleString());
  if (!words.length) return null;
  return h("p", { className: "footer" }, small(footer?.icon_url), words.join(" • "));
}

export function embed(data) {
  const box = h(
    "div",
    { className: "embed" },
    data.thumbnail?.url && picture(data.thumbnail.url, "thumbnail", "Thumbnail"),
    data.author?.name && embedAuthor(data.author),
    data.title && embedTitle(data),
    data.description && h("div", {}, markdown(data.description)),
    data.fields?.length && h("dl", {}, data.fields.map(embedField)),
    data.image?.url && picture(data.image.url),
    embedFooter(data),
  );
  // Black is 0.
  if (data.color !== undefined && data.color !== null) {
    box.style.setProperty("--edge", colour(data.color));
  }
  return box;
}

/** A sticker, by the emoji that it is related to. */
export function sticker({ id, name }) {
  const face = state.stickers.find((one) => one.id === id)?.tags ?? "?";
  return h("figure", { className: "sticker", role: "img", ariaLabel: `Sticker: ${name}` }, face);
}

/** A poll with its answers; nobody can vote here. */
export function poll({ question, answers }) {
  const rows = answers.map(({ poll_media: media }) => h("li", {}, media.text));
  return h("div", { className: "poll" }, h("b", {}, question.text), h("ol", {}, rows));
}

/** The messages that a message forwards. */
export function forwarded({ message }) {
  return h(
    "blockquote",
    { className: "forwarded" },
    h("small", {}, "↪ Forwarded"),
    markdown(message.content ?? ""),
    (message.components ?? []).map(component),
    (message.embeds ?? []).map(embed),
    (message.attachments ?? []).map(attachment),
    (message.sticker_items ?? []).map(sticker),
  );
}

function voiceMessage({ duration_secs: seconds, url }) {
  const words = `Voice message, ${Math.round(seconds)} s`;
  return h(
    "div",
    { className: "file voice" },
    h("span", { className: "sheet", ariaHidden: "true" }, "🎤"),
    h("div", {}, words, h("audio", { controls: true, preload: "none", src: url, ariaLabel: words })),
  );
}

export function attachment(file) {
  if (file.waveform) return voiceMessage(file);
  if (file.content_type?.startsWith("image/")) {
    return picture(file.url, "picture", file.description ?? file.filename);
  }
  const target = { href: file.url, download: file.filename };
  const name = h("a", target, file.filename);
  const label = { title: "Download", ariaLabel: `Download ${file.filename}` };
  return h(
    "div",
    { className: "file" },
    h("span", { className: "sheet", ariaHidden: "true" }, "▤"),
    h("div", {}, name, h("small", {}, size(file.size))),
    h("a", { className: "sign", ...target, ...label }, "⤓"),
  );
}

function button(part) {
  const label = [];
  if (part.emoji) {
    const { id, name } = part.emoji;
    label.push(h("span", { className: "emoji" }, id ? `:${name}:` : name)); // custom ones have one
  }
  if (part.label) label.push(h("span", {}, part.label));
  if (part.style === LINK) {
    const link = outward(part.url, ...label, " ↗");
    link.className = "button secondary";
    return link;
  }
  const props = {
    type: "button",
    className: `button ${STYLES[part.style]}`,
    disabled: Boolean(part.disabled),
    "data-do": "press",
    "data-part": part.custom_id,
  };
  return h("button", props, label);
}

/** The button of a select menu, with its default choices or its placeholder. */
export function selectButton(part, words) {
  const defaults = (part.options ?? []).filter((option) => option.default);
  const chosen = defaults.map((option) => option.label).join(", ");
  const placeholder = part.placeholder || "Make a selection";
  const props = {
    type: "button",
    className: "select",
    disabled: Boolean(part.disabled),
    "data-do": "select",
    "data-part": part.custom_id,
    role: "combobox",
    "aria-haspopup": "listbox",
    ariaExpanded: "false",
    ariaLabel: placeholder,
  };
  const arrow = h("span", { ariaHidden: "true" }, "▾");
  return h("button", props, h("span", {}, words || chosen || placeholder), arrow);
}

function row({ components }) {
  const draw = (part) => (part.type === BUTTON ? button(part) : selectButton(part));
  return h("div", { className: "row" }, components.map(draw));
}

/** Hide an element until it is pressed, if it is a spoiler. */
function veiled(element, isSpoiler) {
  if (!isSpoiler) return element;
  const open = () => cover.replaceWith(element);
  const label = "Spoiler: press to reveal";
  const cover = h("button", { type: "button", className: "veil", onclick: open }, label);
  return cover;
}

function shownMedia({ media, description, spoiler }, className) {
  return veiled(picture(media.url, className, description ?? "Picture"), spoiler);
}

function section({ components, accessory }) {
  const beside = accessory.type === THUMBNAIL
    ? shownMedia(accessory, "thumbnail")
    : button(accessory);
  return h("div", { className: "section" }, h("div", {}, components.map(component)), beside);
}

function container({ components, accent_color: accent, spoiler }) {
  const box = h("div", { className: "container" }, components.map(component));
  // Black is 0.
  if (accent !== undefined && accent !== null) box.style.setProperty("--edge", colour(accent));
  return veiled(box, spoiler);
}

function separator({ divider, spacing }) {
  const line = h("hr", { className: spacing === LARGE_SPACING ? "wide" : "" });
  if (!divider) line.classList.add("blank");
  return line;
}

const DRAWN = {
  [ACTION_ROW]: row,
  [SECTION]: section,
  [TEXT_DISPLAY]: ({ content }) => h("div", { className: "display" }, markdown(content)),
  [MEDIA_GALLERY]: ({ items }) => h(
    "div",
    { className: items.length > 1 ? "gallery many" : "gallery" },
    items.map((item) => shownMedia(item, "picture")),
  ),
  [FILE]: ({ file, name }) => h(
    "div",
    { className: "file" },
    h("span", { className: "sheet", ariaHidden: "true" }, "▤"),
    h("div", {}, h("a", { href: file.url, download: name }, name)),
  ),
  [SEPARATOR]: separator,
  [CONTAINER]: container,
};

/** A component of a message, with all within it. */
export const component = (data) => DRAWN[data.type](data);

/** Components and all within them, in the order in which they are shown. */
export function allComponents(components) {
  return components.flatMap((each) => [
    each, ...allComponents(each.components ?? []), ...(each.accessory ? [each.accessory] : []),
  ]);
}

/** A message's text with its markup: its content, or that of its text displays. */
export function messageText(message) {
  const shown = allComponents(message.components ?? []);
  const displays = shown.filter((part) => part.type === TEXT_DISPLAY);
  return [message.content, ...displays.map((part) => part.content)].filter(Boolean).join("\n");
}

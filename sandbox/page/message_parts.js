/** Parts of a message beside its text: embeds, attachments, buttons and select menus. */

import { h } from "/page/dom.js";
import { markdown } from "/page/markdown.js";
import { colour } from "/page/guild.js";

const BUTTON = 2, LINK = 5, STYLES = { 1: "primary", 2: "secondary", 3: "success", 4: "danger", 5: "secondary" };
const UNITS = ["bytes", "KB", "MB", "GB"];

export function size(bytes) {
  const step = Math.min(Math.floor(Math.log2(bytes || 1) / 10), 3);
  return `${(bytes / 1024 ** step).toFixed(step ? 1 : 0)} ${UNITS[step]}`;
}

const outward = (url, ...words) => h("a", { href: url, target: "_blank", rel: "noreferrer noopener" }, ...words);

/** A picture, or its description if it cannot be loaded. */
function picture(url, className = "picture", alt = "Picture") {
  const image = h("img", { className, alt, src: url });
  image.onerror = () => image.replaceWith(h("small", {}, alt));
  return outward(url, image);
}

const small = (url) => url && h("img", { className: "icon", alt: "", src: url });

export function embed(data) {
  const title = data.title && markdown(data.title), at = data.timestamp && new Date(data.timestamp).toLocaleString();
  const box = h("div", { className: "embed" },
    data.thumbnail?.url && picture(data.thumbnail.url, "thumbnail", "Thumbnail"),
    data.author?.name && h("div", { className: "embed-author" }, small(data.author.icon_url), data.author.url ? outward(data.author.url, data.author.name) : data.author.name),
    title && h("div", { className: "embed-title" }, data.url ? outward(data.url, ...title) : title),
    data.description && h("div", {}, markdown(data.description)),
    data.fields?.length && h("dl", {}, data.fields.map((field) => h("div", { className: field.inline ? "inline" : "" },
      h("dt", {}, markdown(field.name)), h("dd", {}, markdown(field.value))))),
    data.image?.url && picture(data.image.url),
    (data.footer?.text || at) && h("p", { className: "footer" }, small(data.footer?.icon_url), [data.footer?.text, at].filter(Boolean).join(" • ")));
  if (data.color !== undefined && data.color !== null) box.style.setProperty("--edge", colour(data.color));
  return box;
}

export function attachment(file) {
  if (file.content_type?.startsWith("image/")) return picture(file.url, "picture", file.description ?? file.filename);
  return h("div", { className: "file" }, h("span", { className: "sheet", ariaHidden: "true" }, "▤"),
    h("div", {}, h("a", { href: file.url, download: file.filename }, file.filename), h("small", {}, size(file.size))),
    h("a", { className: "sign", href: file.url, download: file.filename, title: "Download", ariaLabel: `Download ${file.filename}` }, "⤓"));
}

function button(part) {
  const label = [part.emoji && h("span", { className: "emoji" }, part.emoji.id ? `:${part.emoji.name}:` : part.emoji.name), part.label && h("span", {}, part.label)];
  if (part.style === LINK) return h("a", { className: "button secondary", href: part.url, target: "_blank", rel: "noreferrer noopener" }, label, " ↗");
  return h("button", { type: "button", className: `button ${STYLES[part.style]}`, disabled: Boolean(part.disabled), "data-do": "press", "data-part": part.custom_id }, label);
}

/** The button of a select menu, with its default choices or its placeholder. */
export function selectButton(part, words) {
  const chosen = (part.options ?? []).filter((option) => option.default).map((option) => option.label).join(", ");
  return h("button", { type: "button", className: "select", disabled: Boolean(part.disabled), "data-do": "select", "data-part": part.custom_id,
    role: "combobox", "aria-haspopup": "listbox", ariaExpanded: "false", ariaLabel: part.placeholder || "Make a selection" }, h("span", {}, words || chosen || part.placeholder || "Make a selection"), h("span", { ariaHidden: "true" }, "▾"));
}

export const row = (data) => h("div", { className: "row" }, (data.components ?? []).map((part) => (part.type === BUTTON ? button(part) : selectButton(part))));

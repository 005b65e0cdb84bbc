/** Discord's markdown as DOM nodes. */

import { h } from "/page/dom.js";
import { findName, now, findChannel, roleName, TEXT } from "/page/guild.js";

const mention = (text) => h("span", { className: "mention" }, text);

function link(url, ...words) {
  const props = { href: url, target: "_blank", rel: "noreferrer noopener", title: url };
  return h("a", props, ...words);
}

/** Formats of times, by Discord's letter. */
const TIMES = {
  t: { timeStyle: "short" },
  T: { timeStyle: "medium" },
  d: { dateStyle: "short" },
  D: { dateStyle: "long" },
  f: { dateStyle: "long", timeStyle: "short" },
  F: { dateStyle: "full", timeStyle: "short" },
};
const UNITS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

function relative(seconds) {
  const [unit, size] = UNITS.find((one) => Math.abs(seconds) >= one[1]) ?? UNITS.at(-1);
  const format = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  return format.format(Math.round(seconds / size), unit);
}

function time(at, style = "f") {
  const date = new Date(at * 1000);
  if (Number.isNaN(date.valueOf())) return "Invalid date";
  const title = date.toLocaleString([], TIMES.F);
  let words = "";
  if (style === "R") words = relative((date - now()) / 1000);
  else words = date.toLocaleString([], TIMES[style]);
  return h("time", { className: "stamp", dateTime: date.toISOString(), title }, words);
}

function spoiler(words) {
  const open = (event) => {
    if (event.key && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    element.classList.add("open");
    ["role", "aria-label", "tabindex"].forEach((name) => element.removeAttribute(name));
  };
  const props = {
    className: "spoiler",
    role: "button",
    tabIndex: 0,
    ariaLabel: "Spoiler: press to reveal",
    onclick: open,
    onkeydown: open,
  };
  const element = h("span", props, h("span", {}, words));
  return element;
}

function channel(id) {
  const found = findChannel(id);
  if (!found) return mention("#unknown");
  const href = `#${found.type === TEXT ? found.name : id}`;
  return h("a", { className: "mention", href, "data-channel": id }, `#${found.name}`);
}

/** An address, in angle brackets or without the punctuation after it. */
const ADDRESS = /<(https?:\/\/[^\s<>]+)>|https?:\/\/[^\s<>]*[^\s<>.,:;"'!?)\]]/;

/** The earliest match wins; of two at one place, the first rule. */
const INLINE = [
  [/\\([^A-Za-z0-9\s])/, (m) => m[1]],
  [/``(.+?)``|`([^`\n]+)`/, (m) => h("code", {}, m[1] ?? m[2])],
  [/<@!?(\d+)>/, (m) => mention(`@${findName(m[1])}`)],
  [/<@&(\d+)>/, (m) => mention(`@${roleName(m[1])}`)],
  [/<#(\d+)>/, (m) => channel(m[1])],
  [/<\/([^:>\n]+):\d+>/, (m) => mention(`/${m[1]}`)],
  [/@(everyone|here)\b/, (m) => mention(m[0])],
  [/<a?(:\w+:)\d+>/, (m) => m[1]],
  [/<t:(-?\d{1,13})(?::([tTdDfFR]))?>/, (m) => time(m[1], m[2])],
  [/\[([^\]\n]+)\]\(<?(https?:[^\s)>]+)>?\)/, (m) => link(m[2], ...inline(m[1]))],
  [ADDRESS, (m) => link(m[1] ?? m[0], m[1] ?? m[0])],
  [/\|\|(.+?)\|\|/s, (m) => spoiler(inline(m[1]))],
  [/\*\*\*(.+?)\*\*\*/s, (m) => h("strong", {}, h("em", {}, inline(m[1])))],
  [/\*\*(.+?)\*\*/s, (m) => h("strong", {}, inline(m[1]))],
  [/__(.+?)__/s, (m) => h("u", {}, inline(m[1]))],
  [/~~(.+?)~~/s, (m) => h("s", {}, inline(m[1]))],
  [/\*(?!\s)([^*]+?)\*/s, (m) => h("em", {}, inline(m[1]))],
  [/(?<!\w)_(?!\s)([^_]+?)_(?!\w)/s, (m) => h("em", {}, inline(m[1]))],
];

function inline(text) {
  const out = [];
  for (let rest = text; rest;) {
    const first = firstMatch(rest);
    if (!first) return [...out, rest];
    const { match, make } = first;
    out.push(rest.slice(0, match.index), make(match));
    rest = rest.slice(match.index + match[0].length);
  }
  return out;
}

/** The earliest match of a rule, with what makes its node; null if none matches. */
function firstMatch(text) {
  let first = null;
  for (const [pattern, make] of INLINE) {
    const match = pattern.exec(text);
    if (match && (!first || match.index < first.match.index)) first = { match, make };
  }
  return first;
}

const LINES = [
  [/^-# (.+)$/, (m) => h("small", { className: "subtext" }, inline(m[1]))],
  [/^(#{1,3}) (.+)$/, (m) => h(`h${m[1].length + 2}`, {}, inline(m[2]))],
];
const QUOTE = /^> ?/;
const ITEM = /^( *)(?:[-*]|(\d+)\.) +(.+)$/;
const BLOCKS = [QUOTE, ITEM, ...LINES.map(([pattern]) => pattern)];

/** Take lines from the front while they fit. */
const take = (lines, fits) => lines.splice(0, lines.findIndex((line) => !fits(line)) >>> 0);

/** Build a list; lines indented further become lists in its items. */
function list(lines) {
  const [, indent, number] = ITEM.exec(lines[0]);
  const items = [];
  while (lines.length) {
    const item = h("li", {}, inline(ITEM.exec(lines.shift())[3]));
    const inner = take(lines, (line) => ITEM.exec(line)[1].length > indent.length);
    if (inner.length) item.append(list(inner));
    items.push(item);
  }
  return number ? h("ol", { start: Number(number) }, items) : h("ul", {}, items);
}

/** Take the quotation at the front; after `>>>`, it is all that is left. */
function takeQuote(lines) {
  if (lines[0].startsWith(">>> ")) return lines.splice(0).join("\n").slice(4);
  const quoted = take(lines, (line) => QUOTE.test(line));
  return quoted.map((line) => line.replace(QUOTE, "")).join("\n");
}

/** Take the list at the front: items of the same kind, and those indented further. */
function takeList(lines) {
  const [, indent, number] = ITEM.exec(lines[0]);
  return take(lines, (line) => {
    const item = ITEM.exec(line);
    return item && (item[1].length > indent.length || !item[2] === !number);
  });
}

/** Build the node of a line that is a heading or subtext, and take it; null for any other. */
function takeLine(lines) {
  for (const [pattern, make] of LINES) {
    const match = pattern.exec(lines[0]);
    if (!match) continue;
    lines.shift();
    return make(match);
  }
  return null;
}

function takeBlock(lines) {
  if (QUOTE.test(lines[0])) return h("blockquote", {}, blocks(takeQuote(lines)));
  if (ITEM.test(lines[0])) return list(takeList(lines));
  const line = takeLine(lines);
  if (line) return line;
  const isPlain = (each) => !BLOCKS.some((pattern) => pattern.test(each));
  const plain = [lines.shift(), ...take(lines, isPlain)];
  return h("div", { className: "text" }, inline(plain.join("\n")));
}

function blocks(text) {
  const lines = text.split("\n");
  const out = [];
  while (lines.length) out.push(takeBlock(lines));
  return out;
}

/** Build the nodes of a message's text. */
export function markdown(text) {
  // Every second part is what the pattern has caught: code.
  const parts = text.split(/```(?:\w*\n)?([\s\S]+?)\n?```\n?/);
  return parts.flatMap((part, index) => {
    if (index % 2) return [h("pre", { tabIndex: 0 }, h("code", {}, part))];
    return part.trim() ? blocks(part.replace(/\n$/, "")) : [];
  });
}

/** A message's text on one line, for references: without small print, unless it has nothing else. */
export function plainText(text) {
  const all = markdown(text);
  const large = all.filter((block) => !block.matches(".subtext"));
  const shown = large.length ? large : all;
  for (const block of shown) {
    for (const inner of block.querySelectorAll("li, blockquote > *")) inner.prepend(" ");
  }
  return shown.map((block) => block.textContent).join(" ").replace(/\s+/g, " ").trim();
}

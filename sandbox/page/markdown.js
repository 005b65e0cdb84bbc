/** Discord's markdown as DOM nodes. */

import { h } from "/page/dom.js";
import { findName, now, findChannel, roleName, THREAD } from "/page/guild.js";

const mention = (text) => h("span", { className: "mention" }, text);
const link = (url, ...words) => h("a", { href: url, target: "_blank", rel: "noreferrer noopener", title: url }, ...words);
const TIMES = {
  t: { timeStyle: "short" }, T: { timeStyle: "medium" }, d: { dateStyle: "short" }, D: { dateStyle: "long" },
  f: { dateStyle: "long", timeStyle: "short" }, F: { dateStyle: "full", timeStyle: "short" },
};
const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function relative(seconds) {
  const [unit, size] = UNITS.find((one) => Math.abs(seconds) >= one[1]) ?? UNITS.at(-1);
  return new Intl.RelativeTimeFormat(undefined, { numeric: "auto" }).format(Math.round(seconds / size), unit);
}

function time(at, style = "f") {
  const date = new Date(at * 1000);
  if (Number.isNaN(date.valueOf())) return "Invalid date";
  const words = style === "R" ? relative((date - now()) / 1000) : date.toLocaleString([], TIMES[style]);
  return h("time", { className: "stamp", dateTime: date.toISOString(), title: date.toLocaleString([], TIMES.F) }, words);
}

function spoiler(words) {
  const open = (event) => {
    if (event.key && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    element.classList.add("open");
    ["role", "aria-label", "tabindex"].forEach((name) => element.removeAttribute(name));
  };
  const element = h("span", { className: "spoiler", role: "button", tabIndex: 0, ariaLabel: "Spoiler: press to reveal", onclick: open, onkeydown: open }, h("span", {}, words));
  return element;
}

function channel(id) {
  const found = findChannel(id);
  return found ? h("a", { className: "mention", href: `#${found.type === THREAD ? id : found.name}`, "data-channel": id }, `#${found.name}`) : mention("#unknown");
}

/** The earliest match wins; of two at one place, the first rule. */
const INLINE = [
  [/\\([^\w\s])/, (m) => m[1]],
  [/``(.+?)``|`([^`\n]+)`/, (m) => h("code", {}, m[1] ?? m[2])],
  [/<@!?(\d+)>/, (m) => mention(`@${findName(m[1])}`)],
  [/<@&(\d+)>/, (m) => mention(`@${roleName(m[1])}`)],
  [/<#(\d+)>/, (m) => channel(m[1])],
  [/<\/([^:>\n]+):\d+>/, (m) => mention(`/${m[1]}`)],
  [/@(everyone|here)\b/, (m) => mention(m[0])],
  [/<a?(:\w+:)\d+>/, (m) => m[1]],
  [/<t:(-?\d{1,13})(?::([tTdDfFR]))?>/, (m) => time(m[1], m[2])],
  [/\[([^\]\n]+)\]\(<?(https?:[^\s)>]+)>?\)/, (m) => link(m[2], ...inline(m[1]))],
  [/<(https?:\/\/[^\s<>]+)>|https?:\/\/[^\s<>]*[^\s<>.,:;"'!?)\]]/, (m) => link(m[1] ?? m[0], m[1] ?? m[0])],
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
    const found = INLINE.map(([pattern, make]) => ({ match: pattern.exec(rest), make })).filter((one) => one.match);
    const first = found.reduce((best, one) => (best && best.match.index <= one.match.index ? best : one), null);
    if (!first) return [...out, rest];
    out.push(rest.slice(0, first.match.index), first.make(first.match));
    rest = rest.slice(first.match.index + first.match[0].length);
  }
  return out;
}

const LINES = [
  [/^-# (.+)$/, (m) => h("small", { className: "subtext" }, inline(m[1]))],
  [/^(#{1,3}) (.+)$/, (m) => h(`h${m[1].length + 2}`, {}, inline(m[2]))],
];
const QUOTE = /^> ?/, ITEM = /^( *)(?:[-*]|(\d+)\.) +(.+)$/;

/** Take lines from the front while they fit. */
const take = (lines, fits) => lines.splice(0, lines.findIndex((line) => !fits(line)) >>> 0);

/** Build a list; lines indented further become lists in its items. */
function list(lines) {
  const [, indent, number] = ITEM.exec(lines[0]), items = [];
  while (lines.length) {
    const item = h("li", {}, inline(ITEM.exec(lines.shift())[3]));
    const inner = take(lines, (line) => ITEM.exec(line)[1].length > indent.length);
    if (inner.length) item.append(list(inner));
    items.push(item);
  }
  return number ? h("ol", { start: Number(number) }, items) : h("ul", {}, items);
}

function blocks(text) {
  const lines = text.split("\n"), out = [];
  while (lines.length) {
    const line = LINES.map(([pattern, make]) => ({ match: pattern.exec(lines[0]), make })).find((one) => one.match);
    if (lines[0].startsWith(">>> ")) out.push(h("blockquote", {}, blocks(lines.splice(0).join("\n").slice(4))));
    else if (QUOTE.test(lines[0])) out.push(h("blockquote", {}, blocks(take(lines, (one) => QUOTE.test(one)).map((one) => one.replace(QUOTE, "")).join("\n"))));
    else if (ITEM.test(lines[0])) {
      const [, indent, number] = ITEM.exec(lines[0]);
      out.push(list(take(lines, (one) => { const m = ITEM.exec(one); return m && (m[1].length > indent.length || !m[2] === !number); })));
    }
    else if (line) { lines.shift(); out.push(line.make(line.match)); }
    else {
      const plain = [lines.shift(), ...take(lines, (one) => ![QUOTE, ITEM, ...LINES.map(([pattern]) => pattern)].some((pattern) => pattern.test(one)))];
      out.push(h("div", { className: "text" }, inline(plain.join("\n"))));
    }
  }
  return out;
}

/** Build the nodes of a message's text. */
export function markdown(text) {
  return text.split(/```(?:\w*\n)?([\s\S]+?)\n?```\n?/).flatMap((part, index) =>
    index % 2 ? [h("pre", { tabIndex: 0 }, h("code", {}, part))] : part.trim() ? blocks(part.replace(/\n$/, "")) : []);
}

/** A message's text on one line, for references and screen readers. */
export const plainText = (text) => h("div", {}, ...markdown(text)).textContent.replace(/\s+/g, " ").trim();

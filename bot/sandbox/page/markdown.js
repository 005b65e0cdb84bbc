/** The part of Discord's markdown that people and bots write, as DOM nodes. */

import { findName, state } from "/page/api.js";
import { h } from "/page/dom.js";

const mention = (text) => h("span", { className: "mention" }, text);
const named = (list, id) => list.find((one) => one.id === id)?.name ?? "unknown";

/** The earliest match wins; of two at one place, the first rule. */
const INLINE = [
  [/\\([\\*_~`|>#[\]()-])/, (m) => m[1]],
  [/``(.+?)``|`([^`\n]+)`/, (m) => h("code", {}, m[1] ?? m[2])],
  [/<@!?(\d+)>/, (m) => mention(`@${findName(m[1])}`)],
  [/<@&(\d+)>/, (m) => mention(`@${named(state.roles, m[1])}`)],
  [/<#(\d+)>/, (m) => mention(`#${named(state.channels, m[1])}`)],
  [/@(everyone|here)\b/, (m) => mention(m[0])],
  [/<t:(\d+)(?::\w)?>/, (m) => h("time", {}, new Date(m[1] * 1000).toLocaleString())],
  [/https?:\/\/[^\s<>()]+/, (m) => h("span", { className: "link" }, m[0])],
  [/\[([^\]\n]+)\]\(<?(https?:[^\s)>]+)>?\)/, (m) => h("span", { className: "link", title: m[2] }, m[1])],
  [/\*\*\*(.+?)\*\*\*/s, (m) => h("strong", {}, h("em", {}, inline(m[1])))],
  [/\*\*(.+?)\*\*/s, (m) => h("strong", {}, inline(m[1]))],
  [/__(.+?)__/s, (m) => h("u", {}, inline(m[1]))],
  [/~~(.+?)~~/s, (m) => h("s", {}, inline(m[1]))],
  [/\*(?!\s)([^*]+?)\*/s, (m) => h("em", {}, inline(m[1]))],
  [/(?<!\w)_(?!\s)([^_]+?)_(?!\w)/s, (m) => h("em", {}, inline(m[1]))],
];

function inline(text) {
  let first = null;
  for (const [pattern, make] of INLINE) {
    const match = pattern.exec(text);
    if (match && (!first || match.index < first.match.index)) first = { match, make };
  }
  if (!first) return text ? [text] : [];
  const { match, make } = first;
  return [text.slice(0, match.index), make(match), ...inline(text.slice(match.index + match[0].length))].filter(Boolean);
}

const BLOCKS = [
  [/^-# (.+)$/, (m) => h("small", { className: "subtext" }, inline(m[1]))],
  [/^(#{1,3}) (.+)$/, (m) => h("div", { className: `heading h${m[1].length}` }, inline(m[2]))],
  [/^> ?(.*)$/, (m) => h("blockquote", {}, inline(m[1]))],
  [/^(\s*)[-*] (.+)$/, (m) => h("div", { className: "item" }, inline(m[2]))],
];

function lines(text) {
  const out = [];
  let plain = [];
  const flush = () => { if (plain.length) out.push(h("div", { className: "text" }, inline(plain.join("\n")))); plain = []; };
  for (const line of text.split("\n")) {
    const block = BLOCKS.map(([pattern, make]) => [pattern.exec(line), make]).find(([match]) => match);
    if (!block) { plain.push(line); continue; }
    flush();
    out.push(block[1](block[0]));
  }
  flush();
  return out;
}

/** Nodes for a message's text. */
export function markdown(text) {
  return text.split(/```(?:\w*\n)?([\s\S]+?)\n?```\n?/).flatMap((part, index) =>
    index % 2 ? [h("pre", { tabIndex: 0 }, h("code", {}, part))] : part.trim() ? lines(part.replace(/\n$/, "")) : []);
}

/** Look-ups in the guild: names, avatars and colours of members and channels, permissions, and mentions. */

import { state } from "/page/api.js";
import { h } from "/page/dom.js";

export const TEXT = 0, DIRECT = 1, THREAD = 11;
export const SEND = 11n, MANAGE_MESSAGES = 13n, ATTACH = 15n, CREATE_THREADS = 35n, SEND_IN_THREADS = 38n;
const ADMINISTRATOR = 3n, COMMON_ROLE_POSITION = 1, DISCORD_EPOCH = 1420070400000;

/** The sandbox's time, which the bench can advance. */
export const now = () => Date.now() + (state.controls.clock_ahead_s ?? 0) * 1000;
/** Ids grow with time; their length grows too, so text alone does not order them. */
export const isLater = (a, b) => BigInt(a) > BigInt(b);
export const idAt = (time) => String(BigInt(Math.max(0, Date.parse(time) - DISCORD_EPOCH)) << 22n);

export const userName = (user) => user.global_name ?? user.username;
export const users = () => [...state.people.map((person) => person.user), state.bot];
export const person = (id) => state.people.find((one) => one.user.id === id);
export const findName = (id) => { const found = users().find((user) => user.id === id); return found ? userName(found) : "unknown-user"; };
export const findChannel = (id = state.channel) => state.channels.find((one) => one.id === id);
export const channelName = ({ type, name, recipients }) =>
  (type === DIRECT ? `@${userName(recipients?.[0] ?? state.bot)}` : type === THREAD ? `“${name}”` : `#${name}`);
export const roleName = (id) => state.roles.find((role) => role.id === id)?.name ?? "unknown-role";
export const colour = (number) => `#${number.toString(16).padStart(6, "0")}`;

/** A member's roles, highest first, without those that everybody has. */
export function rolesOf(id) {
  const held = person(id)?.roles ?? [];
  return state.roles.filter((role) => held.includes(role.id) && role.position > COMMON_ROLE_POSITION).reverse();
}

/** A member's roles as text. */
export function roleText(member) {
  return [...(member.owner ? ["owner"] : []), ...rolesOf(member.user.id).map((role) => role.name)].join(", ") || "member";
}

/** Give an element the colour of the person's highest coloured role. */
export function applyRoleColour(element, id) {
  const role = rolesOf(id).find((one) => one.color);
  if (role) element.style.setProperty("--role", colour(role.color));
  return element;
}

export function avatar(user, className = "avatar") {
  const initial = h("span", { className, ariaHidden: "true" }, userName(user).slice(0, 1).toUpperCase());
  const hue = [...userName(user)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  initial.style.setProperty("--hue", String(hue));
  if (!user.avatar) return initial;
  const image = h("img", { className, alt: "", src: `/cdn/avatars/${user.id}/${user.avatar}.png` });
  image.onerror = () => image.replaceWith(initial);
  return image;
}

/** Check a permission of the acting member, to hide actions; the sandbox enforces it. */
export function may(bit, channel = findChannel()) {
  const me = person(state.me);
  if (me.owner || channel?.type === DIRECT) return true;
  const mine = state.roles.filter((role) => role.position === 0 || me.roles.includes(role.id));
  const has = (bits, one) => Boolean((BigInt(bits) >> one) & 1n);
  const rules = (channel?.type === THREAD ? findChannel(channel.parent_id) : channel)?.permission_overwrites ?? [];
  const denied = rules.some((rule) => has(rule.deny, bit) && mine.some((role) => role.id === rule.id));
  return mine.some((role) => has(role.permissions, ADMINISTRATOR) || (has(role.permissions, bit) && !denied));
}

/** The commands of a type that can be used in the open channel. */
export function availableCommands(type) {
  const here = findChannel(), context = here?.type === DIRECT ? 1 : 0;
  return state.commands.filter((one) => one.type === type && (!one.contexts || one.contexts.includes(context)) && (!one.nsfw || here?.nsfw));
}

/** Check whether a message mentions the acting member. */
export function mentionsMember(message) {
  if (message.author.id === state.me) return false;
  const mine = person(state.me)?.roles ?? [];
  return Boolean(message.mention_everyone || message.mentions.some((user) => user.id === state.me)
    || message.mention_roles?.some((id) => mine.includes(id)));
}

/** Pairs of typed name and mention. Of a role and a user with the same name, the user wins by coming last. */
const mentionPairs = () => [
  ...state.roles.filter((role) => role.position > COMMON_ROLE_POSITION).map((role) => [`@${role.name}`, `<@&${role.id}>`]),
  ...users().map((user) => [`@${userName(user)}`, `<@${user.id}>`]),
  ...state.channels.filter((one) => one.type !== DIRECT).map((one) => [`#${one.name}`, `<#${one.id}>`]),
];

/** Convert typed names into mentions. `meant` holds the pairs that were chosen from suggestions. */
export function encode(text, meant = []) {
  const known = new Map([...mentionPairs(), ...meant].sort((a, b) => a[0].length - b[0].length)), names = [...known.keys()].reverse();
  const pattern = new RegExp(`(?<!\\w)(?:${names.map((name) => RegExp.escape?.(name) ?? name.replace(/[^\w\s]/g, "\\$&")).join("|")})(?!\\w)`, "g");
  return text.replace(pattern, (name) => known.get(name));
}

/** The pairs of name and mention in a message, for `meant` of `encode`. */
export const mentionsIn = (text) => mentionPairs().filter(([, mention]) => text.includes(mention));
export const decode = (text) => mentionPairs().reduce((words, [name, mention]) => words.replaceAll(mention, name), text.replaceAll("<@!", "<@"));

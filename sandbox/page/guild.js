/**
 * Look-ups in the guild: names, avatars and colours of members and channels, permissions, and
 * mentions.
 */

import { state } from "/page/api.js";
import { h } from "/page/dom.js";

// Types of channels
export const TEXT = 0;
export const DIRECT = 1;
export const VOICE = 2;
export const THREAD = 11;
export const STAGE = 13;
export const FORUM = 15;
/** The signs of a guild's channels in lists; of a text channel, the one before its name, too. */
export const CHANNEL_SIGNS = {
  [TEXT]: "#", [VOICE]: "🔊", [STAGE]: "🎤", [THREAD]: "⤷", [FORUM]: "🗨",
};
// Bits of permissions; there are more of them than a number has bits.
export const SEND = 11n;
export const MANAGE_MESSAGES = 13n;
export const ATTACH = 15n;
export const CREATE_THREADS = 35n;
export const SEND_IN_THREADS = 38n;
export const SEND_POLLS = 49n;
const ADMINISTRATOR = 3n;
const COMMON_ROLE_POSITION = 1;
const DISCORD_EPOCH = 1420070400000;

/** The sandbox's time, which the bench can advance. */
export const now = () => Date.now() + (state.controls.clock_ahead_s ?? 0) * 1000;
/** Ids grow with time; their length grows too, so text alone does not order them. */
export const isLater = (a, b) => BigInt(a) > BigInt(b);
export const idAt = (time) => String(BigInt(Math.max(0, Date.parse(time) - DISCORD_EPOCH)) << 22n);

export const userName = (user) => user.global_name ?? user.username;
/**
 * A user as the open channel shows them: in the guild's channels, the bot may have a name and a
 * picture of its own.
 */
export function shownUser(user) {
  if (user.id !== state.bot.id || findChannel()?.type === DIRECT) return user;
  const { nick, avatar: picture } = state.bot_member;
  return { ...user, global_name: nick, guild_avatar: picture };
}
export const users = () => [...state.people.map((person) => person.user), shownUser(state.bot)];
export const person = (id) => state.people.find((one) => one.user.id === id);
export function findName(id) {
  const user = users().find((each) => each.id === id);
  return user ? userName(user) : "unknown-user";
}
export const findChannel = (id = state.channel) => state.channels.find((one) => one.id === id);
export function channelName({ type, name, recipients }) {
  if (type === DIRECT) return `@${userName(recipients?.[0] ?? state.bot)}`;
  if (type === VOICE || type === STAGE) return `${CHANNEL_SIGNS[type]} ${name}`;
  return type === THREAD ? `“${name}”` : `#${name}`;
}
export const roleName = (id) => state.roles.find((role) => role.id === id)?.name ?? "unknown-role";
export const colour = (number) => `#${number.toString(16).padStart(6, "0")}`;

/** A member's roles, highest first, without those that everybody has. */
export function rolesOf(id) {
  const held = person(id)?.roles ?? [];
  const own = state.roles.filter((role) => held.includes(role.id));
  return own.filter((role) => role.position > COMMON_ROLE_POSITION).reverse();
}

/** A member's roles as text. */
export function roleText(member) {
  const names = rolesOf(member.user.id).map((role) => role.name);
  if (member.owner) names.unshift("owner");
  return names.join(", ") || "member";
}

/** Give an element the colour of the person's highest coloured role. */
export function applyRoleColour(element, id) {
  const role = rolesOf(id).find((one) => one.color);
  if (role) element.style.setProperty("--role", colour(role.color));
  return element;
}

export function avatar(user, className = "avatar") {
  const name = userName(user);
  const initial = h("span", { className, ariaHidden: "true" }, name.slice(0, 1).toUpperCase());
  let hue = 7; // the same for a name on every page
  for (const letter of name) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  initial.style.setProperty("--hue", String(hue));
  let src = user.avatar && `/cdn/avatars/${user.id}/${user.avatar}.png`;
  if (user.guild_avatar) {
    src = `/cdn/guilds/${state.guild_id}/users/${user.id}/avatars/${user.guild_avatar}.png`;
  }
  if (!src) return initial;
  const image = h("img", { className, alt: "", src });
  image.onerror = () => image.replaceWith(initial);
  return image;
}

/** Check a permission of the acting member, to hide actions; the sandbox enforces it. */
export function may(bit, channel = findChannel()) {
  const me = person(state.me);
  if (me.owner || channel?.type === DIRECT) return true;
  const mine = state.roles.filter((role) => role.position === 0 || me.roles.includes(role.id));
  const has = (bits, wanted) => Boolean((BigInt(bits) >> wanted) & 1n);
  if (mine.some((role) => has(role.permissions, ADMINISTRATOR))) return true;
  // A thread has the rules of its channel.
  const ruled = channel?.type === THREAD ? findChannel(channel.parent_id) : channel;
  const rules = (ruled?.permission_overwrites ?? []).filter((rule) => has(rule.deny, bit));
  if (rules.some((rule) => mine.some((role) => role.id === rule.id))) return false;
  return mine.some((role) => has(role.permissions, bit));
}

/** The commands of a type that can be used in the open channel, in the acting member's language. */
export function availableCommands(type) {
  const here = findChannel();
  const context = here?.type === DIRECT ? 1 : 0;
  const usable = state.commands.filter((command) => {
    if (command.type !== type || (command.nsfw && !here?.nsfw)) return false;
    return !command.contexts || command.contexts.includes(context);
  });
  return usable.map(localised);
}

/**
 * A command, option or choice with its description in the acting member's language, and a `label`:
 * what its name is in that language. The bot's own words stand for those that it does not translate.
 */
export function localised(part) {
  const locale = person(state.me)?.locale;
  const shown = {
    ...part,
    label: part.name_localizations?.[locale] ?? part.name,
    description: part.description_localizations?.[locale] ?? part.description,
  };
  if (part.options) shown.options = part.options.map(localised);
  if (part.choices) shown.choices = part.choices.map(localised);
  return shown;
}

/** Check whether a message mentions the acting member. */
export function mentionsMember(message) {
  if (message.author.id === state.me) return false;
  if (message.mention_everyone) return true;
  if (message.mentions.some((user) => user.id === state.me)) return true;
  const mine = person(state.me)?.roles ?? [];
  return Boolean(message.mention_roles?.some((id) => mine.includes(id)));
}

/**
 * Pairs of typed name and mention. Of a role and a user with the same name, the user wins by coming
 * last.
 */
function mentionPairs() {
  const pairs = [];
  for (const role of state.roles) {
    if (role.position > COMMON_ROLE_POSITION) pairs.push([`@${role.name}`, `<@&${role.id}>`]);
  }
  for (const user of users()) pairs.push([`@${userName(user)}`, `<@${user.id}>`]);
  for (const channel of state.channels) {
    if (channel.type !== DIRECT) pairs.push([`#${channel.name}`, `<#${channel.id}>`]);
  }
  return pairs;
}

/** Escape a name for a regular expression, also in browsers without `RegExp.escape`. */
function escaped(name) {
  return RegExp.escape?.(name) ?? name.replace(/[^\w\s]/g, "\\$&");
}

/** Convert typed names into mentions. `meant` holds the pairs that were chosen from suggestions. */
export function encode(text, meant = []) {
  const pairs = [...mentionPairs(), ...meant].sort((a, b) => a[0].length - b[0].length);
  const known = new Map(pairs);
  // The longest first: the name of one member may begin with another's.
  const names = [...known.keys()].reverse().map(escaped);
  const pattern = new RegExp(`(?<!\\w)(?:${names.join("|")})(?!\\w)`, "g");
  return text.replace(pattern, (name) => known.get(name));
}

/** The pairs of name and mention in a message, for `meant` of `encode`. */
export const mentionsIn = (text) => mentionPairs().filter(([, mention]) => text.includes(mention));

/** Convert mentions into the names that were typed. */
export function decode(text) {
  let words = text.replaceAll("<@!", "<@"); // an older form of the same
  for (const [name, mention] of mentionPairs()) words = words.replaceAll(mention, name);
  return words;
}

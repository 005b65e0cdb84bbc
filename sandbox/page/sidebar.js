/** The left sidebar: channels with unread marks, direct messages, and the acting member. */

import { act, state } from "/page/api.js";
import { $, h, openMenu } from "/page/dom.js";
import {
  applyRoleColour, avatar, CHANNEL_SIGNS, channelName, DIRECT, findChannel, FORUM, person, roleText,
  STAGE, THREAD, userName, VOICE,
} from "/page/guild.js";
import { showBench, showsBench } from "/page/side_panel.js";
import { mentionCount, isUnread } from "/page/unread.js";

/** A channel's threads: those that are open, and the one that is read. */
function threadsOf(id) {
  const threads = state.channels.filter(
    (channel) => channel.type === THREAD && channel.parent_id === id,
  );
  return threads.filter(
    (thread) => !thread.thread_metadata?.archived || thread.id === state.channel,
  );
}

/** All channels, threads and posts in the order of the sidebar. */
function entries() {
  const listed = [];
  for (const channel of state.channels) {
    const isListed = channel.type !== THREAD && channel.type !== DIRECT;
    if (isListed) listed.push(channel, ...threadsOf(channel.id));
  }
  listed.push(...state.channels.filter((channel) => channel.type === DIRECT));
  return listed;
}

/** Those of them that have messages. */
export const listedChannels = () => entries().filter((channel) => channel.type !== FORUM);

function channelMark(channel) {
  if (channel.type === DIRECT) return avatar(state.bot, "avatar tiny");
  return h("span", { className: "hash", ariaHidden: "true" }, CHANNEL_SIGNS[channel.type]);
}

/** What a channel's sign says, for those who do not see it. */
const KINDS = { [VOICE]: ", voice channel", [STAGE]: ", stage", [FORUM]: ", forum: create a post" };

function mentionBadge(count) {
  const words = h("span", { className: "unseen" }, " mentions");
  return h("span", { className: "badge" }, String(count), words);
}

function entry(channel, open) {
  const isOpen = channel.id === state.channel;
  const unread = !isOpen && isUnread(channel);
  const mentions = isOpen ? 0 : mentionCount(channel.id);
  const button = h(
    "button",
    {
      type: "button",
      className: "place",
      "data-channel": channel.id,
      "aria-current": isOpen ? "page" : null,
      onclick: () => open(channel.id),
    },
    channelMark(channel),
    h("span", { className: "label" }, channel.name ?? userName(state.bot)),
    KINDS[channel.type] && h("span", { className: "unseen" }, KINDS[channel.type]),
    channel.nsfw && h("span", { className: "grown", title: "Age-restricted channel" }, "18+"),
    unread && h("span", { className: "unseen" }, ", unread"),
    mentions > 0 && mentionBadge(mentions),
  );
  button.classList.toggle("unread", unread);
  button.classList.toggle("thread", channel.type === THREAD);
  return button;
}

/** Open another guild, as the same member where that guild has them. */
export const openGuild = (id) => { location.href = `?guild=${id}`; };

function guildButton() {
  const props = { type: "button", className: "guilds", "aria-haspopup": "menu" };
  const arrow = h("span", { ariaHidden: "true" }, " ▾");
  const button = h("button", props, state.guild, arrow);
  button.onclick = () => {
    const items = state.guilds.map((guild) => ({
      label: guild.name,
      checked: guild.id === state.guild_id,
      run: () => openGuild(guild.id),
    }));
    openMenu([{ title: "Guilds", items }], button, { label: "Guilds" });
  };
  return button;
}

export function drawSidebar({ open, openDirect }) {
  drawChannels(open, openDirect);
  $("links").replaceChildren(...state.links.map(([label, href]) =>
    h("a", { className: "button secondary", href }, label)));
  $("links").hidden = !state.links.length;
  $("guild").replaceChildren(state.guilds.length > 1 ? guildButton() : state.guild);
  drawHead(findChannel());
}

/** Draw the list of channels, and keep the focus on the same one. */
function drawChannels(open, openDirect) {
  const active = document.activeElement;
  const focused = active?.closest("#channels") && active.dataset.channel;
  const channels = [];
  const direct = [];
  for (const channel of entries()) {
    const place = channel.type === DIRECT ? direct : channels;
    place.push(entry(channel, open));
  }
  if (!direct.length) {
    const label = h("span", { className: "label" }, userName(state.bot));
    const props = { type: "button", className: "place", onclick: openDirect };
    direct.push(h("button", props, avatar(state.bot, "avatar tiny"), label));
  }
  $("channels").replaceChildren(
    h("h3", {}, "Channels"), ...channels, h("h3", {}, "Direct messages"), ...direct,
  );
  if (focused) $("channels").querySelector(`[data-channel="${focused}"]`)?.focus();
}

const NO_VOICE = "The text chat of a voice channel. There is no voice here.";

/** The topic above the messages; empty if there is none. */
function topicOf(channel) {
  if (channel.topic !== null && channel.topic !== undefined) return channel.topic;
  if (channel.type === VOICE || channel.type === STAGE) return NO_VOICE;
  return channel.type === DIRECT ? "Direct messages: only the two of you see them." : "";
}

/** Draw what names the open channel: the line above the messages, and the window's title. */
function drawHead(channel) {
  let room = channelName(channel);
  if (channel.type === THREAD) {
    room = `${channelName(findChannel(channel.parent_id))} › ${channel.name}`;
  }
  $("room").textContent = room;
  $("topic").textContent = topicOf(channel);
  $("topic").hidden = !$("topic").textContent;
  const others = listedChannels().filter((each) => each.id !== state.channel);
  $("menu").classList.toggle("unread", others.some(isUnread));
  let mentions = 0;
  for (const each of listedChannels()) mentions += mentionCount(each.id);
  const count = mentions ? `(${mentions}) ` : "";
  document.title = `${count}${channelName(channel)} · ${state.guild}`;
}

/** Locales by member that the sandbox has been asked for and has yet to take. */
const askedLocales = new Map();

/** Set the locale of a member's client; the menu shows it at once, unless it is refused. */
async function speak(member, locale) {
  askedLocales.set(member, locale);
  try {
    await act("language", { locale });
    person(member).locale = locale;
  } finally {
    askedLocales.delete(member);
  }
}

function colouredName(user) {
  return applyRoleColour(h("b", { className: "name" }, userName(user)), user.id);
}

function developerTools() {
  return {
    label: "Developer tools",
    hint: "the bench: disconnects, delays, refused requests",
    checked: showsBench(),
    run: () => showBench(!showsBench()),
  };
}

/** Draw the acting member, with a menu to switch member or language. */
export function drawActing(actAs) {
  const me = person(state.me);
  const button = $("acting");
  const prefix = h("span", { className: "unseen" }, "Acting as ");
  const role = h("small", {}, roleText(me));
  button.replaceChildren(
    avatar(me.user),
    h("span", { className: "who" }, prefix, colouredName(me.user), role),
    h("span", { ariaHidden: "true" }, "⇅"),
  );
  button.onclick = () => {
    const people = state.people.map((member) => ({
      face: avatar(member.user),
      label: colouredName(member.user),
      hint: roleText(member),
      checked: member.user.id === state.me,
      run: () => actAs(member.user.id),
    }));
    // What is known of the member may have been loaded anew since this was drawn.
    const chosen = askedLocales.get(state.me) ?? person(state.me).locale;
    const languages = Object.entries(state.languages).map(([locale, label]) => ({
      label,
      checked: locale === chosen,
      run: () => speak(state.me, locale),
    }));
    const groups = [
      { title: "Act as", items: people },
      { title: `Language of ${userName(me.user)}’s Discord`, items: languages },
      { title: "For developers of bots", items: [developerTools()] },
    ];
    openMenu(groups, button, { label: "Act as" });
  };
}

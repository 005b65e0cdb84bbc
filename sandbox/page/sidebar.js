/** The left sidebar: channels with unread marks, direct messages, and the acting member. */

import { act, state } from "/page/api.js";
import { $, h, openMenu } from "/page/dom.js";
import { avatar, DIRECT, person, findChannel, channelName, roleText, TEXT, THREAD, applyRoleColour, userName } from "/page/guild.js";
import { mentionCount, isUnread } from "/page/unread.js";

const threadsOf = (id) => state.channels.filter((one) => one.type === THREAD && one.parent_id === id
  && (!one.thread_metadata?.archived || one.id === state.channel));

/** All channels and threads in the order of the sidebar. */
export const listedChannels = () => [
  ...state.channels.filter((one) => one.type === TEXT).flatMap((one) => [one, ...threadsOf(one.id)]),
  ...state.channels.filter((one) => one.type === DIRECT),
];

function entry(channel, open) {
  const here = channel.id === state.channel, unread = !here && isUnread(channel), calls = here ? 0 : mentionCount(channel.id);
  const mark = channel.type === DIRECT ? avatar(state.bot, "avatar tiny") : h("span", { className: "hash", ariaHidden: "true" }, channel.type === THREAD ? "⤷" : "#");
  return h("button", {
    type: "button", className: `place${unread ? " unread" : ""}${channel.type === THREAD ? " thread" : ""}`, "data-channel": channel.id,
    "aria-current": here ? "page" : null, onclick: () => open(channel.id),
  }, mark, h("span", { className: "label" }, channel.name ?? userName(state.bot)),
  channel.nsfw && h("span", { className: "grown", title: "Age-restricted channel" }, "18+"),
  unread && h("span", { className: "unseen" }, ", unread"),
  calls > 0 && h("span", { className: "badge" }, String(calls), h("span", { className: "unseen" }, " mentions")));
}

/** Open another guild, as the same member where that guild has them. */
export const openGuild = (id) => { location.href = `?guild=${id}`; };

function guildButton() {
  const button = h("button", { type: "button", className: "guilds", "aria-haspopup": "menu" }, state.guild, h("span", { ariaHidden: "true" }, " ▾"));
  button.onclick = () => openMenu([{ title: "Guilds", items: state.guilds.map((one) => ({
    label: one.name, checked: one.id === state.guild_id, run: () => openGuild(one.id),
  })) }], button, { label: "Guilds" });
  return button;
}

export function drawSidebar({ open, openDirect }) {
  const focused = document.activeElement?.closest("#channels") && document.activeElement.dataset.channel;
  const direct = listedChannels().filter((one) => one.type === DIRECT);
  const dm = h("button", { type: "button", className: "place", onclick: openDirect }, avatar(state.bot, "avatar tiny"), h("span", { className: "label" }, userName(state.bot)));
  $("channels").replaceChildren(
    h("h3", {}, "Channels"), ...listedChannels().filter((one) => one.type !== DIRECT).map((one) => entry(one, open)),
    h("h3", {}, "Direct messages"), ...(direct.length ? direct.map((one) => entry(one, open)) : [dm]));
  if (focused) $("channels").querySelector(`[data-channel="${focused}"]`)?.focus();
  const here = findChannel(), calls = listedChannels().reduce((sum, one) => sum + mentionCount(one.id), 0);
  $("links").replaceChildren(...state.links.map(([label, href]) => h("a", { className: "button secondary", href }, label)));
  $("links").hidden = !state.links.length;
  $("guild").replaceChildren(...(state.guilds.length > 1 ? [guildButton()] : [state.guild]));
  $("room").textContent = here.type === THREAD ? `${channelName(findChannel(here.parent_id))} › ${here.name}` : channelName(here);
  $("topic").textContent = here.topic ?? (here.type === DIRECT ? "Direct messages: only the two of you see them." : "");
  $("topic").hidden = !$("topic").textContent;
  $("menu").classList.toggle("unread", listedChannels().some((one) => one.id !== state.channel && isUnread(one)));
  document.title = `${calls ? `(${calls}) ` : ""}${channelName(here)} · ${state.guild}`;
}

/** Set the locale of the member's client. */
const speak = (me, locale) => act("language", { locale }).then(() => { me.locale = locale; });

/** Draw the acting member, with a menu to switch member or language. */
export function drawActing(actAs) {
  const me = person(state.me), button = $("acting"), languages = Object.entries(state.languages);
  button.replaceChildren(avatar(me.user), h("span", { className: "who" }, h("span", { className: "unseen" }, "Acting as "),
    applyRoleColour(h("b", { className: "name" }, userName(me.user)), me.user.id), h("small", {}, roleText(me))), h("span", { ariaHidden: "true" }, "⇅"));
  button.onclick = () => openMenu([{
    title: "Act as", items: state.people.map((one) => ({
      face: avatar(one.user), label: applyRoleColour(h("b", { className: "name" }, userName(one.user)), one.user.id), hint: roleText(one),
      checked: one.user.id === state.me, run: () => actAs(one.user.id),
    })),
  }, {
    title: `Language of ${userName(me.user)}’s Discord`, items: languages.map(([locale, label]) => ({
      label, checked: locale === me.locale, run: () => speak(me, locale),
    })),
  }], button, { label: "Act as" });
}

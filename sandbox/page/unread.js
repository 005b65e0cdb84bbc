/** Read marks of each member, stored in this browser, and unread mentions. */

import { loadMessages, state } from "/page/api.js";
import { idAt, isLater, person, mentionsMember } from "/page/guild.js";

const mentionCounts = new Map(); // unread mentions by channel
// The first guild's marks have no guild in their name.
const key = () => `read:${state.me}${state.guild_id === state.guilds[0]?.id ? "" : `:${state.guild_id}`}`;
const marks = () => JSON.parse(localStorage.getItem(key()) ?? "{}");

/** The last message that the member has read in a channel; messages from before joining count as read. */
export const lastRead = (id) => marks()[id] ?? idAt(person(state.me).joined_at);
export const isUnread = (channel) => Boolean(channel.last_message_id) && isLater(channel.last_message_id, lastRead(channel.id));
export const mentionCount = (id) => mentionCounts.get(id) ?? 0;

/** Mark the channel as read up to this message. */
export function markRead(id, messageId) {
  mentionCounts.delete(id);
  if (!messageId || !isLater(messageId, lastRead(id))) return false;
  const known = Object.entries(marks()).filter(([one]) => state.channels.some((channel) => channel.id === one));
  localStorage.setItem(key(), JSON.stringify({ ...Object.fromEntries(known), [id]: messageId }));
  return true;
}

export function countMention(message) {
  if (mentionsMember(message)) mentionCounts.set(message.channel_id, mentionCount(message.channel_id) + 1);
}

/** Count the mentions that arrived while the page was closed. */
export async function countMentions() {
  mentionCounts.clear();
  await Promise.all(state.channels.filter(isUnread).map(async ({ id }) => {
    const messages = await loadMessages(id);
    // A member who wrote last, in another window or through the sandbox itself, has read the rest.
    if (messages.at(-1)?.author.id === state.me) return markRead(id, messages.at(-1).id);
    const missed = messages.filter((message) => isLater(message.id, lastRead(id)) && mentionsMember(message));
    if (missed.length) mentionCounts.set(id, missed.length);
  }));
}

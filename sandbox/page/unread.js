/** Read marks of each member, stored in this browser, and unread mentions. */

import { loadMessages, state } from "/page/api.js";
import { idAt, isLater, person, mentionsMember } from "/page/guild.js";

const mentionCounts = new Map(); // unread mentions by channel

function key() {
  const mine = `read:${state.me}`;
  // The first guild's marks have no guild in their name.
  return state.guild_id === state.guilds[0]?.id ? mine : `${mine}:${state.guild_id}`;
}

const marks = () => JSON.parse(localStorage.getItem(key()) ?? "{}");

/**
 * The last message that the member has read in a channel; messages from before joining count as
 * read.
 */
export const lastRead = (id) => marks()[id] ?? idAt(person(state.me).joined_at);

export function isUnread({ id, last_message_id: last }) {
  return Boolean(last) && isLater(last, lastRead(id));
}

export const mentionCount = (id) => mentionCounts.get(id) ?? 0;

/** Mark the channel as read up to this message. */
export function markRead(id, messageId) {
  mentionCounts.delete(id);
  if (!messageId || !isLater(messageId, lastRead(id))) return false;
  // Marks of channels that are gone are dropped.
  const isKnown = ([each]) => state.channels.some((channel) => channel.id === each);
  const known = Object.entries(marks()).filter(isKnown);
  localStorage.setItem(key(), JSON.stringify({ ...Object.fromEntries(known), [id]: messageId }));
  return true;
}

export function countMention(message) {
  const { channel_id: id } = message;
  if (mentionsMember(message)) mentionCounts.set(id, mentionCount(id) + 1);
}

/** Count the mentions that arrived while the page was closed. */
export async function countMentions() {
  mentionCounts.clear();
  await Promise.all(state.channels.filter(isUnread).map(countMissed));
}

async function countMissed({ id }) {
  const messages = await loadMessages(id);
  const newest = messages.at(-1);
  // A member who wrote last, in another window or through the sandbox itself, has read the rest.
  if (newest?.author.id === state.me) {
    markRead(id, newest.id);
    return;
  }
  const isMissed = (message) => isLater(message.id, lastRead(id)) && mentionsMember(message);
  const missed = messages.filter(isMissed);
  if (missed.length) mentionCounts.set(id, missed.length);
}

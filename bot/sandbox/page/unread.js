/** What each member has read, kept in this browser; a channel is unread when its last message is later than that. */

import { loadMessages, state } from "/page/api.js";
import { idAt, later, person, pings } from "/page/names.js";

const calls = new Map(); // channel → how many unread messages call the member
const key = () => `read:${state.me}`;
const marks = () => JSON.parse(localStorage.getItem(key()) ?? "{}");

/** The last message that the member has read in the channel; of the time before joining nothing counts as unread. */
export const lastRead = (id) => marks()[id] ?? idAt(person(state.me).joined_at);
export const isUnread = (channel) => Boolean(channel.last_message_id) && later(channel.last_message_id, lastRead(channel.id));
export const callsIn = (id) => calls.get(id) ?? 0;

/** The channel is read up to this message. */
export function markRead(id, messageId) {
  calls.delete(id);
  if (!messageId || !later(messageId, lastRead(id))) return false;
  const known = Object.entries(marks()).filter(([one]) => state.channels.some((channel) => channel.id === one));
  localStorage.setItem(key(), JSON.stringify({ ...Object.fromEntries(known), [id]: messageId }));
  return true;
}

export function countCall(message) {
  if (pings(message)) calls.set(message.channel_id, callsIn(message.channel_id) + 1);
}

/** Count the calls that came while nobody was looking. */
export async function countCalls() {
  calls.clear();
  await Promise.all(state.channels.filter(isUnread).map(async ({ id }) => {
    const messages = await loadMessages(id);
    // A member who wrote last, in another window or through the sandbox itself, has read the rest.
    if (messages.at(-1)?.author.id === state.me) return markRead(id, messages.at(-1).id);
    const missed = messages.filter((message) => later(message.id, lastRead(id)) && pings(message));
    if (missed.length) calls.set(id, missed.length);
  }));
}

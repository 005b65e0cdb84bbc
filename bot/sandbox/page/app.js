/** The page: channels, the acting member, and the conversation as it happens. */

import { act, listen, loadMessages, loadState, state, userName } from "/page/api.js";
import { makeComposer } from "/page/composer.js";
import { h } from "/page/dom.js";
import { draw, regroup } from "/page/message.js";
import { openForm } from "/page/form.js";

const $ = (id) => document.getElementById(id);
const [list, scroller, latest, status] = ["messages", "scroller", "latest", "status"].map($);
const TYPING_MS = 8000, SETTLED_MS = 1500, NEAR_PX = 60;
const items = new Map(), typists = new Map();
let stuck = true, scrolledTo = 0, waiting = null, stopListening = () => {};

const actions = {
  reply: (message) => composer.reply(message),
  dismiss: (message) => remove(message.id),
  async press(message, custom_id, button) {
    button.classList.add("waiting");
    button.ariaBusy = "true";
    try {
      onAnswer(await act("click", { message: { id: message.id }, custom_id }), "This button");
    } catch (error) {
      onError(error);
    }
    button.classList.remove("waiting");
    button.ariaBusy = "false";
  },
};
const composer = makeComposer($("composer"), { onAnswer, onError });

function onAnswer(answer, what) {
  if (answer.type === null) notice(`${what}: The application did not respond.`);
  if (answer.modal) openForm($("form"), answer, onAnswer);
}

function onError(error) {
  notice(error.message || "The sandbox cannot be reached.");
}

/** Something only this page says, in the conversation. */
function notice(text) {
  list.append(h("li", { className: "notice" }, text));
  follow();
}

function follow() {
  if (stuck) scroller.scrollTop = scroller.scrollHeight;
  latest.hidden = stuck;
}

function show(message) {
  const known = items.get(message.id), item = draw(message, actions, known);
  if (!known) {
    items.set(message.id, item);
    list.querySelector(".empty")?.remove();
    const after = [...list.children].findLast((one) => one.message && BigInt(one.message.id) < BigInt(message.id));
    after && after !== list.lastElementChild && list.lastElementChild.message ? after.after(item) : list.append(item);
  }
  regroup(item);
  regroup(item.nextElementSibling);
  follow();
}

function remove(id) {
  const item = items.get(id), next = item?.nextElementSibling;
  items.delete(id);
  item?.remove();
  regroup(next);
}

function onEvent(kind, data) {
  // What happens while the history is on its way is older or newer than it; in order, both come out right.
  if (waiting) return waiting.push([kind, data]);
  if (kind === "commands") return loadState();
  if (data.channel_id !== state.channel) return;
  if (kind === "typing") return typing(userName(data.user));
  if (kind === "delete") return remove(data.id);
  // The bot types under its own name and then speaks as a persona.
  if (kind === "message" && data.author.bot) typists.clear();
  show(data);
  speak(items.get(data.id));
  sayStatus();
}

/** Tell screen readers of a message once: when it has stopped changing, not at every edit of it. */
function speak(item) {
  clearTimeout(item.speaking);
  if (item.spoken) return;
  item.speaking = setTimeout(() => {
    item.spoken = item.isConnected;
    const text = item.querySelector(".content").textContent;
    if (item.spoken) $("spoken").replaceChildren(h("p", {}, `${userName(item.message.author)}: ${text}`));
  }, SETTLED_MS);
}

function typing(name) {
  clearTimeout(typists.get(name));
  typists.set(name, setTimeout(() => { typists.delete(name); sayStatus(); }, TYPING_MS));
  sayStatus();
}

function sayStatus(lost = false) {
  const names = [...typists.keys()];
  status.classList.toggle("lost", lost);
  status.replaceChildren(...(lost ? ["Connection lost. Reconnecting…"] : names.length
    ? [`${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing`, h("i", { className: "dots" })] : []));
}

async function openChannel(id) {
  state.channel = id;
  location.hash = state.channels.find((channel) => channel.id === id).name;
  drawChannels();
  composer.reset();
  typists.clear();
  await loadHistory();
}

async function loadHistory() {
  const channel = state.channel;
  waiting = [];
  const messages = await loadMessages(channel).catch((error) => { onError(error); return []; });
  if (channel !== state.channel) return;
  items.clear();
  list.replaceChildren(messages.length ? "" : h("li", { className: "notice empty" }, "Nothing has been said here yet."));
  stuck = true;
  messages.forEach(show);
  const missed = waiting;
  waiting = null;
  missed.forEach((event) => onEvent(...event));
  sayStatus();
}

function drawChannels() {
  $("channels").replaceChildren(...state.channels.map((channel) => h("button", {
    type: "button", onclick: () => openChannel(channel.id), "aria-current": channel.id === state.channel ? "page" : null,
  }, h("span", { ariaHidden: "true" }, "#"), ` ${channel.name}`)));
  const open = state.channels.find((channel) => channel.id === state.channel);
  $("room").textContent = `# ${open.name}`;
  $("topic").textContent = open.topic ?? "";
  $("guild").textContent = state.guild;
  document.title = `#${open.name} · ${state.guild}`;
}

function drawActing() {
  const label = (person) => {
    const own = state.roles.filter((role) => person.roles.includes(role.id)).slice(1).map((role) => role.name);
    return [userName(person.user), ...(person.owner ? ["owner"] : []), ...own].join(" · ");
  };
  $("acting").replaceChildren(...state.people.map((person) => h("option", { value: person.user.id }, label(person))));
  $("acting").value = state.me;
}

async function start() {
  await loadState();
  drawActing();
  const wanted = decodeURIComponent(location.hash.slice(1));
  state.channel ??= (state.channels.find((channel) => channel.name === wanted) ?? state.channels[0]).id;
  drawChannels();
  composer.reset();
  stopListening();
  stopListening = listen({ onEvent, onOpen: refresh, onLost: () => sayStatus(true) });
}

async function refresh() {
  await loadState();
  drawActing();
  await openChannel(state.channel);
}

$("acting").onchange = (event) => { state.me = event.target.value; start(); };
latest.onclick = () => { stuck = true; follow(); };
scroller.addEventListener("scroll", () => {
  const near = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_PX;
  // Only the reader scrolls up: far from the end without having moved means that something has grown.
  stuck = near || (stuck && scroller.scrollTop >= scrolledTo);
  scrolledTo = scroller.scrollTop;
  latest.hidden = stuck;
}, { passive: true });
// Pictures that load and answers that grow push the end away; the box to write in takes room too.
const sizes = new ResizeObserver(follow);
[list, scroller].forEach((element) => sizes.observe(element));
start().catch(onError);

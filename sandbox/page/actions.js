/** Actions on messages and members: toolbar, menus, keys, and a message's own buttons. */

import { act, state } from "/page/api.js";
import { choose, selectedLabels, defaultValues } from "/page/select_menu.js";
import * as conversation from "/page/conversation.js";
import { $, field, h, afterRelease, openDialog, openMenu, iconButton } from "/page/dom.js";
import { markdown, plainText } from "/page/markdown.js";
import { draw, EPHEMERAL, FIRST_OF_THREAD, USER_MESSAGE_TYPES } from "/page/message.js";
import { allComponents, messageText } from "/page/message_parts.js";
import {
  availableCommands, channelName, CREATE_THREADS, decode, DIRECT, encode, findChannel,
  FORUM, MANAGE_MESSAGES, may, mentionsIn, TEXT, userName, users,
} from "/page/guild.js";

const ON_USER = 2;
const ON_MESSAGE = 3;
const LONG_PRESS_MS = 500;
const AFTER_CLICK_MS = 60;
const NO_ANSWER = "This interaction failed: the application did not respond.";
const MAX_THREAD_NAME = 100;
const MAX_POST_TEXT = 2000;
const SUGGESTED_NAME = 40;
const WORDS = {
  reply: "Reply",
  forward: "Forward",
  edit: "Edit message",
  thread: "Create thread",
  copy: "Copy text",
  delete: "Delete message",
  dismiss: "Dismiss message",
};
const KEYS = {
  r: "reply", e: "edit", t: "thread", c: "copy", Delete: "delete", Backspace: "delete",
};
const ICONS = { reply: "↩", edit: "✎", thread: "⤷" };
const STEPS = { ArrowUp: "previousElementSibling", ArrowDown: "nextElementSibling" };

export function makeActions({ composer, onAnswer, openChannel, actAs }) {
  const list = $("messages");
  const bar = h("div", { className: "toolbar", role: "group", ariaLabel: "Message actions" });
  const onError = (error) => composer.refuse(error.message);

  /** Show an error under a message. */
  function showProblem(item, words) {
    item.article.querySelector(":scope > .problem")?.remove();
    if (words) item.article.append(h("p", { className: "problem", role: "alert" }, words));
  }

  async function interact(item, button, name, body) {
    button.classList.add("waiting");
    button.ariaBusy = "true";
    showProblem(item, "");
    try {
      const answer = await act(name, { message: { id: item.message.id }, ...body });
      onAnswer(answer, () => showProblem(item, NO_ANSWER));
    } catch (error) {
      showProblem(item, error.message);
    }
    button.classList.remove("waiting");
    button.ariaBusy = "false";
  }

  function press(item, button) {
    return interact(item, button, "click", { custom_id: button.dataset.part });
  }

  function select(item, button) {
    const parts = allComponents(item.message.components);
    const part = parts.find((each) => each.custom_id === button.dataset.part);
    choose(part, button, button.values ?? defaultValues(part), (values) => {
      button.values = values;
      const words = selectedLabels(part, values) || part.placeholder || "Make a selection";
      button.firstChild.textContent = words;
      interact(item, button, "select", { custom_id: part.custom_id, values });
    });
  }

  function createThread(item) {
    const input = h("input", { maxLength: MAX_THREAD_NAME, autocomplete: "off" });
    input.value = plainText(messageText(item.message)).slice(0, SUGGESTED_NAME);
    openDialog({
      title: "Create thread",
      submit: "Create",
      fields: [field({ label: "Thread name", input, required: true })],
      async onSubmit(close) {
        const message = { id: item.message.id };
        const body = { channel: state.channel, name: input.value, message };
        const thread = await act("thread", body);
        close();
        openChannel(thread.id, thread);
      },
    });
  }

  /** Ask for a post's name and first message, create it in a forum, and open it. */
  function createPost(forum) {
    const name = h("input", { maxLength: MAX_THREAD_NAME, autocomplete: "off" });
    const content = h("textarea", { maxLength: MAX_POST_TEXT, rows: 4 });
    openDialog({
      title: `New post in ${channelName(forum)}`,
      submit: "Post",
      fields: [
        field({ label: "Post title", input: name, required: true }),
        field({ label: "Message", input: content, required: true }),
      ],
      async onSubmit(close) {
        const body = { channel: forum.id, name: name.value, content: encode(content.value) };
        const post = await act("post", body);
        close();
        openChannel(post.id, post);
      },
    });
  }

  function forward(item, button) {
    const places = state.channels.filter((channel) => channel.type !== FORUM);
    const items = places.map((channel) => ({
      label: channelName(channel),
      run: () => act("forward", { channel: channel.id, message: { id: item.message.id } })
        .catch(onError),
    }));
    openMenu(items, button ?? item.article, { label: "Forward to" });
  }

  function remove(item, button, event) {
    const onSubmit = () => act("delete", { message: { id: item.message.id } });
    if (event?.shiftKey) {
      onSubmit().catch(onError);
      return;
    }
    const warning = "This cannot be undone. Hold Shift to delete without being asked.";
    openDialog({
      title: "Delete message",
      submit: "Delete",
      danger: true,
      onSubmit,
      body: [h("p", {}, warning), h("blockquote", {}, markdown(messageText(item.message)))],
    });
  }

  /** Actions by the names in `data-do`, each with the item, its button and the event. */
  const handlers = {
    press,
    select,
    jump: (item, button) => conversation.jump(button.dataset.id),
    open: (item, button) => openChannel(button.dataset.id),
    dismiss: (item) => conversation.remove(item.message.id, true),
    reply: (item) => composer.reply(item.message),
    forward,
    copy: (item) => navigator.clipboard?.writeText(decode(messageText(item.message))).catch(onError),
    more: (item, button) => openMenu(messageItems(item), button, { label: "Message" }),
    edit,
    thread: createThread,
    delete: remove,
  };

  function edit(item) {
    const { content } = item.message;
    const rows = Math.min(8, content.split("\n").length);
    const box = h("textarea", { ariaLabel: "Edit message", rows });
    const part = item.article.querySelector(":scope > .content");
    const problem = h("p", { className: "problem", role: "alert" });

    function finish() {
      item.editing = false;
      item.drawn.content = null; // the text is drawn again, though it may be the same
      draw(item.message, item);
      composer.focus();
    }
    async function save() {
      const before = item.message.content;
      const edited = encode(box.value, mentionsIn(before));
      if (edited === before) {
        finish();
        return;
      }
      if (!edited.trim() && !item.message.attachments.length) {
        finish();
        remove(item);
        return;
      }
      try {
        await act("edit", { message: { id: item.message.id }, content: edited });
        finish();
      } catch (error) {
        problem.textContent = error.message;
      }
    }
    function plainButton(words, onclick) {
      return h("button", { type: "button", className: "plain", onclick }, words);
    }
    const hint = h(
      "small",
      { className: "hint" },
      "Escape to ",
      plainButton("cancel", finish),
      " · Enter to ",
      plainButton("save", save),
    );
    item.editing = true;
    box.value = decode(content);
    box.onkeydown = (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === "Escape") finish();
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        save();
      }
    };
    part.hidden = false;
    part.replaceChildren(box, hint, problem);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  /** Actions that the acting member may take on the message, by their names in `handlers`. */
  function allowed({ message }) {
    const channel = findChannel();
    const own = message.author.id === state.me;
    const kept = !(message.flags & EPHEMERAL);
    const mayManage = may(MANAGE_MESSAGES) && channel.type !== DIRECT;
    const isText = channel.type === TEXT;
    return {
      reply: kept,
      forward: kept && message.type !== FIRST_OF_THREAD,
      edit: own && USER_MESSAGE_TYPES.includes(message.type),
      copy: Boolean(messageText(message)),
      dismiss: !kept,
      thread: kept && isText && may(CREATE_THREADS) && !findChannel(message.id),
      delete: kept && message.type !== FIRST_OF_THREAD && (own || mayManage),
    };
  }

  // ---------------------------------------------------------------------------------------- menus

  const noAnswer = () => conversation.notice("The application did not respond.");

  async function runApp(command, target) {
    conversation.jumpToEnd(); // where the response appears
    try {
      const body = { channel: state.channel, command: command.id, target };
      onAnswer(await act("context", body), noAnswer);
    } catch (error) {
      onError(error);
    }
  }

  /** The bot's commands for messages or users; null if there are none. */
  function apps(type, target) {
    const commands = availableCommands(type);
    if (!commands.length) return null;
    const items = commands.map((command) => ({
      label: command.label,
      run: () => runApp(command, target),
    }));
    return { title: "Apps", items };
  }

  function messageItems(item) {
    const can = allowed(item);
    const names = Object.keys(WORDS).filter((name) => can[name]);
    const items = names.map((name) => ({
      label: WORDS[name],
      danger: name === "delete",
      run: (event) => handlers[name](item, null, event),
    }));
    if (can.reply) items.push(apps(ON_MESSAGE, item.message.id));
    return items;
  }

  function userMenu(user, at) {
    const name = userName(user);
    const isMember = state.people.some((person) => person.user.id === user.id);
    const items = [{ label: "Mention", run: () => composer.insert(`@${name} `) }];
    if (isMember && user.id !== state.me) {
      items.push({ label: `Act as ${name}`, run: () => actAs(user.id) });
    }
    if (user.id === state.bot.id) items.push({ label: "Message", run: () => openDirect() });
    items.push(apps(ON_USER, user.id));
    openMenu(items, at, { label: name });
  }

  async function openDirect() {
    try {
      const channel = await act("dm", {});
      await openChannel(channel.id, channel);
    } catch (error) {
      onError(error);
    }
  }

  /** Show the toolbar on a message. */
  function showBar(item) {
    if (!item || bar.parentNode === item.article || item.editing) return;
    const can = allowed(item);
    const names = Object.keys(ICONS).filter((name) => can[name]);
    const buttons = names.map((name) => iconButton(ICONS[name], WORDS[name], { "data-do": name }));
    const more = iconButton("⋯", "More", { "data-do": "more", "aria-haspopup": "menu" });
    bar.replaceChildren(...buttons, more);
    item.article.append(bar);
  }

  // --------------------------------------------------------------------------------------- events

  const itemAt = (target) => target.closest("#messages > li");
  list.addEventListener("pointerover", (event) => showBar(itemAt(event.target)));
  list.addEventListener("focusin", (event) => showBar(itemAt(event.target)));
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) handlers[button.dataset.do](itemAt(button), button, event);
  });
  function openAt(event) {
    const item = itemAt(event.target);
    // A menu that the keyboard opens has no position.
    let at = item.article;
    if (event.clientX || event.clientY) at = { x: event.clientX, y: event.clientY };
    let author = null;
    if (event.target.closest(".name, .face")) {
      author = users().find((user) => user.id === item.message.author.id);
    }
    if (author) userMenu(author, at);
    else openMenu(messageItems(item), at, { label: "Message" });
  }

  // Links, images and selected text keep the browser's own menu.
  function isOurs(event) {
    if (!itemAt(event.target) || String(getSelection())) return false;
    return !event.target.closest("a, textarea, img.picture");
  }
  list.addEventListener("contextmenu", (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    if (event.pointerType !== "touch") afterRelease(event, () => openAt(event));
  });
  // A long press on a touch screen, which not every browser reports; scrolling cancels it.
  let pressedAt = 0;
  list.addEventListener("pointerdown", (event) => { pressedAt = event.timeStamp; });
  list.addEventListener("pointerup", (event) => {
    const isLong = event.timeStamp - pressedAt > LONG_PRESS_MS;
    if (event.pointerType !== "touch" || !isLong || !isOurs(event)) return;
    // Delayed: lifting the finger, and the click that may follow, would close a menu that is
    // already open.
    setTimeout(openAt, AFTER_CLICK_MS, event);
  });
  $("scroller").addEventListener("keydown", (event) => {
    const item = event.target.matches("article") ? itemAt(event.target) : null;
    const step = STEPS[event.key];
    if (step && (item || event.target === $("scroller"))) {
      event.preventDefault();
      const next = item ? item[step] : list.lastElementChild;
      next?.article.focus();
      return;
    }
    const name = KEYS[event.key];
    if (!item || !name || event.ctrlKey || event.metaKey || !allowed(item)[name]) return;
    event.preventDefault();
    handlers[name](item, null, event);
  });

  /** Edit the member's last message; returns false if there is none. */
  function editLast() {
    const item = conversation.lastOwn();
    if (item) edit(item);
    return Boolean(item);
  }
  return { userMenu, openDirect, createPost, editLast };
}

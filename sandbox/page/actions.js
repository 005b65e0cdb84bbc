/** Actions on messages and members: toolbar, menus, keys, and a message's own buttons. */

import { act, state } from "/page/api.js";
import { choose, selectedLabels, defaultValues } from "/page/select_menu.js";
import * as conversation from "/page/conversation.js";
import { $, field, h, afterRelease, openDialog, openMenu, iconButton } from "/page/dom.js";
import { markdown, plainText } from "/page/markdown.js";
import { draw, EPHEMERAL, FIRST_OF_THREAD, USER_MESSAGE_TYPES } from "/page/message.js";
import { availableCommands, CREATE_THREADS, decode, DIRECT, encode, MANAGE_MESSAGES, may, mentionsIn, findChannel, TEXT, users, userName } from "/page/guild.js";

const ON_USER = 2, ON_MESSAGE = 3, LONG_PRESS_MS = 500, AFTER_CLICK_MS = 60, NO_ANSWER = "This interaction failed: the application did not respond.";

export function makeActions({ composer, onAnswer, openChannel, actAs }) {
  const list = $("messages"), bar = h("div", { className: "toolbar", role: "group", ariaLabel: "Message actions" });
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
      onAnswer(await act(name, { message: { id: item.message.id }, ...body }), () => showProblem(item, NO_ANSWER));
    } catch (error) {
      showProblem(item, error.message);
    }
    button.classList.remove("waiting");
    button.ariaBusy = "false";
  }

  const partOf = (item, button) => item.message.components.flatMap((row) => row.components ?? []).find((part) => part.custom_id === button.dataset.part);

  const handlers = {
    press: (item, button) => interact(item, button, "click", { custom_id: button.dataset.part }),
    select(item, button) {
      const part = partOf(item, button);
      choose(part, button, button.values ?? defaultValues(part), (values) => {
        button.values = values;
        button.firstChild.textContent = selectedLabels(part, values) || part.placeholder || "Make a selection";
        interact(item, button, "select", { custom_id: part.custom_id, values });
      });
    },
    jump: (item, button) => conversation.jump(button.dataset.id),
    open: (item, button) => openChannel(button.dataset.id),
    dismiss: (item) => conversation.remove(item.message.id, true),
    reply: (item) => composer.reply(item.message),
    copy: (item) => navigator.clipboard?.writeText(decode(item.message.content)).catch(onError),
    more: (item, button) => openMenu(messageItems(item), button, { label: "Message" }),
    edit,
    thread(item) {
      const input = h("input", { maxLength: 100, autocomplete: "off" });
      input.value = plainText(item.message.content).slice(0, 40);
      openDialog({
        title: "Create thread", submit: "Create", fields: [field({ label: "Thread name", input, required: true })],
        async onSubmit(close) {
          const thread = await act("thread", { channel: state.channel, name: input.value, message: { id: item.message.id } });
          close();
          openChannel(thread.id, thread);
        },
      });
    },
    delete(item, button, event) {
      const onSubmit = () => act("delete", { message: { id: item.message.id } });
      if (event?.shiftKey) return onSubmit().catch(onError);
      openDialog({
        title: "Delete message", submit: "Delete", danger: true, onSubmit,
        body: [h("p", {}, "This cannot be undone. Hold Shift to delete without being asked."), h("blockquote", {}, markdown(item.message.content))],
      });
    },
  };

  function edit(item) {
    const box = h("textarea", { ariaLabel: "Edit message", rows: Math.min(8, item.message.content.split("\n").length) });
    const part = item.article.querySelector(":scope > .content"), problem = h("p", { className: "problem", role: "alert" });
    const button = (words, onclick) => h("button", { type: "button", className: "plain", onclick }, words);
    const finish = () => { [item.editing, item.drawn.content] = [false, null]; draw(item.message, item); composer.focus(); };
    const save = async () => {
      const content = encode(box.value, mentionsIn(item.message.content));
      if (content === item.message.content) return finish();
      if (!content.trim() && !item.message.attachments.length) { finish(); return handlers.delete(item); }
      try { await act("edit", { message: { id: item.message.id }, content }); finish(); } catch (error) { problem.textContent = error.message; }
    };
    item.editing = true;
    box.value = decode(item.message.content);
    box.onkeydown = (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === "Escape") finish();
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); save(); }
    };
    part.hidden = false;
    part.replaceChildren(box, h("small", { className: "hint" }, "Escape to ", button("cancel", finish), " · Enter to ", button("save", save)), problem);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  /** Actions that the acting member may take on the message, by their names in `handlers`. */
  function allowed({ message }) {
    const own = message.author.id === state.me, kept = !(message.flags & EPHEMERAL);
    return {
      reply: kept, edit: own && USER_MESSAGE_TYPES.includes(message.type), copy: Boolean(message.content), dismiss: !kept,
      thread: kept && findChannel().type === TEXT && may(CREATE_THREADS) && !findChannel(message.id),
      delete: kept && message.type !== FIRST_OF_THREAD && (own || (may(MANAGE_MESSAGES) && findChannel().type !== DIRECT)),
    };
  }

  const WORDS = { reply: "Reply", edit: "Edit message", thread: "Create thread", copy: "Copy text", delete: "Delete message", dismiss: "Dismiss message" };
  const KEYS = { r: "reply", e: "edit", t: "thread", c: "copy", Delete: "delete", Backspace: "delete" };
  const ICONS = { reply: "↩", edit: "✎", thread: "⤷" };

  const apps = (type, target, missing) => {
    const items = availableCommands(type).map((command) => ({
      label: command.name,
      run: async () => {
        conversation.jumpToEnd(); // where the response appears
        try { onAnswer(await act("context", { channel: state.channel, command: command.id, target }), missing); } catch (error) { onError(error); }
      },
    }));
    return items.length && { title: "Apps", items };
  };
  const noAnswer = () => conversation.notice("The application did not respond.");

  function messageItems(item) {
    const can = allowed(item), items = Object.keys(WORDS).filter((name) => can[name]);
    return [...items.map((name) => ({ label: WORDS[name], danger: name === "delete", run: (event) => handlers[name](item, null, event) })),
      can.reply && apps(ON_MESSAGE, item.message.id, noAnswer)];
  }

  function userMenu(user, at) {
    const known = state.people.some((one) => one.user.id === user.id);
    openMenu([
      { label: "Mention", run: () => composer.insert(`@${userName(user)} `) },
      known && user.id !== state.me && { label: `Act as ${userName(user)}`, run: () => actAs(user.id) },
      user.id === state.bot.id && { label: "Message", run: () => openDirect() },
      apps(ON_USER, user.id, noAnswer),
    ], at, { label: userName(user) });
  }

  const openDirect = () => act("dm", {}).then((channel) => openChannel(channel.id, channel)).catch(onError);

  function showBar(item) {
    if (bar.parentNode === item.article || item.editing) return;
    const can = allowed(item);
    bar.replaceChildren(...Object.keys(ICONS).filter((name) => can[name]).map((name) => iconButton(ICONS[name], WORDS[name], { "data-do": name })),
      iconButton("⋯", "More", { "data-do": "more", "aria-haspopup": "menu" }));
    item.article.append(bar);
  }

  const itemAt = (target) => target.closest("#messages > li");
  list.addEventListener("pointerover", (event) => { const item = itemAt(event.target); if (item) showBar(item); });
  list.addEventListener("focusin", (event) => { const item = itemAt(event.target); if (item) showBar(item); });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) handlers[button.dataset.do](itemAt(button), button, event);
  });
  function openAt(event) {
    const item = itemAt(event.target), at = event.clientX || event.clientY ? { x: event.clientX, y: event.clientY } : item.article;
    const author = event.target.closest(".name, .face") && users().find((user) => user.id === item.message.author.id);
    if (author) userMenu(author, at);
    else openMenu(messageItems(item), at, { label: "Message" });
  }

  // Links, images and selected text keep the browser's own menu.
  const isOurs = (event) => itemAt(event.target) && !event.target.closest("a, textarea, img.picture") && !String(getSelection());
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
    // Delayed: lifting the finger, and the click that may follow, would close a menu that is already open.
    if (event.pointerType === "touch" && isLong && isOurs(event)) setTimeout(openAt, AFTER_CLICK_MS, event);
  });
  $("scroller").addEventListener("keydown", (event) => {
    const item = event.target.matches("article") ? itemAt(event.target) : null, step = { ArrowUp: "previousElementSibling", ArrowDown: "nextElementSibling" }[event.key];
    if (step && (item || event.target === $("scroller"))) {
      event.preventDefault();
      (item ? item[step] : list.lastElementChild)?.article.focus();
    } else if (item && KEYS[event.key] && !event.ctrlKey && !event.metaKey && allowed(item)[KEYS[event.key]]) {
      event.preventDefault();
      handlers[KEYS[event.key]](item, null, event);
    }
  });
  return { userMenu, openDirect, editLast: () => { const item = conversation.lastOwn(); if (item) edit(item); return Boolean(item); } };
}

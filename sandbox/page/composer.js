/** The message composer: drafts, files, replies, and completion of names, channels and commands. */

import { act, state, upload } from "/page/api.js";
import { $, h, iconButton, suggest } from "/page/dom.js";
import { ATTACH, avatar, DIRECT, encode, may, findChannel, channelName, SEND, SEND_IN_THREADS, THREAD, users, userName } from "/page/guild.js";
import { size } from "/page/message_parts.js";
import { commandForm, commandsFor } from "/page/slash.js";

const MAX_CHARACTERS = 2000, COUNT_FROM = 1800, MAX_FILES = 10, MAX_FILE_BYTES = 10 * 2 ** 20, MAX_HEIGHT_PX = 200;

export function makeComposer(root, { onRun, onAnswer, onArrowUp, onEscape }) {
  let replyTo = null, files = [], where = null, sending = Promise.resolve();
  let meant = new Map(); // the mention chosen for each name
  const kept = new Map(); // drafts by channel
  const box = h("textarea", { rows: 1, ariaLabel: "Message", autocomplete: "off", enterKeyHint: "send" });
  const picker = suggest(box, (item) => (item.command ? openCommand(item) : complete(item)));
  const replying = h("p", { className: "replying", hidden: true }), previews = h("ul", { className: "previews", ariaLabel: "Files to send" });
  const problem = h("p", { className: "problem", role: "alert" }), count = h("span", { className: "count", ariaHidden: "true" });
  const chooser = h("input", { type: "file", multiple: true, hidden: true, onchange: () => { attach(chooser.files); chooser.value = ""; } });
  const attachButton = iconButton("+", "Attach files", { onclick: () => chooser.click() }), sendButton = iconButton("➤", "Send", { type: "submit" });
  const writing = h("form", { className: "writing", onsubmit: (event) => { event.preventDefault(); say(); } },
    picker.list, replying, previews, problem, h("div", { className: "box" }, attachButton, chooser, box, count, sendButton));
  root.replaceChildren(writing);

  const draftKey = () => `draft:${where}`;
  const refuse = (words) => { problem.textContent = words; };

  function write(text) {
    box.value = text;
    changed();
  }
  function changed() {
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight, MAX_HEIGHT_PX)}px`;
    const left = MAX_CHARACTERS - box.value.length;
    count.textContent = box.value.length > COUNT_FROM ? String(left) : "";
    count.classList.toggle("over", left < 0);
    refuse("");
    if (box.value) localStorage.setItem(draftKey(), box.value);
    else localStorage.removeItem(draftKey());
  }

  function offer() {
    const typed = /(?:^|\s)([@#])([^@#\n]{0,40})$/.exec(box.value.slice(0, box.selectionStart)), words = typed?.[2].toLowerCase();
    if (!typed) return picker.show(commandsFor(box.value));
    const names = typed[1] === "#"
      ? state.channels.filter((one) => one.type !== DIRECT).map((one) => ({ title: `#${one.name}`, hint: one.topic }))
      : [...users().map((user) => ({ title: `@${userName(user)}`, face: avatar(user, "avatar tiny"), means: `<@${user.id}>` })),
        ...state.roles.filter((role) => role.position > 1 && !role.managed).map((role) => ({ title: `@${role.name}`, hint: "role", means: `<@&${role.id}>` })),
        { title: "@everyone", hint: "all members" }, { title: "@here", hint: "all who are online" }];
    const fits = names.filter((one) => one.title.slice(1).toLowerCase().startsWith(words)).slice(0, 10);
    // A complete name needs no completion: Enter sends.
    picker.show(fits.length === 1 && fits[0].title.length === words.length + 1 ? [] : fits.map((one) => ({ ...one, typed: words.length + 1 })));
  }
  function complete({ title, typed, means }) {
    if (means) meant.set(title, means);
    box.setRangeText(`${title} `, box.selectionStart - typed, box.selectionStart, "end");
    changed();
  }

  function attach(list) {
    const more = [...list];
    if (!may(ATTACH)) return refuse("You do not have permission to attach files in this channel.");
    if (files.length + more.length > MAX_FILES) return refuse(`A message can have at most ${MAX_FILES} files.`);
    const large = more.find((file) => file.size > MAX_FILE_BYTES);
    if (large) return refuse(`${large.name} is too large: ${size(large.size)} of at most ${size(MAX_FILE_BYTES)}.`);
    files.push(...more);
    drawFiles();
    box.focus();
  }
  function drawFiles() {
    previews.replaceChildren(...files.map((file) => {
      const face = h("span", { className: "sheet", ariaHidden: "true" }, "▤"), reader = new FileReader();
      reader.onload = () => face.replaceWith(h("img", { alt: "", src: reader.result }));
      if (file.type.startsWith("image/")) reader.readAsDataURL(file);
      const drop = () => { files = files.filter((one) => one !== file); drawFiles(); box.focus(); };
      return h("li", {}, face, h("span", {}, file.name), h("small", {}, size(file.size)), iconButton("✕", `Remove ${file.name}`, { onclick: drop }));
    }));
    previews.hidden = !files.length;
  }

  function say() {
    const text = box.value, body = { channel: state.channel, content: encode(text, meant), reply_to: replyTo && { id: replyTo.id } }, sent = files, answered = replyTo, chosen = meant;
    if (box.disabled || (!text.trim() && !files.length)) return;
    if (text.startsWith("/")) {
      const [command] = commandsFor(text);
      return command ? openCommand(command) : refuse(`There is no command ${text.split(/\s/)[0]} here. Type / for a list; to send it as text, put a \\ before it.`);
    }
    if (text.length > MAX_CHARACTERS) return refuse(`Your message is too long: ${text.length} of at most ${MAX_CHARACTERS} characters.`);
    const from = where;
    write("");
    [files, replyTo, meant] = [[], null, new Map()];
    drawFiles();
    reply(null);
    sending = sending.then(async () => {
      const uploads = await Promise.all(sent.map(upload));
      await act("say", { ...body, uploads: uploads.map((file) => file.id) });
    }).catch((error) => {
      if (where !== from) return localStorage.setItem(`draft:${from}`, text);
      if (!box.value) { write(text); [files, meant] = [sent, chosen]; drawFiles(); reply(answered); }
      refuse(error.message);
    });
  }

  function reply(message) {
    replyTo = message;
    replying.hidden = !message;
    replying.replaceChildren(...(message ? [h("span", {}, "Replying to ", h("b", {}, userName(message.author))), iconButton("✕", "Do not reply", { onclick: () => reply(null) })] : []));
    if (message) { closeCommand(); box.focus(); }
  }

  function closeCommand() {
    if (writing.isConnected) return;
    root.replaceChildren(writing);
    box.focus();
  }
  function openCommand(item) {
    write("");
    const { form, focus } = commandForm(item, { channel: state.channel, onRun, onAnswer, onClose: closeCommand });
    root.replaceChildren(form);
    focus();
  }

  box.addEventListener("input", () => { changed(); offer(); });
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); say(); }
    if (event.key === "ArrowUp" && !event.altKey && !box.value && onArrowUp()) event.preventDefault();
    if (event.key === "Escape") { event.stopPropagation(); if (replyTo) reply(null); else onEscape(); }
  });
  box.addEventListener("paste", (event) => { if (event.clipboardData.files.length) { event.preventDefault(); attach(event.clipboardData.files); } });
  const main = $("main");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") && !box.disabled;
  main.addEventListener("dragover", (event) => { event.preventDefault(); main.classList.toggle("dropping", carriesFiles(event)); });
  main.addEventListener("dragleave", (event) => { if (!main.contains(event.relatedTarget)) main.classList.remove("dropping"); });
  main.addEventListener("drop", (event) => { event.preventDefault(); main.classList.remove("dropping"); if (carriesFiles(event)) attach(event.dataTransfer.files); });

  return {
    reply, refuse, openCommand,
    focus: () => (writing.isConnected ? box : root.querySelector("input, select, button")).focus(),
    insert: (words) => { closeCommand(); box.setRangeText(words, box.selectionStart, box.selectionEnd, "end"); changed(); box.focus(); },
    /** Restore the draft of the open channel. */
    reset() {
      const channel = findChannel(), next = `${state.me}:${channel.id}`;
      if (where !== next) {
        if (where) kept.set(where, { files, replyTo, meant });
        where = next;
        if (!writing.isConnected) root.replaceChildren(writing);
        write(localStorage.getItem(draftKey()) ?? "");
        files = kept.get(next)?.files ?? [];
        meant = kept.get(next)?.meant ?? new Map();
        reply(kept.get(next)?.replyTo ?? null);
        drawFiles();
        picker.show([]);
      }
      box.disabled = attachButton.disabled = sendButton.disabled = !may(channel.type === THREAD ? SEND_IN_THREADS : SEND);
      box.placeholder = box.disabled ? "You do not have permission to send messages in this channel." : `Message ${channelName(channel)}`;
    },
  };
}

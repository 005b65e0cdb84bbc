/** The message composer: drafts, files, replies, and completion of names, channels and commands. */

import { act, state, upload } from "/page/api.js";
import { $, field, h, iconButton, openDialog, openMenu, suggest } from "/page/dom.js";
import {
  ATTACH, avatar, channelName, DIRECT, encode, findChannel, may, SEND, SEND_IN_THREADS, SEND_POLLS,
  shownUser, THREAD, userName, users,
} from "/page/guild.js";
import { size } from "/page/message_parts.js";
import { commandForm, commandsFor, unknownCommand } from "/page/slash.js";

const MAX_CHARACTERS = 2000;
const COUNT_FROM = 1800;
const MAX_FILES = 10;
const MAX_FILE_BYTES = 10 * 2 ** 20;
const MAX_HEIGHT_PX = 200;
const MAX_NAMES = 10;
const MAX_QUESTION = 300;
const MAX_ANSWER = 55;
const MAX_ANSWERS = 10;
const MAX_DESCRIPTION = 1024;
const OPUS_RATE_HZ = 48000;
const OGG_PAGE = [0x4f, 0x67, 0x67, 0x53]; // "OggS"
const OGG_PAGE_BYTES = 27; // the least
const GRANULE_OFFSET = 6; // of the page's last sample, in its head

/** All names that can be typed after `@` or `#`; `means` is the mention of a name. */
function mentionable(sign) {
  const names = [];
  if (sign === "#") {
    for (const channel of state.channels) {
      if (channel.type !== DIRECT) names.push({ title: `#${channel.name}`, hint: channel.topic });
    }
    return names;
  }
  for (const user of users()) {
    const face = avatar(user, "avatar tiny");
    names.push({ title: `@${userName(user)}`, face, means: `<@${user.id}>` });
  }
  for (const role of state.roles) {
    if (role.position <= 1 || role.managed) continue;
    names.push({ title: `@${role.name}`, hint: "role", means: `<@&${role.id}>` });
  }
  names.push({ title: "@everyone", hint: "all members" });
  names.push({ title: "@here", hint: "all who are online" });
  return names;
}

/** Names that complete what stands before the cursor; null where no name is being typed. */
function completions(text) {
  const typed = /(?:^|\s)([@#])([^@#\n]{0,40})$/.exec(text);
  if (!typed) return null;
  const words = typed[2].toLowerCase();
  const fits = mentionable(typed[1])
    .filter((name) => name.title.slice(1).toLowerCase().startsWith(words))
    .slice(0, MAX_NAMES);
  // A complete name needs no completion: Enter sends.
  if (fits.length === 1 && fits[0].title.length === words.length + 1) return [];
  return fits.map((name) => ({ ...name, typed: words.length + 1 }));
}

/** The length of an Ogg Opus file, by the number of its last page's last sample; 0 for others. */
async function soundSeconds(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  for (let at = bytes.length - OGG_PAGE_BYTES; at >= 0; at -= 1) {
    if (OGG_PAGE.every((byte, index) => bytes[at + index] === byte)) {
      const sample = new DataView(bytes.buffer).getBigInt64(at + GRANULE_OFFSET, true);
      return Number(sample) / OPUS_RATE_HZ;
    }
  }
  return 0;
}

export function makeComposer(root, { onRun, onAnswer, onArrowUp, onEscape }) {
  let replyTo = null;
  let focusCommand = null; // focuses the form of the open command
  let files = [];
  let where = null;
  let sending = Promise.resolve();
  let meant = new Map(); // the mention chosen for each name
  const descriptions = new WeakMap(); // of files, for people who do not see them
  const kept = new Map(); // drafts by channel

  const box = h("textarea", {
    rows: 1,
    ariaLabel: "Message",
    autocomplete: "off",
    enterKeyHint: "send",
  });
  const picker = suggest(box, (item) => {
    if (item.command) openCommand(item);
    else complete(item);
  });
  const replying = h("p", { className: "replying", hidden: true });
  const previews = h("ul", { className: "previews", ariaLabel: "Files to send" });
  const problem = h("p", { className: "problem", role: "alert" });
  const count = h("span", { className: "count", ariaHidden: "true" });
  const chooser = h("input", { type: "file", multiple: true, hidden: true });
  chooser.onchange = () => {
    attach(chooser.files);
    chooser.value = ""; // otherwise the same file, chosen again, would be no change
  };
  const voiceChooser = h("input", { type: "file", accept: ".ogg,audio/ogg", hidden: true });
  voiceChooser.onchange = () => {
    sendVoice(voiceChooser.files[0]).catch((error) => refuse(error.message));
    voiceChooser.value = ""; // as above
  };
  const attachButton = iconButton("+", "Files, stickers and polls", {
    "aria-haspopup": "menu",
    onclick: () => openMenu(moreItems(), attachButton, { label: "Files, stickers and polls" }),
  });
  const sendButton = iconButton("➤", "Send", { type: "submit" });
  const line = h(
    "div", { className: "box" }, attachButton, chooser, voiceChooser, box, count, sendButton,
  );
  const writing = h(
    "form", { className: "writing" }, picker.list, replying, previews, problem, line,
  );
  writing.onsubmit = (event) => {
    event.preventDefault();
    say();
  };
  root.replaceChildren(writing);

  const draftKey = () => `draft:${where}`;

  function refuse(words) {
    problem.textContent = words;
  }

  function write(text) {
    box.value = text;
    changed();
  }

  function changed() {
    // The conversation must not grow for the moment of the measurement: its end would be left.
    root.style.minHeight = `${root.offsetHeight}px`;
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight, MAX_HEIGHT_PX)}px`;
    root.style.minHeight = "";
    const left = MAX_CHARACTERS - box.value.length;
    count.textContent = box.value.length > COUNT_FROM ? String(left) : "";
    count.classList.toggle("over", left < 0);
    refuse("");
    if (box.value) localStorage.setItem(draftKey(), box.value);
    else localStorage.removeItem(draftKey());
  }

  function offer() {
    const names = completions(box.value.slice(0, box.selectionStart));
    picker.show(names ?? commandsFor(box.value));
  }

  function complete({ title, typed, means }) {
    if (means) meant.set(title, means);
    box.setRangeText(`${title} `, box.selectionStart - typed, box.selectionStart, "end");
    changed();
  }

  // ---------------------------------------------------------------------------------------- files

  /** Why files cannot be attached; empty if they can. */
  function attachProblem(more) {
    if (!may(ATTACH)) return "You do not have permission to attach files in this channel.";
    if (files.length + more.length > MAX_FILES) {
      return `A message can have at most ${MAX_FILES} files.`;
    }
    const large = more.find((file) => file.size > MAX_FILE_BYTES);
    if (!large) return "";
    return `${large.name} is too large: ${size(large.size)} of at most ${size(MAX_FILE_BYTES)}.`;
  }

  function attach(list) {
    const more = [...list];
    const refusal = attachProblem(more);
    if (refusal) {
      refuse(refusal);
      return;
    }
    files.push(...more);
    drawFiles();
    box.focus();
  }

  function describe(file) {
    const input = h("textarea", { maxLength: MAX_DESCRIPTION, rows: 3 });
    input.value = descriptions.get(file) ?? "";
    openDialog({
      title: "Describe the file",
      submit: "Save",
      fields: [field({
        label: "Description",
        description: "For people who do not see it, and for bots.",
        input,
      })],
      onSubmit() {
        descriptions.set(file, input.value.trim());
        drawFiles();
      },
    });
  }

  function preview(file) {
    const face = h("span", { className: "sheet", ariaHidden: "true" }, "▤");
    if (file.type.startsWith("image/")) {
      const reader = new FileReader();
      reader.onload = () => face.replaceWith(h("img", { alt: "", src: reader.result }));
      reader.readAsDataURL(file);
    }
    const drop = () => {
      files = files.filter((each) => each !== file);
      drawFiles();
      box.focus();
    };
    const remove = iconButton("✕", `Remove ${file.name}`, { onclick: drop });
    const onclick = () => describe(file);
    const about = iconButton("✎", `Describe ${file.name}`, { onclick });
    const words = descriptions.get(file) || size(file.size);
    return h("li", {}, face, h("span", {}, file.name), h("small", {}, words), about, remove);
  }

  function drawFiles() {
    previews.replaceChildren(...files.map(preview));
    previews.hidden = !files.length;
  }

  // --------------------------------------------------------------------------- stickers and polls

  function post(action, body) {
    return act(action, { channel: state.channel, ...body });
  }

  function sendSticker({ name }) {
    const answered = replyTo && { id: replyTo.id };
    reply(null);
    post("sticker", { name, reply_to: answered }).catch((error) => refuse(error.message));
  }

  /** Send a recording: the page records nothing, because browsers write other formats. */
  async function sendVoice(file) {
    const refusal = attachProblem([file]);
    if (refusal) throw new Error(refusal);
    const seconds = await soundSeconds(file);
    if (!seconds) throw new Error(`${file.name} is not a sound in Ogg Opus.`);
    const answered = replyTo && { id: replyTo.id };
    reply(null);
    const { id } = await upload(file);
    await post("voice", { upload: id, seconds, reply_to: answered });
  }

  function createPoll() {
    const question = h("input", { maxLength: MAX_QUESTION, autocomplete: "off" });
    const answers = h("textarea", { rows: 4 });
    const lines = () => answers.value.split("\n").map((line) => line.trim()).filter(Boolean);
    function findProblem() {
      if (lines().length > MAX_ANSWERS) return `A poll can have at most ${MAX_ANSWERS} answers.`;
      const long = lines().find((line) => line.length > MAX_ANSWER);
      return long ? `An answer can have at most ${MAX_ANSWER} characters: ${long}` : "";
    }
    openDialog({
      title: "Create a poll",
      submit: "Post",
      fields: [
        field({ label: "Question", input: question, required: true }),
        field({ label: "Answers, one a line", input: answers, required: true, findProblem }),
      ],
      onSubmit: () => post("poll", { question: question.value, answers: lines() }),
    });
  }

  function moreItems() {
    return [
      { label: "Upload files", run: () => chooser.click() },
      { label: "Send a voice message", run: () => voiceChooser.click() },
      may(SEND_POLLS) && { label: "Create a poll", run: createPoll },
      {
        title: "Send a sticker",
        items: state.stickers.map((one) => ({
          label: one.name,
          face: h("span", { className: "emoji", ariaHidden: "true" }, one.tags),
          run: () => sendSticker(one),
        })),
      },
    ];
  }

  // -------------------------------------------------------------------------------------- sending

  function runTyped(text) {
    const [command] = commandsFor(text);
    if (command) {
      openCommand(command);
      return;
    }
    refuse(unknownCommand(text));
  }

  function say() {
    const text = box.value;
    if (box.disabled || (!text.trim() && !files.length)) return;
    if (text.startsWith("/")) {
      runTyped(text);
      return;
    }
    if (text.length > MAX_CHARACTERS) {
      refuse(`Your message is too long: ${text.length} of at most ${MAX_CHARACTERS} characters.`);
      return;
    }
    send({ text, from: where, sent: files, answered: replyTo, chosen: meant });
  }

  /** Send a message after those that are under way; one that is refused becomes the draft again. */
  function send({ text, from, sent, answered, chosen }) {
    const body = {
      channel: state.channel,
      content: encode(text, chosen),
      reply_to: answered && { id: answered.id },
    };
    write("");
    files = [];
    meant = new Map();
    drawFiles();
    reply(null);
    sending = sending.then(async () => {
      const uploads = await Promise.all(sent.map(upload));
      await act("say", {
        ...body,
        uploads: uploads.map((file) => file.id),
        descriptions: sent.map((file) => descriptions.get(file) ?? ""),
      });
    }).catch((error) => {
      if (where !== from) {
        localStorage.setItem(`draft:${from}`, text);
        return;
      }
      if (!box.value) {
        write(text);
        files = sent;
        meant = chosen;
        drawFiles();
        reply(answered);
      }
      refuse(error.message);
    });
  }

  function reply(message) {
    replyTo = message;
    replying.hidden = !message;
    if (!message) {
      replying.replaceChildren();
      return;
    }
    const name = h("b", {}, userName(shownUser(message.author)));
    const cancel = iconButton("✕", "Do not reply", { onclick: () => reply(null) });
    replying.replaceChildren(h("span", {}, "Replying to ", name), cancel);
    closeCommand();
    box.focus();
  }

  // ------------------------------------------------------------------------------------- commands

  function closeCommand() {
    if (writing.isConnected) return;
    root.replaceChildren(writing);
    box.focus();
  }

  function openCommand(item) {
    write("");
    const options = { channel: state.channel, onRun, onAnswer, onClose: closeCommand };
    const command = commandForm(item, options);
    focusCommand = command.focus;
    root.replaceChildren(command.form);
    focusCommand();
  }

  // ---------------------------------------------------------------------------------------- input

  box.addEventListener("input", () => {
    changed();
    offer();
  });
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      say();
    }
    if (event.key === "ArrowUp" && !event.altKey && !box.value && onArrowUp()) {
      event.preventDefault();
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      if (replyTo) reply(null);
      else onEscape();
    }
  });
  box.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    attach(event.clipboardData.files);
  });

  const main = $("main");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") && !box.disabled;
  main.addEventListener("dragover", (event) => {
    event.preventDefault();
    main.classList.toggle("dropping", carriesFiles(event));
  });
  main.addEventListener("dragleave", (event) => {
    if (!main.contains(event.relatedTarget)) main.classList.remove("dropping");
  });
  main.addEventListener("drop", (event) => {
    event.preventDefault();
    main.classList.remove("dropping");
    if (carriesFiles(event)) attach(event.dataTransfer.files);
  });

  /** Focus the box or the open command, unless one of its fields already has the focus. */
  function focus() {
    if (root.contains(document.activeElement)) return;
    if (writing.isConnected) box.focus();
    else focusCommand();
  }

  function insert(words) {
    closeCommand();
    box.setRangeText(words, box.selectionStart, box.selectionEnd, "end");
    changed();
    box.focus();
  }

  /** Keep what was begun in another channel, and restore what was begun in this one. */
  function switchDraft(next) {
    if (where) kept.set(where, { files, replyTo, meant });
    where = next;
    if (!writing.isConnected) root.replaceChildren(writing);
    write(localStorage.getItem(draftKey()) ?? "");
    const draft = kept.get(next);
    files = draft?.files ?? [];
    meant = draft?.meant ?? new Map();
    reply(draft?.replyTo ?? null);
    drawFiles();
    picker.show([]);
  }

  /** Restore the draft of the open channel. */
  function reset() {
    const channel = findChannel();
    const next = `${state.me}:${channel.id}`;
    if (where !== next) switchDraft(next);
    const isAllowed = may(channel.type === THREAD ? SEND_IN_THREADS : SEND);
    box.disabled = !isAllowed;
    attachButton.disabled = !isAllowed;
    sendButton.disabled = !isAllowed;
    box.placeholder = isAllowed
      ? `Message ${channelName(channel)}`
      : "You do not have permission to send messages in this channel.";
  }

  return { reply, refuse, openCommand, focus, insert, reset };
}

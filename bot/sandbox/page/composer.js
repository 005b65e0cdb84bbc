/** The box to write in; a "/" makes it a picker of commands, and a chosen command a form of its options. */

import { act, Refusal, state, userName } from "/page/api.js";
import { h, suggest } from "/page/dom.js";

const SUBCOMMAND = 1, GROUP = 2;
let fields = 0;

/** Every (sub)command by its full name. */
function flatten(command, prefix = "") {
  const name = `${prefix}${command.name}`;
  const inner = (command.options ?? []).filter((option) => option.type === SUBCOMMAND || option.type === GROUP);
  return inner.length ? inner.flatMap((option) => flatten(option, `${name} `)) : [{ ...command, name }];
}

const option = (value, label) => h("option", { value }, label);
const select = (options) => h("select", {}, option("", "—"), ...options.map(([value, label]) => option(value, label)));

/** How an option of each type is asked for. */
const INPUTS = {
  4: (o) => h("input", { type: "number", step: "1", min: o.min_value ?? "", max: o.max_value ?? "" }),
  5: () => select([["true", "True"], ["false", "False"]]),
  6: () => select([...state.people.map((person) => person.user), state.bot].map((user) => [user.id, userName(user)])),
  7: () => select(state.channels.map((channel) => [channel.id, `#${channel.name}`])),
  8: () => select(state.roles.map((role) => [role.id, role.name])),
  10: (o) => h("input", { type: "number", step: "any", min: o.min_value ?? "", max: o.max_value ?? "" }),
};

function makeInput(o) {
  if (o.choices?.length) return select(o.choices.map((choice) => [choice.value, choice.name]));
  const text = () => h("input", { type: "text", autocomplete: "off", minLength: o.min_length ?? 0, maxLength: o.max_length ?? 6000 });
  return (INPUTS[o.type] ?? text)(o);
}

export function makeComposer(root, { onAnswer, onError }) {
  let replyTo = null;
  const send = (event) => { event.preventDefault(); say(); };
  const box = h("textarea", { rows: 1, maxLength: 4000, ariaLabel: "Message", autocomplete: "off", enterKeyHint: "send" });
  const picker = suggest(box, (item) => openCommand(item.command));
  const replying = h("p", { className: "replying", hidden: true });
  const writing = h("form", { className: "writing", onsubmit: send }, picker.list, replying, box, h("button", { className: "button primary" }, "Send"));
  root.replaceChildren(writing);

  function grow() {
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight + 2, 200)}px`;
  }
  function offer() {
    const typed = /^\/([^\n]*)$/.exec(box.value)?.[1].toLowerCase();
    const all = typed === undefined ? [] : state.commands.flatMap((command) => flatten(command));
    const fits = all.filter((command) => command.name.startsWith(typed.trim()) || command.name.includes(` ${typed.trim()}`));
    picker.show(fits.map((command) => ({ title: `/${command.name}`, hint: command.description, command })));
  }
  box.addEventListener("input", () => { grow(); offer(); });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
    if (event.key === "Escape") reply(null);
  });

  async function say() {
    const content = box.value;
    if (!content.trim()) return;
    const body = { channel: state.channel, content, reply_to: replyTo && { id: replyTo.id } };
    [box.value, replyTo] = ["", null];
    reply(null);
    grow();
    try {
      await act("say", body);
    } catch (error) {
      box.value ||= content;
      grow();
      onError(error);
    }
  }

  function reply(message) {
    replyTo = message;
    replying.hidden = !message;
    replying.replaceChildren(...(message ? [`Replying to ${userName(message.author)} `,
      h("button", { type: "button", className: "plain", ariaLabel: "Do not reply", onclick: () => reply(null) }, "✕")] : []));
    if (message) { closeCommand(); box.focus(); }
  }

  function closeCommand() {
    if (writing.isConnected) return;
    root.replaceChildren(writing);
    box.focus();
  }

  function openCommand(command) {
    box.value = "";
    const rows = (command.options ?? []).map((o) => makeRow(command, o, () => values(rows)));
    const cancel = h("button", { type: "button", className: "button secondary", onclick: closeCommand }, "Cancel");
    const problem = h("p", { className: "problem", role: "alert" });
    const run = h("button", { className: "button primary" }, "Run");
    const form = h("form", { className: "command", noValidate: true, ariaLabel: `/${command.name}` },
      h("p", { className: "title" }, h("b", {}, `/${command.name}`), ` ${command.description}`),
      h("div", { className: "options" }, ...rows.map((row) => row.element)), problem, h("div", { className: "row" }, run, cancel));
    form.onkeydown = (event) => {
      if (event.key === "Escape") closeCommand();
      if (event.key === "Enter" && event.target.matches("select")) { event.preventDefault(); form.requestSubmit(); }
    };
    form.onsubmit = async (event) => {
      event.preventDefault();
      const wrong = rows.filter((row) => !row.check());
      if (wrong.length) return wrong[0].input.focus();
      run.disabled = true;
      run.classList.add("waiting");
      try {
        onAnswer(await act("slash", { channel: state.channel, command: command.name, options: values(rows) }), `/${command.name}`);
        closeCommand();
      } catch (error) {
        if (!(error instanceof Refusal)) return onError(error);
        problem.textContent = error.message;
      } finally {
        run.disabled = false;
        run.classList.remove("waiting");
      }
    };
    root.replaceChildren(form);
    (rows[0]?.input ?? run).focus();
  }

  const values = (rows) => Object.fromEntries(rows.map((row) => [row.name, row.value()]).filter(([, value]) => value !== ""));

  function makeRow(command, o, current) {
    const id = `option-${++fields}`, input = makeInput(o), known = new Map();
    Object.assign(input, { id, required: Boolean(o.required) });
    input.setAttribute("aria-describedby", `${id}-about`);
    const problem = h("small", { className: "problem", role: "alert" });
    const element = h("div", { className: "option" },
      h("label", { htmlFor: id }, o.name, o.required && h("span", { className: "required" }, " required")),
      input, h("small", { id: `${id}-about` }, o.description), problem);
    const check = () => {
      problem.textContent = input.checkValidity() ? "" : input.validationMessage;
      input.setAttribute("aria-invalid", String(Boolean(problem.textContent)));
      return !problem.textContent;
    };
    input.addEventListener("change", check);
    const row = { name: o.name, input, element, check, value: () => known.get(input.value) ?? input.value };
    if (o.autocomplete) completeBy(row, known, () => act("autocomplete",
      { channel: state.channel, command: command.name, focused: o.name, options: current() }));
    return row;
  }

  function completeBy({ input, element }, known, ask) {
    const choices = suggest(input, (item) => { input.value = item.title; });
    element.append(choices.list);
    let timer, asked = 0;
    const offerChoices = () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const turn = ++asked, found = await ask().catch(() => []);
        if (turn !== asked || document.activeElement !== input) return;
        found.forEach((choice) => known.set(choice.name, choice.value));
        choices.show(found.map((choice) => ({ title: choice.name })));
      }, 150);
    };
    input.addEventListener("input", offerChoices);
    input.addEventListener("focus", offerChoices);
  }

  return {
    reply,
    reset() { reply(null); closeCommand(); picker.show([]); box.placeholder = `Message #${state.channels.find((one) => one.id === state.channel)?.name}, or / for commands`; },
  };
}

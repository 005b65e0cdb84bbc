/** Slash commands: search while typing, and the form of a command's options. */

import { act, state, upload } from "/page/api.js";
import { field, h, iconButton, suggest } from "/page/dom.js";
import { availableCommands, encode, channelName, users, userName } from "/page/guild.js";

const SLASH = 1, SUBCOMMAND = 1, GROUP = 2, ATTACHMENT = 11, AUTOCOMPLETE_DELAY_MS = 150;

/** Every (sub)command by its full name. */
function flatten(command, prefix = "") {
  const name = `${prefix}${command.name}`;
  const inner = (command.options ?? []).filter((option) => option.type === SUBCOMMAND || option.type === GROUP);
  return inner.length ? inner.flatMap((option) => flatten(option, `${name} `)) : [{ ...command, name }];
}

/** Suggest commands for the typed text; words after a complete name fill its options. */
export function commandsFor(text) {
  const typed = /^\/([^\n]*)/.exec(text)?.[1].toLowerCase();
  if (typed === undefined) return [];
  const matchesName = (command) => `${command.name} `.startsWith(typed) || command.name.split(" ").some((word) => word.startsWith(typed.trim()));
  const takesRest = (command) => typed.startsWith(`${command.name} `);
  return availableCommands(SLASH).flatMap((command) => flatten(command)).filter((command) => matchesName(command) || takesRest(command))
    .sort((a, b) => b.name.startsWith(typed) - a.name.startsWith(typed) || takesRest(b) - takesRest(a))
    .map((command) => ({ title: `/${command.name}`, hint: command.description, command, rest: takesRest(command) ? text.slice(command.name.length + 2).trim() : "" }));
}

/** Divide `words name:value name:value` by the options' names; words without a name belong to the first option. */
export function optionsTyped(rest, options) {
  const names = options.map((o) => o.name).join("|"), found = names ? [...rest.matchAll(new RegExp(`(?:^|\\s)(${names}):(?=\\S)`, "g"))] : [];
  const named = found.map((match, index) => [match[1], rest.slice(match.index + match[0].length, found[index + 1]?.index).trim()]);
  const unnamed = rest.slice(0, found[0]?.index).trim();
  return Object.fromEntries(unnamed && options.length && options[0].type !== ATTACHMENT ? [[options[0].name, unnamed], ...named] : named);
}

/** Put typed text into an option's input; of a list, select the entry with that value or label. A file has to be chosen. */
function fill({ input, check }, text) {
  const entry = [...(input.options ?? [])].find((one) => [one.value, one.text].some((own) => own.toLowerCase() === text.toLowerCase()));
  if (input.type === "file") return;
  input.value = entry ? entry.value : text;
  if (input.value || !text) return;
  input.setCustomValidity(`'${text}' cannot be a value of this option.`); // a number input and a list drop it
  input.addEventListener("input", () => { input.setCustomValidity(""); check(); }, { once: true });
  check();
}

const select = (options) => h("select", {}, [["", "—"], ...options].map(([value, label]) => h("option", { value }, label)));
const number = (step) => (o) => h("input", { type: "number", step, min: o.min_value ?? "", max: o.max_value ?? "" });

/** Inputs by option type; text otherwise. */
const INPUTS = {
  4: number("1"), 10: number("any"),
  5: () => select([["true", "True"], ["false", "False"]]),
  6: () => select(users().map((user) => [user.id, userName(user)])),
  7: (o) => select(state.channels.filter((one) => !o.channel_types || o.channel_types.includes(one.type)).map((one) => [one.id, channelName(one)])),
  8: () => select(state.roles.map((role) => [role.id, role.name])),
  [ATTACHMENT]: () => h("input", { type: "file" }),
};

function makeInput(o) {
  if (o.choices?.length) return select(o.choices.map((choice) => [choice.value, choice.name]));
  const text = () => h("input", { type: "text", autocomplete: "off", minLength: o.min_length ?? 0, maxLength: o.max_length ?? 6000 });
  return (INPUTS[o.type] ?? text)(o);
}

/** The form of a command: required options first, optional ones behind chips. `onClose` follows a run or a cancellation. */
export function commandForm({ command, rest }, { channel, onRun, onAnswer, onClose }) {
  const options = command.options ?? [], rows = [];
  const fields = h("div", { className: "options" }), chips = h("div", { className: "chips", role: "group", ariaLabel: "Optional" });
  const problem = h("p", { className: "problem", role: "alert" }), run = h("button", { className: "button primary" }, "Run");
  const values = () => Object.fromEntries(rows.map((row) => [row.name, row.value()]).filter(([, value]) => value !== ""));
  const typed = () => Object.fromEntries(Object.entries(values()).filter(([, value]) => !(value instanceof File)));
  const form = h("form", { className: "command", noValidate: true, ariaLabel: `/${command.name}` },
    h("p", { className: "title" }, h("b", {}, `/${command.name}`), " ", h("span", {}, command.description), iconButton("✕", "Cancel", { onclick: onClose })),
    fields, problem, h("div", { className: "row" }, chips, run));

  function add(o) {
    const chip = [...chips.children].find((one) => one.option === o), input = makeInput(o), known = new Map();
    const drop = () => { rows.splice(rows.indexOf(row), 1); row.element.remove(); chip.hidden = false; chip.focus(); };
    const row = { ...field({ label: o.name, description: o.description, input, required: o.required, onRemove: o.required ? null : drop }), name: o.name };
    row.value = () => (o.type === ATTACHMENT ? input.files[0] ?? "" : known.get(input.value)) ?? (o.type === 3 ? encode(input.value) : input.value);
    if (o.autocomplete) completeBy(row, known, () => act("autocomplete", { channel, command: command.name, focused: o.name, options: typed() }));
    rows.push(row);
    fields.append(row.element);
    if (chip) chip.hidden = true;
    return row;
  }

  function completeBy({ input, element }, known, ask) {
    const choices = suggest(input, (item) => { input.value = item.title; });
    element.append(choices.list);
    let timer, asked = 0;
    const offer = () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const turn = ++asked, found = await ask().catch(() => []);
        if (turn !== asked || document.activeElement !== input) return;
        found.forEach((choice) => known.set(choice.name, choice.value));
        choices.show(found.map((choice) => ({ title: choice.name })));
      }, AUTOCOMPLETE_DELAY_MS);
    };
    input.addEventListener("input", offer);
    input.addEventListener("focus", offer);
  }

  // A press must not blur a field: the form would shrink by its hint before the button is released.
  let untouched = true;
  form.onmousedown = (event) => { untouched = false; if (event.target.closest("button")) event.preventDefault(); };
  form.onkeydown = (event) => {
    // Without required options, Enter runs the command just chosen, though the first chip has the focus.
    if (event.key === "Enter" && untouched && event.target.matches(".chip")) { event.preventDefault(); if (!event.repeat) form.requestSubmit(run); }
    else untouched = false;
    if (event.key === "Escape") { event.stopPropagation(); onClose(); }
    if (event.key === "Enter" && event.target.matches("select")) { event.preventDefault(); form.requestSubmit(run); }
  };
  form.onsubmit = async (event) => {
    event.preventDefault();
    const wrong = rows.filter((row) => !row.check());
    if (wrong.length) return wrong[0].input.focus();
    run.disabled = true;
    run.classList.add("waiting");
    problem.textContent = "";
    onRun();
    try {
      const filled = Object.entries(values()).map(async ([name, value]) => [name, value instanceof File ? { upload: (await upload(value)).id } : value]);
      onAnswer(await act("slash", { channel, command: command.name, options: Object.fromEntries(await Promise.all(filled)) }));
      onClose();
    } catch (error) {
      problem.textContent = error.message;
    }
    run.disabled = false;
    run.classList.remove("waiting");
  };
  options.filter((o) => !o.required).forEach((o) => chips.append(Object.assign(
    h("button", { type: "button", className: "chip", title: o.description, onclick: () => add(o).input.focus() }, `+${o.name}`), { option: o })));
  options.filter((o) => o.required).forEach(add);
  for (const [name, text] of Object.entries(optionsTyped(rest, options)))
    fill(rows.find((row) => row.name === name) ?? add(options.find((o) => o.name === name)), text);
  return { form, focus: () => (rows[0]?.input ?? chips.firstChild ?? run).focus() };
}

/** Slash commands: search while typing, and the form of a command's options. */

import { act, state, upload } from "/page/api.js";
import { field, h, iconButton, suggest } from "/page/dom.js";
import { availableCommands, channelName, encode, localised, userName, users } from "/page/guild.js";

const SLASH = 1;
const SUBCOMMAND = 1;
const GROUP = 2;
const STRING = 3;
const INTEGER = 4;
const BOOLEAN = 5;
const USER = 6;
const CHANNEL = 7;
const ROLE = 8;
const NUMBER = 10;
const ATTACHMENT = 11;
const AUTOCOMPLETE_DELAY_MS = 150;
// As Discord's client does, a command with many optional options shows the first ones, and how many
// there are more.
const MAX_CHIPS = 3;
const FIRST_CHIPS = 2;

// ----------------------------------------------------------------------------------------- search

/** Every (sub)command by its full name and label. */
function flatten(command, group = null) {
  const name = group ? `${group.name} ${command.name}` : command.name;
  const label = group ? `${group.label} ${command.label}` : command.label;
  const isInner = (option) => option.type === SUBCOMMAND || option.type === GROUP;
  const inner = (command.options ?? []).filter(isInner);
  if (!inner.length) return [{ ...command, name, label }];
  return inner.flatMap((option) => flatten(option, { name, label }));
}

/** Every (sub)command that may be used here. */
function usableCommands() {
  return availableCommands(SLASH).flatMap((command) => flatten(command));
}

/** Suggest commands for the typed text; words after a complete name fill its options. */
export function commandsFor(text) {
  const typed = /^\/([^\n]*)/.exec(text)?.[1].toLowerCase();
  if (typed === undefined) return [];
  const begins = (command) => command.label.startsWith(typed);
  const takesRest = (command) => typed.startsWith(`${command.label} `);
  function fits(command) {
    if (`${command.label} `.startsWith(typed) || takesRest(command)) return true;
    return command.label.split(" ").some((word) => word.startsWith(typed.trim()));
  }
  const found = usableCommands().filter(fits);
  found.sort((a, b) => begins(b) - begins(a) || takesRest(b) - takesRest(a));
  return found.map((command) => {
    const rest = takesRest(command) ? text.slice(command.label.length + 2).trim() : "";
    return { title: `/${command.label}`, hint: command.description, command, rest };
  });
}

/** Say that there is no such command, and what its group has. */
export function unknownCommand(text) {
  const words = text.slice(1).trim().toLowerCase().split(/\s+/);
  const begin = (depth) => `/${words.slice(0, depth).join(" ")}`;
  let depth = 0; // how many words name a group
  let within = usableCommands().map((command) => command.label.split(" "));
  function inGroup() {
    return within.filter((name) => name.length > depth + 1 && name[depth] === words[depth]);
  }
  while (inGroup().length) {
    within = inGroup();
    depth += 1;
  }
  const names = [...new Set(within.map((name) => name[depth]))];
  const known = depth ? `${begin(depth)} has ${names.sort().join(", ")}` : "Type / for a list";
  const missing = begin(depth + 1);
  return `There is no command ${missing} here. ${known}; to send it as text, put a \\ before it.`;
}

/**
 * Divide `words label:value label:value` by the options' labels; words without one belong to the
 * first option. Returns the texts by the options' names.
 */
export function optionsTyped(rest, options) {
  const labels = options.map((option) => option.label).join("|");
  let found = [];
  if (labels) found = [...rest.matchAll(new RegExp(`(?:^|\\s)(${labels}):(?=\\S)`, "g"))];
  const typed = {};
  const unnamed = rest.slice(0, found[0]?.index).trim();
  if (unnamed && options.length && options[0].type !== ATTACHMENT) typed[options[0].name] = unnamed;
  found.forEach((match, place) => {
    const end = found[place + 1]?.index;
    const { name } = options.find((option) => option.label === match[1]);
    typed[name] = rest.slice(match.index + match[0].length, end).trim();
  });
  return typed;
}

// ----------------------------------------------------------------------------------------- inputs

function select(options) {
  const entries = [["", "—"], ...options];
  return h("select", {}, entries.map(([value, label]) => h("option", { value }, label)));
}

function number(step) {
  return ({ min_value: min, max_value: max }) =>
    h("input", { type: "number", step, min: min ?? "", max: max ?? "" });
}

function selectChannel({ channel_types: types }) {
  const channels = state.channels.filter((channel) => !types || types.includes(channel.type));
  return select(channels.map((channel) => [channel.id, channelName(channel)]));
}

/** Inputs by option type; text otherwise. */
const INPUTS = {
  [INTEGER]: number("1"),
  [NUMBER]: number("any"),
  [BOOLEAN]: () => select([["true", "True"], ["false", "False"]]),
  [USER]: () => select(users().map((user) => [user.id, userName(user)])),
  [CHANNEL]: selectChannel,
  [ROLE]: () => select(state.roles.map((role) => [role.id, role.name])),
  [ATTACHMENT]: () => h("input", { type: "file" }),
};

function makeInput(option) {
  if (option.choices?.length) {
    return select(option.choices.map((choice) => [choice.value, choice.label]));
  }
  const make = INPUTS[option.type];
  if (make) return make(option);
  return h("input", {
    type: "text",
    autocomplete: "off",
    minLength: option.min_length ?? 0,
    maxLength: option.max_length ?? 6000,
  });
}

/**
 * Put typed text into an option's input; of a list, select the entry with that value or label. A
 * file has to be chosen.
 */
function fill({ input, check }, text) {
  if (input.type === "file") return;
  const isMeant = (own) => own.toLowerCase() === text.toLowerCase();
  const entries = [...(input.options ?? [])];
  const entry = entries.find((each) => isMeant(each.value) || isMeant(each.text));
  input.value = entry ? entry.value : text;
  if (input.value || !text) return;
  // A number input and a list drop it.
  input.setCustomValidity(`'${text}' cannot be a value of this option.`);
  const recheck = () => {
    input.setCustomValidity("");
    check();
  };
  input.addEventListener("input", recheck, { once: true });
  check();
}

/** Suggest the bot's choices while an option is typed; `known` gets their values by name. */
function completeBy({ input, element }, known, ask) {
  const choices = suggest(input, (item) => { input.value = item.title; });
  element.append(choices.list);
  let timer;
  let asked = 0;
  async function askNow() {
    asked += 1;
    const turn = asked;
    const found = (await ask().catch(() => [])).map(localised);
    // Answers may come in another order than they were asked for.
    if (turn !== asked || document.activeElement !== input) return;
    for (const choice of found) known.set(choice.label, choice.value);
    choices.show(found.map((choice) => ({ title: choice.label })));
  }
  const offer = () => {
    clearTimeout(timer);
    timer = setTimeout(askNow, AUTOCOMPLETE_DELAY_MS);
  };
  input.addEventListener("input", offer);
  input.addEventListener("focus", offer);
}

// ------------------------------------------------------------------------------------------- form

/** Upload a file among the values; any other value is sent as it is. */
async function sentValue(value) {
  if (!(value instanceof File)) return value;
  const uploaded = await upload(value);
  return { upload: uploaded.id };
}

/** Hide all but the first of many chips behind one that brings them out. */
function foldChips(chips) {
  if (chips.children.length <= MAX_CHIPS) return;
  const rest = [...chips.children].slice(FIRST_CHIPS);
  const more = h("button", { type: "button", className: "chip more" }, `${rest.length} more`);
  for (const chip of rest) chip.classList.add("folded");
  more.onclick = () => {
    for (const chip of rest) chip.classList.remove("folded");
    more.remove();
    rest.find((chip) => !chip.hidden)?.focus();
  };
  chips.append(more);
}

/**
 * The form of a command: required options first, optional ones behind chips. `onClose` follows a
 * run or a cancellation.
 */
export function commandForm({ command, rest }, { channel, onRun, onAnswer, onClose }) {
  const options = command.options ?? [];
  const rows = [];
  const fields = h("div", { className: "options" });
  const chips = h("div", { className: "chips", role: "group", ariaLabel: "Optional" });
  const problem = h("p", { className: "problem", role: "alert" });
  const run = h("button", { className: "button primary" }, "Run");
  const title = h(
    "p",
    { className: "title" },
    h("b", {}, `/${command.label}`),
    " ",
    h("span", {}, command.description),
    iconButton("✕", "Cancel", { onclick: onClose }),
  );
  const form = h(
    "form",
    { className: "command", noValidate: true, ariaLabel: `/${command.label}` },
    title,
    fields,
    problem,
    h("div", { className: "row" }, chips, run),
  );

  /** The options that have a value, with the value. */
  function values() {
    const pairs = rows.map((row) => [row.name, row.value()]);
    return pairs.filter(([, value]) => value !== "");
  }

  function askForChoices(option) {
    const typed = values().filter(([, value]) => !(value instanceof File));
    return act("autocomplete", {
      channel,
      command: command.name,
      focused: option.name,
      options: Object.fromEntries(typed),
    });
  }

  function add(option) {
    const chip = [...chips.children].find((each) => each.option === option);
    const input = makeInput(option);
    const known = new Map();
    const drop = () => {
      rows.splice(rows.indexOf(row), 1);
      row.element.remove();
      chip.hidden = false;
      chip.focus();
    };
    const row = field({
      label: option.label,
      description: option.description,
      input,
      required: option.required,
      onRemove: option.required ? null : drop,
    });
    row.name = option.name;
    row.value = () => {
      if (option.type === ATTACHMENT) return input.files[0] ?? "";
      if (known.has(input.value)) return known.get(input.value);
      return option.type === STRING ? encode(input.value) : input.value;
    };
    if (option.autocomplete) completeBy(row, known, () => askForChoices(option));
    rows.push(row);
    fields.append(row.element);
    if (chip) chip.hidden = true;
    return row;
  }

  // A press must not blur a field: the form would shrink by its hint before the button is released.
  let untouched = true;
  form.onmousedown = (event) => {
    untouched = false;
    if (event.target.closest("button")) event.preventDefault();
  };
  form.onkeydown = (event) => {
    // Without required options, Enter runs the command just chosen, though the first chip has the
    // focus.
    if (event.key === "Enter" && untouched && event.target.matches(".chip:not(.more)")) {
      event.preventDefault();
      if (!event.repeat) form.requestSubmit(run);
    } else {
      untouched = false;
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      onClose();
    }
    if (event.key === "Enter" && event.target.matches("select")) {
      event.preventDefault();
      form.requestSubmit(run);
    }
  };
  form.onsubmit = async (event) => {
    event.preventDefault();
    const wrong = rows.filter((row) => !row.check());
    if (wrong.length) {
      wrong[0].input.focus();
      return;
    }
    run.disabled = true;
    run.classList.add("waiting");
    problem.textContent = "";
    onRun();
    try {
      const sent = values().map(async ([name, value]) => [name, await sentValue(value)]);
      const filled = Object.fromEntries(await Promise.all(sent));
      onAnswer(await act("slash", { channel, command: command.name, options: filled }));
      onClose();
    } catch (error) {
      problem.textContent = error.message;
    }
    run.disabled = false;
    run.classList.remove("waiting");
  };

  for (const option of options) {
    if (option.required) continue;
    const props = { type: "button", className: "chip", title: option.description };
    const chip = h("button", props, `+${option.label}`);
    chip.onclick = () => add(option).input.focus();
    chip.option = option;
    chips.append(chip);
  }
  foldChips(chips);
  for (const option of options) {
    if (option.required) add(option);
  }
  for (const [name, text] of Object.entries(optionsTyped(rest, options))) {
    const row = rows.find((each) => each.name === name);
    fill(row ?? add(options.find((option) => option.name === name)), text);
  }
  const first = () => rows[0]?.input ?? chips.firstChild ?? run;
  return { form, focus: () => first().focus() };
}

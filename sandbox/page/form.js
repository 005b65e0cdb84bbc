/** A form the bot opens (Discord's modal). */

import { act, upload } from "/page/api.js";
import { choose, isSelect, selectedLabels, defaultValues } from "/page/select_menu.js";
import { field, h, openDialog } from "/page/dom.js";
import { markdown } from "/page/markdown.js";
import { selectButton } from "/page/message_parts.js";

const PARAGRAPH = 2;
const TEXT_DISPLAY = 10;
const FILE_UPLOAD = 19;

function makeSelect(part) {
  const button = selectButton(part);
  button.values = defaultValues(part);
  button.removeAttribute("aria-label"); // the field has a label
  button.onclick = () => choose(part, button, button.values, (values) => {
    button.values = values;
    const label = selectedLabels(part, values) || part.placeholder || "Make a selection";
    button.firstChild.textContent = label;
    button.dispatchEvent(new Event("change"));
  });
  return button;
}

/** A field for files. What is chosen stays until the form is submitted, also if it is refused. */
function makeUpload({ label, description, part, required }) {
  const most = part.max_values ?? 1;
  const least = part.min_values ?? 1;
  const input = h("input", { type: "file", multiple: most > 1 });
  function findProblem() {
    const { length } = input.files;
    if (length > most) return `Choose ${most} or fewer files. There are ${length}.`;
    if (length && length < least) return `Choose at least ${least} files.`;
    return "";
  }
  const made = field({ label, description, input, required, findProblem });
  const value = async () => {
    const uploaded = await Promise.all([...input.files].map(upload));
    return { uploads: uploaded.map((file) => file.id) };
  };
  return { ...made, name: part.custom_id, value };
}

function makeField({ label, description, part }) {
  const required = part.required ?? true;
  if (part.type === FILE_UPLOAD) return makeUpload({ label, description, part, required });
  if (isSelect(part)) {
    const input = makeSelect(part);
    const findProblem = () => (required && !input.values.length ? "Make a selection." : "");
    const made = field({ label, description, input, required, findProblem });
    return { ...made, name: part.custom_id, value: () => input.values };
  }
  const minLength = part.min_length ?? 0;
  const maxLength = part.max_length ?? 4000;
  const input = h(part.style === PARAGRAPH ? "textarea" : "input", {
    minLength,
    placeholder: part.placeholder ?? "",
    autocomplete: "off",
  });
  input.value = part.value ?? "";
  // Browsers check minlength for typed text only, not for the initial value, and cut what is pasted
  // at maxlength without a word.
  function findProblem() {
    const { length } = input.value;
    if (length > maxLength) return `Must be ${maxLength} or fewer in length. It has ${length}.`;
    if (length && length < minLength) return `Must be at least ${minLength} in length.`;
    return "";
  }
  const made = field({ label, description, input, required, findProblem });
  return { ...made, name: part.custom_id, value: () => input.value };
}

/** Inputs of a row: a label around one input, or an action row. */
function parts(row) {
  if (row.component) {
    return [{ label: row.label, description: row.description, part: row.component }];
  }
  const label = (part) => part.label ?? part.placeholder ?? "";
  return (row.components ?? []).map((part) => ({ label: label(part), part }));
}

export function openForm({ modal, form }, onAnswer) {
  const texts = modal.components.filter((row) => row.type === TEXT_DISPLAY);
  const words = texts.map((row) => h("div", {}, markdown(row.content)));
  const fields = modal.components.flatMap(parts).map(makeField);
  openDialog({
    title: modal.title,
    body: words,
    fields,
    submit: "Submit",
    async onSubmit() {
      const filled = fields.map(async (each) => [each.name, await each.value()]);
      const values = Object.fromEntries(await Promise.all(filled));
      const answer = await act("submit", { form, fields: values });
      if (answer.type === null) throw new Error("Something went wrong. Try again.");
      onAnswer(answer);
    },
  });
}

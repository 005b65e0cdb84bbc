/** A form the bot opens (Discord's modal). */

import { act } from "/page/api.js";
import { choose, isSelect, selectedLabels, defaultValues } from "/page/select_menu.js";
import { field, h, openDialog } from "/page/dom.js";
import { markdown } from "/page/markdown.js";
import { selectButton } from "/page/message_parts.js";

const PARAGRAPH = 2, TEXT_DISPLAY = 10;

function makeSelect(part) {
  const button = selectButton(part);
  button.values = defaultValues(part);
  button.removeAttribute("aria-label"); // the field has a label
  button.onclick = () => choose(part, button, button.values, (values) => {
    button.values = values;
    button.firstChild.textContent = selectedLabels(part, values) || part.placeholder || "Make a selection";
    button.dispatchEvent(new Event("change"));
  });
  return button;
}

function makeField({ label, description, part }) {
  const required = part.required ?? true;
  if (isSelect(part)) {
    const input = makeSelect(part);
    const findProblem = () => (required && !input.values.length ? "Make a selection." : "");
    return { ...field({ label, description, input, required, findProblem }), name: part.custom_id, value: () => input.values };
  }
  const limits = { minLength: part.min_length ?? 0, maxLength: part.max_length ?? 4000 };
  const input = h(part.style === PARAGRAPH ? "textarea" : "input", { ...limits, placeholder: part.placeholder ?? "", autocomplete: "off" });
  input.value = part.value ?? "";
  // Browsers check minlength for typed text only, not for the initial value.
  const findProblem = () => (input.value && input.value.length < limits.minLength ? `Must be at least ${limits.minLength} in length.` : "");
  return { ...field({ label, description, input, required, findProblem }), name: part.custom_id, value: () => input.value };
}

/** Inputs of a row: a label around one input, or an action row. */
const parts = (row) => (row.component ? [{ label: row.label, description: row.description, part: row.component }]
  : (row.components ?? []).map((part) => ({ label: part.label ?? part.placeholder ?? "", part })));

export function openForm({ modal, form }, onAnswer) {
  const words = modal.components.filter((row) => row.type === TEXT_DISPLAY).map((row) => h("div", {}, markdown(row.content)));
  const fields = modal.components.flatMap(parts).map(makeField);
  openDialog({
    title: modal.title, body: words, fields, submit: "Submit",
    async onSubmit() {
      const answer = await act("submit", { form, fields: Object.fromEntries(fields.map((one) => [one.name, one.value()])) });
      if (answer.type === null) throw new Error("Something went wrong. Try again.");
      onAnswer(answer);
    },
  });
}

/** A form the bot opens (Discord's modal). */

import { act } from "/page/api.js";
import { h } from "/page/dom.js";

const PARAGRAPH = 2;

function makeField({ label, description, text }, index) {
  const limits = { minLength: text.min_length ?? 0, maxLength: text.max_length ?? 4000 };
  const common = { id: `form-${index}`, name: text.custom_id, value: text.value ?? "", placeholder: text.placeholder ?? "" };
  const required = text.required ?? true;
  const input = h(text.style === PARAGRAPH ? "textarea" : "input", { ...common, ...limits, required });
  return h("div", { className: "option" },
    h("label", { htmlFor: common.id }, label, required && h("span", { className: "required" }, " required")), input,
    description && h("small", {}, description));
}

/** Text inputs of both shapes: labels around one, and action rows. */
function texts(modal) {
  return modal.components.flatMap((row) => row.component
    ? [{ label: row.label, description: row.description, text: row.component }]
    : (row.components ?? []).map((text) => ({ label: text.label, text })));
}

export function openForm(dialog, { modal, form }, onAnswer) {
  const problem = h("p", { className: "problem", role: "alert" });
  const cancel = h("button", { type: "button", className: "button secondary", onclick: () => dialog.close() }, "Cancel");
  const element = h("form", {}, h("h2", { id: "form-title" }, modal.title), ...texts(modal).map(makeField), problem,
    h("div", { className: "row" }, h("button", { className: "button primary" }, "Submit"), cancel));
  element.onsubmit = async (event) => {
    event.preventDefault();
    try {
      const answer = await act("submit", { form, fields: Object.fromEntries(new FormData(element)) });
      if (answer.type === null) { problem.textContent = "Something went wrong. Try again."; return; }
      dialog.close();
      onAnswer(answer, modal.title);
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  dialog.setAttribute("aria-labelledby", "form-title");
  dialog.replaceChildren(element);
  dialog.showModal();
}

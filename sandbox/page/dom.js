/** DOM helpers without innerHTML, so that no message can inject markup, and shared widgets. */

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element) element[name] = value;
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** A button with an icon and an accessible label. */
export const iconButton = (text, label, props = {}) =>
  h("button", { type: "button", className: "sign", title: label, ariaLabel: label, ...props }, h("span", { ariaHidden: "true" }, text));

let lastId = 0;

/** Suggestions over a text field (the ARIA combobox pattern): arrows move, Enter and Tab choose, Escape closes. */
export function suggest(field, onChoose) {
  const list = h("ul", { className: "suggestions", role: "listbox", ariaLabel: "Suggestions", id: `suggestions-${++lastId}`, hidden: true });
  let items = [], active = 0;
  const single = field.matches("input");
  if (single) field.setAttribute("role", "combobox"); // not allowed for a textarea
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);

  function show(next) {
    [items, active] = [next, 0];
    list.replaceChildren(...items.map((item, index) => h("li", {
      role: "option", id: `${list.id}-${index}`,
      onmousedown: (event) => { event.preventDefault(); choose(index); },
    }, item.face, h("span", {}, item.title), item.hint && h("small", {}, item.hint))));
    list.hidden = !items.length;
    if (single) field.setAttribute("aria-expanded", String(!list.hidden));
    mark();
  }
  function mark() {
    [...list.children].forEach((row, index) => row.setAttribute("aria-selected", String(index === active)));
    list.children[active]?.scrollIntoView({ block: "nearest" });
    if (list.hidden) field.removeAttribute("aria-activedescendant");
    else field.setAttribute("aria-activedescendant", `${list.id}-${active}`);
  }
  function choose(index) {
    const item = items[index];
    show([]);
    onChoose(item);
  }
  field.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing || event.shiftKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) active = (active + step + items.length) % items.length;
    else if (event.key === "Enter" || event.key === "Tab") choose(active);
    else if (event.key === "Escape") show([]);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
    mark();
  });
  field.addEventListener("blur", () => show([]));
  show([]);
  return { list, show };
}

/**
 * Open a menu under an element or at a point; focus comes back to where it was. An item has a label and a `run`, and may
 * have a hint, a face, `checked` (a choice), `danger`, or be `{ title, items }`: a group. With `values` it is a list of
 * values to choose from; `stay` keeps it open for more than one.
 */
export function openMenu(items, at, { label, values = false, stay = false, onClose } = {}) {
  const from = document.activeElement, mark = values ? "aria-selected" : "aria-checked";
  const row = (item) => h("button", {
    type: "button", tabIndex: -1, className: item.danger ? "item risky" : "item",
    role: values ? "option" : item.checked === undefined ? "menuitem" : "menuitemradio",
    [mark]: item.checked === undefined ? null : String(item.checked),
    onclick: (event) => {
      if (!stay) menu.hidePopover();
      item.run(event);
      if (stay) rows.forEach((one) => one.setAttribute(mark, String(one.item.checked)));
    },
  }, item.face, h("span", {}, item.label, item.hint && h("small", {}, item.hint)));
  const rowOf = (item) => Object.assign(row(item), { item });
  const draw = (item) => (item.items
    ? h("div", { role: "group", ariaLabel: item.title }, h("p", { ariaHidden: "true" }, item.title), item.items.map(rowOf)) : rowOf(item));
  const menu = h("div", { className: "menu", role: values ? "listbox" : "menu", popover: "auto", ariaLabel: label ?? "Menu", "aria-multiselectable": stay || null }, items.filter(Boolean).map(draw));
  const rows = [...menu.querySelectorAll(".item")];
  menu.onkeydown = (event) => {
    const index = rows.indexOf(document.activeElement), step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = step ? rows.at((index + step) % rows.length) : event.key === "Home" ? rows[0] : event.key === "End" ? rows.at(-1)
      : rows.find((one, n) => n > index && one.textContent.toLowerCase().startsWith(event.key));
    if (event.key === "Tab") menu.hidePopover();
    else next?.focus();
    if (next || event.key === "Tab") event.preventDefault();
    event.stopPropagation();
  };
  menu.addEventListener("beforetoggle", (event) => {
    if (event.newState === "open") return;
    if (menu.contains(document.activeElement)) from?.focus();
    setTimeout(() => menu.remove());
    onClose?.();
  });
  // Everything outside an open dialog is inert.
  (document.querySelector("dialog:modal") ?? $("main")).append(menu);
  menu.showPopover();
  const box = menu.getBoundingClientRect(), near = at.getBoundingClientRect?.() ?? { left: at.x, top: at.y, bottom: at.y };
  const fitsBelow = near.bottom + box.height + 8 < innerHeight;
  menu.style.left = `${Math.max(8, Math.min(near.left, innerWidth - box.width - 8))}px`;
  menu.style.top = `${Math.max(8, fitsBelow ? near.bottom + 2 : near.top - box.height - 2)}px`;
  (rows.find((one) => one.item.checked) ?? rows[0])?.focus();
}

/** Run a function once no mouse button is down: releasing one closes open menus in newer browsers. */
export function afterRelease(event, run) {
  if (event.buttons) addEventListener("pointerup", () => setTimeout(run), { once: true });
  else run();
}

/** A labelled input with validation messages: the browser's own first, then `findProblem`'s. */
export function field({ label, description, input, required, onRemove, findProblem = () => "" }) {
  const id = `field-${++lastId}`, problem = h("small", { className: "problem", role: "alert" });
  Object.assign(input, { id, required: Boolean(required) });
  if (description) input.setAttribute("aria-describedby", `${id}-about`);
  const remove = onRemove && iconButton("✕", `Leave out ${label}`, { onclick: onRemove });
  const element = h("div", { className: "field" }, h("label", { htmlFor: id }, label, required && h("span", { className: "required" }, " required")),
    h("div", { className: "entry" }, input, remove), description && h("small", { id: `${id}-about`, className: "about" }, description), problem);
  const check = () => {
    problem.textContent = input.checkValidity() ? findProblem() : input.validationMessage;
    input.setAttribute("aria-invalid", String(Boolean(problem.textContent)));
    return !problem.textContent;
  };
  // Shown on submit, cleared while typing: never on blur, which would move the button being pressed.
  for (const kind of ["input", "change"]) input.addEventListener(kind, () => { if (problem.textContent) check(); });
  return { element, input, check };
}

/** Open a dialog. An error thrown by `onSubmit` is shown in it. */
export function openDialog({ title, fields = [], body = [], submit = "OK", danger = false, onSubmit }) {
  const problem = h("p", { className: "problem", role: "alert" }), id = `dialog-${++lastId}`;
  const cancel = h("button", { type: "button", className: "button secondary", onclick: () => dialog.close() }, "Cancel");
  const send = h("button", { className: `button ${danger ? "danger" : "primary"}` }, submit);
  const form = h("form", { noValidate: true }, h("h2", { id }, title), body, fields.map((one) => one.element), problem,
    h("div", { className: "row" }, send, cancel));
  const dialog = h("dialog", { "aria-labelledby": id, onclose: () => dialog.remove() }, form);
  form.onsubmit = async (event) => {
    event.preventDefault();
    const invalid = fields.filter((one) => !one.check());
    if (invalid.length) return invalid[0].input.focus();
    send.classList.add("waiting");
    try {
      await onSubmit(() => dialog.close());
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
    }
    send.classList.remove("waiting");
  };
  document.body.append(dialog);
  dialog.showModal();
  (fields[0]?.input ?? send).focus();
  return dialog;
}

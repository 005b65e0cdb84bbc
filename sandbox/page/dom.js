/** DOM helpers without innerHTML, so that no message can inject markup, and shared widgets. */

/**
 * Build an element. A prop is a property where elements have one of that name, else an attribute.
 * Children may be arrays of elements or texts.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  const isPresent = (value) => value !== null && value !== undefined && value !== false;
  for (const [name, value] of Object.entries(props)) {
    if (name in element) element[name] = value;
    else if (isPresent(value)) element.setAttribute(name, value);
  }
  // Absent parts are left out, so that callers may write `condition && h(...)`.
  element.append(...children.flat(2).filter(isPresent));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** A button with an icon and an accessible label. */
export function iconButton(text, label, props = {}) {
  const common = { type: "button", className: "sign", title: label, ariaLabel: label };
  return h("button", { ...common, ...props }, h("span", { ariaHidden: "true" }, text));
}

let lastId = 0;

/** Ids tie fields to their labels, descriptions and lists of suggestions. */
function newId(kind) {
  lastId += 1;
  return `${kind}-${lastId}`;
}

/**
 * Suggestions over a text field (the ARIA combobox pattern): arrows move, Enter and Tab choose,
 * Escape closes.
 */
export function suggest(field, onChoose) {
  const list = h("ul", {
    className: "suggestions",
    role: "listbox",
    ariaLabel: "Suggestions",
    id: newId("suggestions"),
    hidden: true,
  });
  let items = [];
  let active = 0;
  const single = field.matches("input");
  if (single) field.setAttribute("role", "combobox"); // not allowed for a textarea
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);

  function row(item, index) {
    const onmousedown = (event) => {
      event.preventDefault(); // the field keeps the focus
      choose(index);
    };
    return h(
      "li",
      { role: "option", id: `${list.id}-${index}`, onmousedown },
      item.face,
      h("span", {}, item.title),
      item.hint && h("small", {}, item.hint),
    );
  }
  function show(next) {
    items = next;
    active = 0;
    list.replaceChildren(...items.map(row));
    list.hidden = !items.length;
    if (single) field.setAttribute("aria-expanded", String(!list.hidden));
    mark();
  }
  function mark() {
    [...list.children].forEach((option, index) => {
      option.setAttribute("aria-selected", String(index === active));
    });
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
 * Open a menu under an element or at a point; focus comes back to where it was. An item has a label
 * and a `run`, and may have a hint, a face, `checked` (a choice), `danger`, or be
 * `{ title, items }`: a group. With `values` it is a list of values to choose from; `stay` keeps it
 * open for more than one.
 */
export function openMenu(items, at, { label, values = false, stay = false, onClose } = {}) {
  const from = document.activeElement;
  const mark = values ? "aria-selected" : "aria-checked";

  function roleOf(item) {
    if (values) return "option";
    return item.checked === undefined ? "menuitem" : "menuitemradio";
  }
  function row(item) {
    const props = {
      type: "button",
      tabIndex: -1,
      className: item.danger ? "item risky" : "item",
      role: roleOf(item),
      [mark]: item.checked === undefined ? null : String(item.checked),
    };
    props.onclick = (event) => {
      if (!stay) menu.hidePopover();
      item.run(event);
      if (stay) rows.forEach((each) => each.setAttribute(mark, String(each.item.checked)));
    };
    const hint = item.hint && h("small", {}, item.hint);
    const button = h("button", props, item.face, h("span", {}, item.label, hint));
    button.item = item;
    return button;
  }
  function draw(item) {
    if (!item.items) return row(item);
    const title = h("p", { ariaHidden: "true" }, item.title);
    return h("div", { role: "group", ariaLabel: item.title }, title, item.items.map(row));
  }
  const menuProps = {
    id: newId("menu"),
    className: "menu",
    role: values ? "listbox" : "menu",
    popover: "auto",
    ariaLabel: label ?? "Menu",
    "aria-multiselectable": stay || null,
  };
  const menu = h("div", menuProps, items.filter(Boolean).map(draw));
  const rows = [...menu.querySelectorAll(".item")];

  /** The row that a key moves to: the next, the first, the last, or the next with its letter. */
  function rowAfter(key) {
    const index = rows.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    if (step) return rows.at((index + step) % rows.length);
    if (key === "Home") return rows[0];
    if (key === "End") return rows.at(-1);
    const begins = (each) => each.textContent.toLowerCase().startsWith(key);
    return rows.find((each, place) => place > index && begins(each));
  }
  /** Focus a row, the only one that the Tab key would reach. */
  function focusRow(next) {
    if (!next) return;
    for (const each of rows) each.tabIndex = each === next ? 0 : -1;
    next.focus();
  }
  menu.onkeydown = (event) => {
    const next = rowAfter(event.key);
    if (event.key === "Tab") menu.hidePopover();
    else focusRow(next);
    if (next || event.key === "Tab") event.preventDefault();
    event.stopPropagation();
  };
  menu.addEventListener("beforetoggle", (event) => {
    if (event.newState === "open") return;
    if (menu.contains(document.activeElement)) from?.focus();
    if (values) at.removeAttribute("aria-controls");
    setTimeout(() => menu.remove());
    onClose?.();
  });
  // Everything outside an open dialog is inert.
  (document.querySelector("dialog:modal") ?? $("main")).append(menu);
  menu.showPopover();
  placeMenu(menu, at.getBoundingClientRect?.() ?? { left: at.x, top: at.y, bottom: at.y });
  if (values) at.setAttribute("aria-controls", menu.id);
  focusRow(rows.find((each) => each.item.checked) ?? rows[0]);
}

/** Place a menu below a box, or above it where there is no room, 8 pixels inside the window. */
function placeMenu(menu, near) {
  const { width, height } = menu.getBoundingClientRect();
  const fitsBelow = near.bottom + height + 8 < innerHeight;
  const left = Math.min(near.left, innerWidth - width - 8);
  const top = fitsBelow ? near.bottom + 2 : near.top - height - 2;
  menu.style.left = `${Math.max(8, left)}px`;
  menu.style.top = `${Math.max(8, top)}px`;
}

/**
 * Run a function once no mouse button is down: releasing one closes open menus in newer browsers.
 */
export function afterRelease(event, run) {
  if (event.buttons) addEventListener("pointerup", () => setTimeout(run), { once: true });
  else run();
}

/** A labelled input with validation messages: the browser's own first, then `findProblem`'s. */
export function field({ label, description, input, required, onRemove, findProblem = () => "" }) {
  const id = newId("field");
  const problem = h("small", { className: "problem", role: "alert" });
  input.id = id;
  input.required = Boolean(required);
  if (description) input.setAttribute("aria-describedby", `${id}-about`);
  const remove = onRemove && iconButton("✕", `Leave out ${label}`, { onclick: onRemove });
  const mark = required && h("span", { className: "required" }, " required");
  const element = h(
    "div",
    { className: "field" },
    h("label", { htmlFor: id }, label, mark),
    h("div", { className: "entry" }, input, remove),
    description && h("small", { id: `${id}-about`, className: "about" }, description),
    problem,
  );
  const check = () => {
    problem.textContent = input.checkValidity() ? findProblem() : input.validationMessage;
    input.setAttribute("aria-invalid", String(Boolean(problem.textContent)));
    return !problem.textContent;
  };
  // Shown on submit, cleared while typing: never on blur, which would move the button being
  // pressed.
  const recheck = () => {
    if (problem.textContent) check();
  };
  input.addEventListener("input", recheck);
  input.addEventListener("change", recheck);
  return { element, input, check };
}

/** Open a dialog. An error thrown by `onSubmit` is shown in it. */
export function openDialog(
  { title, fields = [], body = [], submit = "OK", danger = false, onSubmit },
) {
  const problem = h("p", { className: "problem", role: "alert" });
  const id = newId("dialog");
  const close = () => dialog.close();
  const cancel = h(
    "button", { type: "button", className: "button secondary", onclick: close }, "Cancel",
  );
  const send = h("button", { className: `button ${danger ? "danger" : "primary"}` }, submit);
  // Fields show the browser's messages themselves, beside them.
  const form = h(
    "form",
    { noValidate: true },
    h("h2", { id }, title),
    body,
    fields.map((each) => each.element),
    h("div", { className: "row" }, problem, send, cancel),
  );
  const dialog = h("dialog", { "aria-labelledby": id, onclose: () => dialog.remove() }, form);
  form.onsubmit = async (event) => {
    event.preventDefault();
    const invalid = fields.filter((each) => !each.check());
    if (invalid.length) {
      invalid[0].input.focus();
      return;
    }
    send.classList.add("waiting");
    try {
      await onSubmit(close);
      close();
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

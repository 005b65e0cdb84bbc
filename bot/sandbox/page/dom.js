/** Elements without innerHTML, so that nothing in a message can become markup. */

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element) element[name] = value;
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let lists = 0;

/** Suggestions over a text field (the ARIA combobox pattern): arrows move, Enter and Tab choose, Escape closes. */
export function suggest(field, onChoose) {
  const list = h("ul", { className: "suggestions", role: "listbox", ariaLabel: "Suggestions", id: `suggestions-${++lists}`, hidden: true });
  let items = [], active = 0;
  const single = field.matches("input");
  if (single) field.setAttribute("role", "combobox"); // which a textarea may not be
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);

  function show(next) {
    [items, active] = [next, 0];
    list.replaceChildren(...items.map((item, index) => h("li", {
      role: "option", id: `${list.id}-${index}`,
      onmousedown: (event) => { event.preventDefault(); choose(index); },
    }, h("span", {}, item.title), item.hint && h("small", {}, item.hint))));
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
    if (list.hidden || event.isComposing) return;
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

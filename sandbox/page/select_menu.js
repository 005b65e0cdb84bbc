/** Select menus of every type: their options, and the menu to choose from. */

import { state } from "/page/api.js";
import { h, openMenu } from "/page/dom.js";
import { avatar, DIRECT, channelName, users, userName } from "/page/guild.js";

const person = (user) => ({ value: user.id, label: userName(user), face: avatar(user, "avatar tiny") });
const role = ({ id, name }) => ({ value: id, label: `@${name}` });
const people = () => users().map(person), roles = () => state.roles.filter((one) => one.position).map(role);
const KINDS = {
  3: (part) => part.options.map(({ value, label, description, emoji }) => ({ value, label, hint: description, face: emoji?.name && h("span", {}, emoji.name) })),
  5: people, 6: roles, 7: () => [...people(), ...roles()],
  8: (part) => state.channels.filter((one) => one.type !== DIRECT && (!part.channel_types?.length || part.channel_types.includes(one.type)))
    .map((one) => ({ value: one.id, label: channelName(one) })),
};

export const isSelect = (part) => part.type in KINDS;
export const defaultValues = (part) => (part.options ?? []).filter((option) => option.default).map((option) => option.value)
  .concat((part.default_values ?? []).map((one) => one.id));
export const selectedLabels = (part, values) => KINDS[part.type](part).filter((one) => values.includes(one.value)).map((one) => one.label).join(", ");

/** Open a select menu. A single choice is reported at once, several when the menu closes. */
export function choose(part, at, chosen, onDone) {
  const most = part.max_values ?? 1, least = part.min_values ?? 1, values = new Set(chosen), before = [...values].sort().join();
  const options = KINDS[part.type](part).map((option) => ({
    ...option,
    get checked() { return values.has(option.value); },
    run() {
      if (most === 1 && !(values.has(option.value) && !least)) { values.clear(); values.add(option.value); }
      else if (!values.delete(option.value) && values.size < most) values.add(option.value);
      if (most === 1) onDone([...values]);
    },
  }));
  at.ariaExpanded = "true";
  const done = () => {
    at.ariaExpanded = "false";
    if (most > 1 && values.size >= least && [...values].sort().join() !== before) onDone([...values]);
  };
  const title = most > 1 ? `Choose ${least === most ? most : `${least} to ${most}`}` : part.placeholder || "Choose one";
  openMenu([{ title, items: options }], at, { label: title, values: true, stay: most > 1, onClose: done });
}

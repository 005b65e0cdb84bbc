/** Select menus of every type: their options, and the menu to choose from. */

import { state } from "/page/api.js";
import { h, openMenu } from "/page/dom.js";
import { avatar, DIRECT, channelName, users, userName } from "/page/guild.js";

function person(user) {
  return { value: user.id, label: userName(user), face: avatar(user, "avatar tiny") };
}

const role = ({ id, name }) => ({ value: id, label: `@${name}` });
const people = () => users().map(person);
// The role at position 0 is everybody's.
const roles = () => state.roles.filter((each) => each.position).map(role);

function listed({ value, label, description, emoji }) {
  return { value, label, hint: description, face: emoji?.name && h("span", {}, emoji.name) };
}

function channels({ channel_types: types }) {
  const isOffered = (channel) => !types?.length || types.includes(channel.type);
  const offered = state.channels.filter((channel) => channel.type !== DIRECT && isOffered(channel));
  return offered.map((channel) => ({ value: channel.id, label: channelName(channel) }));
}

/** Options of a select menu, by Discord's type of the menu. */
const KINDS = {
  3: (part) => part.options.map(listed),
  5: people,
  6: roles,
  7: () => [...people(), ...roles()],
  8: channels,
};

export const isSelect = (part) => part.type in KINDS;

/** The values that are chosen at first: of a list, and of users, roles or channels. */
export function defaultValues(part) {
  const values = (part.options ?? []).filter((option) => option.default)
    .map((option) => option.value);
  const ids = (part.default_values ?? []).map((each) => each.id);
  return [...values, ...ids];
}

export function selectedLabels(part, values) {
  const chosen = KINDS[part.type](part).filter((option) => values.includes(option.value));
  return chosen.map((option) => option.label).join(", ");
}

function menuTitle(part, least, most) {
  if (most === 1) return part.placeholder || "Choose one";
  return `Choose ${least === most ? most : `${least} to ${most}`}`;
}

/** Open a select menu. A single choice is reported at once, several when the menu closes. */
export function choose(part, at, chosen, onDone) {
  const most = part.max_values ?? 1;
  const least = part.min_values ?? 1;
  const isSingle = most === 1;
  const values = new Set(chosen);
  const sorted = () => [...values].sort().join();
  const before = sorted();

  function toggle(value) {
    const mayClear = !isSingle || least === 0;
    if (values.has(value) && mayClear) {
      values.delete(value);
      return;
    }
    if (isSingle) values.clear();
    if (values.size < most) values.add(value);
  }
  const items = KINDS[part.type](part).map((option) => ({
    ...option,
    get checked() { return values.has(option.value); },
    run() {
      toggle(option.value);
      if (isSingle) onDone([...values]);
    },
  }));
  at.ariaExpanded = "true";
  const onClose = () => {
    at.ariaExpanded = "false";
    if (!isSingle && values.size >= least && sorted() !== before) onDone([...values]);
  };
  const title = menuTitle(part, least, most);
  const options = { label: title, values: true, stay: !isSingle, onClose };
  openMenu([{ title, items }], at, options);
}

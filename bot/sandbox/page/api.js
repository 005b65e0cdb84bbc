/** What the page knows, what it asks of the sandbox, and what it is told. */

export const state = { me: sessionStorage.getItem("as"), channel: null, channels: [], people: [], roles: [], commands: [], bot: null };

/** The acting member may not, in the words of Discord's client. */
export class Refusal extends Error {}

async function ask(path, options) {
  const response = await fetch(`/page-api/${path}`, options);
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  throw new Refusal(isJson ? JSON.parse(text).refusal : text);
}

/** Take over the guild as the acting member sees it. */
export async function loadState() {
  const as = state.me ? `?as=${state.me}` : "";
  // A member of another guild, from before the state was made anew, is nobody here.
  Object.assign(state, await ask(`state${as}`).catch(() => ask("state")));
  sessionStorage.setItem("as", state.me);
}

export const loadMessages = (channel) => ask(`messages?as=${state.me}&channel=${channel}`);

export const act = (name, body) => ask(name, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ as: state.me, ...body }),
});

/** Listen until the returned function is called; comes back by itself when the connection is lost. */
export function listen({ onOpen, onEvent, onLost }) {
  let socket, timer, ended = false, pause = 300;
  function connect() {
    socket = new WebSocket(`ws://${location.host}/page-api/live?as=${state.me}`);
    socket.onopen = () => { pause = 300; onOpen(); };
    socket.onmessage = (message) => onEvent(...JSON.parse(message.data));
    socket.onclose = () => {
      if (ended) return;
      onLost();
      timer = setTimeout(connect, pause);
      pause = Math.min(pause * 2, 5000);
    };
  }
  connect();
  return () => { ended = true; clearTimeout(timer); socket.close(); };
}

export const userName = (user) => user.global_name ?? user.username;

export function findName(id) {
  const found = [...state.people.map((person) => person.user), state.bot].find((user) => user.id === id);
  return found ? userName(found) : "unknown";
}

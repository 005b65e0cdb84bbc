/** The page's state, its requests to the sandbox, and live events. */

export const state = {
  me: sessionStorage.getItem("as"),
  channel: null,
  guild: "",
  guild_id: null,
  guilds: [],
  channels: [],
  people: [],
  roles: [],
  commands: [],
  stickers: [],
  languages: {},
  bot: null,
  bot_member: null,
  controls: {},
  links: [],
  notice: "",
  welcome: [],
  developer_tools: true,
};
const HISTORY_TIMEOUT_MS = 10000;
const FIRST_PAUSE_MS = 300;
const MAX_PAUSE_MS = 5000;
const UNREACHABLE = "The sandbox cannot be reached. Is it still running?";

/** A refused action; the message is the one of Discord's client. */
export class Refusal extends Error {}

/** The guild in the page's address; without one, the first. */
function withGuild(path) {
  const id = new URLSearchParams(location.search).get("guild");
  if (!id) return path;
  return `${path}${path.includes("?") ? "&" : "?"}guild=${encodeURIComponent(id)}`;
}

function unreachable() {
  throw new Error(UNREACHABLE);
}

async function ask(path, options) {
  const response = await fetch(`/page-api/${withGuild(path)}`, options).catch(unreachable);
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  throw new Refusal(isJson ? JSON.parse(text).refusal : text);
}

/** Load the guild as the acting member sees it. */
export async function loadState() {
  const as = state.me ? `?as=${state.me}` : "";
  // A member of another guild, from before the state was recreated, does not exist here.
  Object.assign(state, await ask(`state${as}`).catch((error) => {
    if (!(error instanceof Refusal)) throw error;
    return ask("state");
  }));
  sessionStorage.setItem("as", state.me);
}

/** Up to 100 messages of a channel, oldest first: the newest ones, or those before a message. */
export function loadMessages(channel, before) {
  let path = `messages?as=${state.me}&channel=${channel}`;
  if (before) path += `&before=${before}`;
  return ask(path, { signal: AbortSignal.timeout(HISTORY_TIMEOUT_MS) });
}

export const act = (name, body) => ask(name, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ as: state.me, ...body }),
});

/** Upload a file; `say` refers to it by the returned id. */
export const upload = (file) => ask(`upload?as=${state.me}&name=${encodeURIComponent(file.name)}`, {
  method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
});

/** Listen for events until the returned function is called; reconnects automatically. */
export function listen({ onOpen, onEvent, onLost }) {
  let socket;
  let timer;
  let ended = false;
  let pause = FIRST_PAUSE_MS;
  function connect() {
    socket = new WebSocket(`ws://${location.host}/page-api/${withGuild(`live?as=${state.me}`)}`);
    socket.onopen = () => {
      if (ended) {
        socket.close();
        return;
      }
      pause = FIRST_PAUSE_MS;
      onOpen();
    };
    socket.onmessage = (message) => {
      if (!ended) onEvent(...JSON.parse(message.data));
    };
    socket.onclose = () => {
      if (ended) return;
      onLost();
      timer = setTimeout(connect, pause);
      pause = Math.min(pause * 2, MAX_PAUSE_MS);
    };
  }
  connect();
  return () => {
    ended = true;
    clearTimeout(timer);
    // One that still connects is closed once it is open; closed now, it would be an error to the browser.
    if (socket.readyState !== WebSocket.CONNECTING) socket.close();
  };
}

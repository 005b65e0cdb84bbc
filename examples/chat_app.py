"""Serves a chat page for one adapter over its base model, on this machine's loopback address.

python -m examples.chat_app ~/.understudy/runs/dialogue-demo-cpu-3f9a2c41d0/adapter
python -m examples.chat_app ADAPTER --card personas/cards/oda.toml
python -m examples.chat_app ADAPTER --fact "I keep bees." --fact "I live by the sea."
python -m examples.chat_app owner/name --port 8600 --base-model embedded

The page has temperature, top-p, the maximum number of new tokens, Stop and Clear, and can leave the
adapter out to compare. It runs on a CPU. Conversations are stored nowhere. One file: what is below
is all there is to the page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from personas.card.card_reader import read_card_file
from personas.card.toml_card import to_persona
from personas.engine import Engine
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.errors import RequestError, UnderstudyError
from personas.home.adapters import NAME_ADAPTER_ADVICE, verify_adapter, verify_for_base_model
from personas.home.external_adapter import open_any_adapter
from personas.models.base_model import fingerprint, locate
from personas.prompt.renderer import DATASET_USER, system_card
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, SamplingParams, Turn

HOST = "127.0.0.1"
DEFAULT_PORT = 8500
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
MAX_MESSAGE_CHARS = 8000
MAX_MESSAGES = 200
MAX_NEW_TOKENS = 1024
MAX_BODY_BYTES = 2 * 2**20
DEFAULTS = SamplingParams()
SITE_POLICY = (
    "default-src 'none'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Message(BaseModel):
    """One message of the conversation so far."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)]


class ChatBody(BaseModel):
    """Request for a reply. `facts` are about the one who answers; a card takes their place."""

    model_config = ConfigDict(extra="forbid")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    facts: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)] = ""
    use_adapter: bool = True
    temperature: Annotated[float, Field(ge=0, le=2)] = DEFAULTS.temperature
    top_p: Annotated[float, Field(gt=0, le=1)] = DEFAULTS.top_p
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = DEFAULTS.max_new_tokens
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None


@dataclass(frozen=True)
class ChatApp:
    """The page's handlers, over an engine that is running."""

    engine: Engine
    adapter: AdapterRef
    persona: Persona | None
    facts: str
    title: str

    def application(self) -> web.Application:
        app = web.Application(middlewares=[require_own_page], client_max_size=MAX_BODY_BYTES)
        app.add_routes([web.get("/", self.get_page), web.post("/chat", self.post_chat)])
        return app

    async def get_page(self, request: web.Request) -> web.Response:
        """The page, with its settings as JSON; nothing on it comes from elsewhere."""
        nonce = secrets.token_urlsafe(16)
        settings = {
            "title": self.title,
            "facts": self.facts,
            "hasCard": self.persona is not None,
            "temperature": DEFAULTS.temperature,
            "topP": DEFAULTS.top_p,
            "maxNewTokens": DEFAULTS.max_new_tokens,
        }
        safe_json = json.dumps(settings).replace("<", "\\u003c")
        html = PAGE.replace("NONCE", nonce).replace("SETTINGS", safe_json)
        policy = f"{SITE_POLICY}; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def post_chat(self, request: web.Request) -> web.StreamResponse:
        """Stream a reply as JSON lines: `text` for each piece, then `done`, or `error`."""
        try:
            body = ChatBody.model_validate_json(await request.read())
            chat_request = self.request(body)
        except (ValidationError, ValueError) as error:
            return web.json_response({"error": explain(error)}, status=400)
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        async with aclosing(self.reply_lines(chat_request)) as lines:
            async for line in lines:
                await response.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
        await response.write_eof()
        return response

    def request(self, body: ChatBody) -> ChatRequest:
        """Build the request, with the same prompt as in training. Raises `ValueError`."""
        if body.messages[-1].role != "user" or not body.messages[-1].content.strip():
            raise ValueError("The last message has to be yours, with words in it.")
        persona = self.persona or (system_card(body.facts.strip()) if body.facts.strip() else None)
        user = DATASET_USER if self.persona else ""
        turns = tuple(
            Turn(user, it.content, by_persona=it.role == "assistant") for it in body.messages
        )
        sampling = SamplingParams(
            temperature=body.temperature,
            top_p=body.top_p,
            max_new_tokens=body.max_new_tokens,
            seed=body.seed,
            stop=(f"\n{user}:",) if user else (),
        )
        return ChatRequest(
            persona, turns, adapter=self.adapter if body.use_adapter else None, sampling=sampling
        )

    async def reply_lines(self, chat_request: ChatRequest) -> AsyncIterator[dict[str, Any]]:
        """Generate a reply; it is cancelled when the page stops reading."""
        try:
            stream = self.engine.submit(chat_request)
        except UnderstudyError as error:
            yield {"error": str(error)}
            return
        try:
            async for piece in stream:
                yield {"text": piece}
            reply = stream.reply
            yield {
                "done": {
                    "finish": reply.finish,
                    "tokens": reply.new_tokens,
                    "seed": reply.seed,
                    "text": reply.text,
                }
            }
        except (UnderstudyError, ValueError) as error:
            yield {"error": str(error)}
        finally:
            stream.cancel()


def explain(error: ValueError) -> str:
    """Name the first wrong field of a body, and what is wrong with it."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}." if place else f"{first['msg']}."


@web.middleware
async def require_own_page(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse other names than loopback's (DNS rebinding), and requests that other sites' pages
    send.
    """
    host = request.headers.get("Host", "")
    origin = request.headers.get("Origin")
    is_foreign = origin is not None and origin != f"http://{host}"
    if (
        re.sub(r":\d+$", "", host) not in LOOPBACK_NAMES
        or is_foreign
        or request.headers.get("Sec-Fetch-Site") == "cross-site"
    ):
        return web.json_response({"error": f"Open http://{HOST}:PORT on this machine."}, status=403)
    if request.method == "POST" and request.content_type != "application/json":
        return web.json_response({"error": "Send application/json."}, status=415)
    return await handler(request)  # type: ignore[no-any-return]


def main() -> int:
    """Returns the exit code: 0 ended by Ctrl-C, 1 could not start, 2 wrong usage."""
    options = build_parser().parse_args()
    if options.card and (options.fact or options.facts):
        build_parser().error("a card and facts cannot go together: leave one out")
    if not 0 <= options.port <= 65535:
        build_parser().error(f"{options.port} is no port; choose one from 0 to 65535")
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it warns about kernels that are not used here
    try:
        with open_any_adapter(options.adapter, options.base_model or "", print_progress) as folder:
            asyncio.run(serve(options, folder))
    except UnderstudyError as error:
        print(f"chat_app: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"chat_app: {error.strerror or error}. Choose another --port.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m examples.chat_app",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "adapter", help="a training run's or peft's folder, a zip of one, or owner/name on a hub"
    )
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="a persona's card: TOML, JSON, PNG or CHARX"
    )
    parser.add_argument(
        "--fact",
        action="append",
        default=[],
        metavar="F",
        help="a fact about the answering speaker; may repeat",
    )
    parser.add_argument(
        "--facts", type=Path, metavar="FILE", help="facts from a text file, one a line"
    )
    parser.add_argument(
        "--base-model",
        metavar="M",
        help="the adapter's base model (default: the model that it names)",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"0 takes any (default: {DEFAULT_PORT})"
    )
    return parser


def print_progress(text: str) -> None:
    print(f"… {text}", file=sys.stderr)


def read_facts(file: Path | None) -> list[str]:
    """Read a fact a line. Raises `RequestError`."""
    try:
        return file.read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RequestError(
            f"{file} cannot be read: {why}.", "Name a text file, one fact a line."
        ) from error


async def serve(options: argparse.Namespace, folder: Path) -> None:
    """Load adapter, card and model, and serve until Ctrl-C. Raises `UnderstudyError` and
    `OSError`.
    """
    manifest = verify_adapter(folder, NAME_ADAPTER_ADVICE)
    persona = to_persona(read_card_file(options.card), str(options.card)) if options.card else None
    facts = [*options.fact, *read_facts(options.facts)]
    base = locate(options.base_model or manifest.base_model)
    adapter = AdapterRef("adapter", manifest.version, folder)
    verify_for_base_model(adapter, fingerprint(base))
    engine = LLMEngine(base, choose_precision("auto", base.name).precision)
    print(f"loading {base.name} …", file=sys.stderr, flush=True)
    await engine.start()
    name = persona.name if persona else (folder.parent if folder.name == "adapter" else folder).name
    app = ChatApp(
        engine, adapter, persona, "\n".join(facts), f"{name} over {base.name}"
    ).application()
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    try:
        await engine.load(adapter)
        await runner.setup()
        await web.TCPSite(runner, HOST, options.port).start()
        print(f"http://{HOST}:{runner.addresses[0][1]}  (Ctrl-C ends it)", flush=True)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        await engine.close()


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chat</title>
<link rel="icon" href="data:,">
<style nonce="NONCE">
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent);
  --soft: color-mix(in srgb, currentColor 7%, transparent); --accent: light-dark(#2456b8, #9db9ff); }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; display: grid; grid-template: auto 1fr / 1fr 17rem;
  height: 100dvh; }
header { grid-column: 1 / -1; padding: .6rem 1rem; border-bottom: 1px solid var(--line); }
h1 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
main { display: flex; flex-direction: column; min-height: 0; }
#log { flex: 1; overflow-y: auto; padding: 1rem; display: flex; flex-direction: column; gap: .7rem; }
.turn { max-width: 42rem; padding: .5rem .8rem; border-radius: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.user { align-self: flex-end; background: var(--soft); }
.assistant { align-self: flex-start; border: 1px solid var(--line); }
.note { font-size: .8rem; opacity: .75; white-space: pre-wrap; }
.error { color: light-dark(#a8071a, #ff9c94); }
form { display: flex; gap: .5rem; padding: .8rem 1rem; border-top: 1px solid var(--line); align-items: flex-end; }
textarea, input, select, button { font: inherit; color: inherit; background: Canvas; border: 1px solid var(--line);
  border-radius: .4rem; padding: .45rem .6rem; }
textarea { resize: vertical; width: 100%; }
button { cursor: pointer; min-height: 2.75rem; } button:disabled { opacity: .45; cursor: default; }
#send { background: var(--accent); color: Canvas; border-color: transparent; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
aside { border-left: 1px solid var(--line); padding: 1rem; overflow-y: auto; display: grid; gap: .9rem;
  align-content: start; }
label { display: block; font-size: .9rem; }
aside input, aside select, aside textarea { width: 100%; margin-top: .2rem; }
@media (max-width: 45rem) { body { grid-template: auto auto 1fr / 1fr; }
  aside { grid-row: 2; border-left: 0; border-bottom: 1px solid var(--line); grid-template-columns: repeat(3, 1fr);
    max-height: 40dvh; padding: .6rem 1rem; gap: .5rem; } aside .wide { grid-column: 1 / -1; } }
</style>
</head>
<body>
<header><h1 id="title"></h1></header>
<main>
  <div id="log" role="log" aria-label="Conversation" tabindex="0"></div>
  <form id="form">
    <textarea id="text" rows="2" maxlength="8000" required aria-label="Your message"
      placeholder="Your message (Enter sends, Shift+Enter starts a line)"></textarea>
    <button id="send">Send</button>
    <button id="stop" type="button" disabled>Stop</button>
    <button id="clear" type="button">Clear</button>
  </form>
</main>
<aside aria-label="Settings">
  <label>Temperature <input id="temperature" type="number" min="0" max="2" step="0.05" required></label>
  <label>Top-p <input id="topP" type="number" min="0.05" max="1" step="0.05" required></label>
  <label>Max new tokens <input id="maxNewTokens" type="number" min="1" max="1024" step="1" required></label>
  <label>Seed <input id="seed" type="number" min="0" max="2147483647" step="1" placeholder="random"></label>
  <label>Who answers <select id="model"><option value="adapter">the adapter</option>
    <option value="base">the base model</option></select></label>
  <label class="wide" id="factsLabel">Facts, in the first person <textarea id="facts" rows="5" maxlength="8000"
    placeholder="One a line: I keep bees."></textarea></label>
</aside>
<script id="settings" type="application/json" nonce="NONCE">SETTINGS</script>
<script type="module" nonce="NONCE">
const $ = id => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const messages = [];
let running = null;

$("title").textContent = document.title = settings.title;
for (const id of ["temperature", "topP", "maxNewTokens", "facts"]) $(id).value = settings[id];
$("factsLabel").hidden = settings.hasCard;

function add(role, text) {
  const turn = document.createElement("div");
  turn.className = role === "note" || role === "error" ? `note ${role}` : `turn ${role}`;
  turn.textContent = text;
  $("log").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
}

function busy(controller) {
  running = controller;
  $("send").disabled = Boolean(controller);
  $("stop").disabled = !controller;
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function ask(text) {
  messages.push({ role: "user", content: text });
  add("user", text);
  const turn = add("assistant", ""), controller = new AbortController();
  const body = { messages, use_adapter: $("model").value === "adapter", facts: $("facts").value,
    temperature: Number($("temperature").value), top_p: Number($("topP").value),
    max_new_tokens: Number($("maxNewTokens").value), seed: $("seed").value === "" ? null : Number($("seed").value) };
  busy(controller);
  try {
    const response = await fetch("/chat", { method: "POST", signal: controller.signal,
      headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (!response.ok) throw new Error((await response.json()).error);
    for await (const line of lines(response)) {
      if (line.error) throw new Error(line.error);
      if (line.text) turn.textContent += line.text;
      if (line.done) {
        turn.textContent = line.done.text;
        add("note", `${line.done.tokens} token${line.done.tokens === 1 ? "" : "s"}, seed ${line.done.seed}` +
          (line.done.finish === "length" ? ", cut off at the maximum" : ""));
      }
      $("log").scrollTop = $("log").scrollHeight;
    }
  } catch (error) {
    if (controller.cleared) return;
    add(error.name === "AbortError" ? "note" : "error", error.name === "AbortError" ? "stopped" : error.message);
  } finally {
    if (running === controller) busy(null);
    if (!controller.cleared) settle(turn);
  }
}

function settle(turn) {
  if (turn.textContent) messages.push({ role: "assistant", content: turn.textContent });
  else { turn.remove(); messages.pop(); }
}

$("form").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("text").value.trim();
  const wrong = [...document.querySelectorAll("aside input")].find(input => !input.reportValidity());
  if (!text || running || wrong) return;
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  if (running) { running.cleared = true; running.abort(); busy(null); }
  messages.length = 0;
  $("log").replaceChildren();
  $("text").focus();
});
$("text").focus();
</script>
</body>
</html>
"""

if __name__ == "__main__":
    sys.exit(main())

"""Runs, lines and speakers as JSON, for programs, scripts and templates alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bot.speakers import Speaker
from bot.web.openai.shapes import lore_json, usage_json
from bot.web.words import moment
from personas.contracts import Token

if TYPE_CHECKING:
    from bot.web.play.runs import Line, Run

SHOWN_BLANKS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "⏎"})
LEVELS = (0.9, 0.5, 0.2, 0.05)
"""From which probability on a token counts as certain, likely, possible, unlikely; below the last it is a surprise."""


def speaker_json(speaker: Speaker) -> dict[str, Any]:
    """Who speaks."""
    persona = speaker.persona.id if speaker.persona else None
    return {"id": speaker.id, "name": speaker.name, "persona": persona, "version": speaker.version}


def line_json(line: Line) -> dict[str, Any]:
    """A reply, with all that is known of it once it has ended."""
    reply = line.reply
    found = {
        "line": line.number,
        "speaker": speaker_json(line.speaker),
        "state": line.state,
        "text": line.text,
        "error": line.error or None,
        "lore": lore_json(line.lore),
    }
    if reply is None:
        return found
    told = {"seed": reply.seed, "finish": reply.finish, "usage": usage_json(reply), "prompt": reply.prompt}
    told |= {"shortened": reply.shortened, "repeated": reply.repeated}
    return {**found, **told, "tokens": [token_json(token) for token in reply.tokens]}


def token_json(token: Token) -> dict[str, Any]:
    """A token with its probability, by the model itself, and what else was likely there."""
    others = [{"text": text, "probability": _share(logprob)} for text, logprob in token.alternatives]
    return {"text": token.text, "probability": _share(token.logprob), "alternatives": others}


def run_json(run: Run) -> dict[str, Any]:
    """A run and how far it is."""
    path = f"/play/runs/{run.id}"
    links = {"self": path, "events": f"{path}/events", "page": f"/dashboard{path}"}
    if not run.ended:
        links["stop"] = f"{path}/stop"
    return {
        "id": run.id,
        "kind": run.kind,
        "at": moment(run.at),
        "prompt": run.prompt,
        "speakers": [speaker_json(speaker) for speaker in run.speakers],
        "settings": run.settings,
        "seed": run.sampling.seed,
        "lines": [line_json(line) for line in run.lines],
        "ended": run.ended or None,
        "links": links,
    }


def visible(text: str) -> str:
    """A token as it can be seen: blanks that stand alone have a sign."""
    return text if text.strip() else text.translate(SHOWN_BLANKS) or "∅"


def level(probability: float) -> int:
    """How much of a surprise a token was: 0 for none, 4 for much."""
    return next((at for at, least in enumerate(LEVELS) if probability >= least), len(LEVELS))


def _share(logprob: float) -> float:
    return round(math.exp(logprob), 6)

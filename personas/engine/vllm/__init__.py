"""The chat engine over one or several servers (`ENGINE=vllm`, `ENGINE=openai`)."""

from typing import Any
from urllib.parse import urlsplit

MAX_MESSAGE_CHARS = 400


def parse_server_urls(value: object) -> object:
    """Parse servers' addresses with commas between them. Raises `ValueError`."""
    if not isinstance(value, str):
        return value
    urls = tuple(url.strip().rstrip("/").removesuffix("/v1") for url in value.split(","))
    if len(set(urls)) < len(urls) or not all(_is_server_url(url) for url in urls):
        raise ValueError("not addresses of servers")
    return urls


def _is_server_url(text: str) -> bool:
    url = urlsplit(text)
    try:
        has_port = url.port is None or url.port > 0
    except ValueError:  # beyond 65535, or no number
        return False
    extra = url.username or url.password or url.query or url.fragment or any(map(str.isspace, text))
    return has_port and url.scheme in ("http", "https") and bool(url.hostname) and not extra


def error_text(answer: Any) -> str:
    """Return the message of a server's error, in any of its forms, as a sentence."""
    error = answer.get("error", answer.get("detail", "")) if isinstance(answer, dict) else answer
    message = error.get("message") if isinstance(error, dict) else error
    text = " ".join(str(message or "").split())[:MAX_MESSAGE_CHARS] or "no reason given"
    return text if text.endswith((".", "!", "?")) else f"{text}."

"""Addresses of the servers that an engine uses. Loads nothing of the engines: settings read it."""

from urllib.parse import urlsplit


def parse_server_urls(value: object) -> object:
    """Parse addresses of servers, separated by commas. Raises `ValueError`."""
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
    has_extra = bool(url.username or url.password or url.query or url.fragment)
    has_blank = any(map(str.isspace, text))
    is_http = url.scheme in ("http", "https") and bool(url.hostname)
    return is_http and has_port and not has_extra and not has_blank

"""Restricts the hub's client to the hub and to public addresses."""

import ipaddress
import re
import socket
import urllib.request
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from personas.home.hub_errors import HubFileError

NAT64_NETWORK = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses that stand for the IPv4 address in their last 32 bits (RFC 6052)."""


@cache
def restrict_hub_client() -> None:
    """Let the hub's client ask the hub alone and, where that redirects it, public addresses over
    HTTPS.

    Otherwise a hub could make the bot send requests to this machine and its network.
    """
    from huggingface_hub import set_client_factory  # takes 0.15 s; most commands ask no hub

    set_client_factory(_new_client)


def _new_client() -> Any:
    import httpx2  # takes 0.15 s

    return httpx2.Client(
        event_hooks={"request": [_require_allowed]}, follow_redirects=True, timeout=None
    )


def _require_allowed(request: Any) -> None:
    """Check a request and each redirect of it. Raises `HubFileError`."""
    import httpx2  # as above
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    url = request.url
    if url.origin == httpx2.URL(constants.ENDPOINT).origin:
        return
    if url.scheme != "https" or url.userinfo or not url.host:
        raise _elsewhere_error(url.host)
    if _is_proxied(url.host):
        if _is_address(url.host) and not is_public_address(url.host):
            raise _elsewhere_error(url.host)
        return
    try:
        entries = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _elsewhere_error(url.host) from None
    addresses = {str(entry[4][0]) for entry in entries}
    if not addresses or not all(map(is_public_address, addresses)):
        raise _elsewhere_error(url.host)
    # The name may have another address when it is connected to.
    request.extensions["trace"] = _require_public_peer


def _require_public_peer(event: str, info: dict[str, Any]) -> None:
    """Check the address that was connected to, before anything is sent. A trace of httpx."""
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        address = str(stream.get_extra_info("server_addr")[0])
        if not is_public_address(address):
            stream.close()
            raise _elsewhere_error(address)


def _elsewhere_error(host: str) -> HubFileError:
    place = host or "an address without a host"
    message = f"The hub leads to {place}, which is no public address with HTTPS."
    return HubFileError(message, "Do not trust this hub.")


def _is_proxied(host: str) -> bool:
    proxies = urllib.request.getproxies()
    has_proxy = bool(proxies.get("https") or proxies.get("all"))
    return has_proxy and not urllib.request.proxy_bypass(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # Some resolvers also take decimal and hexadecimal numbers for IPv4 addresses.
        return bool(re.fullmatch(r"[\d.]+|0[xX].*", host))
    return True


def is_public_address(text: str) -> bool:
    """Tell whether an IP address, and any address of IPv4 that it stands for, is one of the public
    internet.
    """
    try:
        address: IPv4Address | IPv6Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in NAT64_NETWORK:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_public_address(str(inner))
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )

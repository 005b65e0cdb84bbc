"""Server-side request forgery: whatever a name, a hub or an engine server says, only the configured
address is asked.

`Trap` listens on all addresses of this machine and counts connections; every other address that the
code connects to is recorded, and connections beyond this machine are refused.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web

from bot.training.backends.ray_jobs import RayJobsClient
from personas.engine.remote.vllm_client import VllmClient
from personas.errors import AdapterError, MaterialError, UnderstudyError
from personas.home import hub_addresses
from personas.home.external_adapter import import_adapter
from personas.home.hub_addresses import is_public_address
from tests.hub_server import COMMIT, Hub, Repository, reach
from tests.trainer.test_catalogue import ask as run_catalogue
from tests.trainer.test_catalogue import enter
from trainer.cli.catalogue_command import fetch_dataset

NAME = "harbour/mira-lora"
MIRROR = "harbour/mirror"
FILES = {"adapter_config.json": b"[]", "adapter_model.safetensors": b"\0" * 4000}
PUBLIC = "8.8.8.8"
STATUSES = (301, 302, 303, 307, 308)


class Trap:
    """Counts connections to any address of this machine, and closes them."""

    def __init__(self) -> None:
        self.count, self._stopped = 0, threading.Event()
        self._sockets = [self._listen_aside()]
        self.port = self._sockets[0].getsockname()[1]
        with suppress(OSError):  # a machine without IPv6
            self._sockets.append(self._listen(socket.AF_INET6, "::", self.port))
        for one in self._sockets:
            threading.Thread(target=self._accept, args=(one,), daemon=True).start()

    def _listen_aside(self) -> socket.socket:
        """Listen below the ports that the system gives out: on one of those, a test beside this one
        that asks whether its own closed server is back would be counted.
        """
        for port in random.sample(range(20_000, 32_000), 100):
            with suppress(OSError):
                return self._listen(socket.AF_INET, "0.0.0.0", port)
        raise OSError("no port is free")

    def _listen(self, family: int, address: str, port: int) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                self.count += not self._stopped.is_set()
                connection.close()

    def close(self) -> None:
        self._stopped.set()
        for one in self._sockets:
            with suppress(OSError), socket.create_connection(("localhost", self.port), 1):
                pass
            one.close()


class LyingHub(Hub):
    """A hub that states other things of a commit than are so."""

    lies: dict[str, object] = {}  # noqa: RUF012  set on instances

    async def _info(self, request: web.Request) -> web.Response:
        stated = json.loads((await super()._info(request)).text or "")
        return web.json_response(stated | self.lies)


@pytest.fixture(scope="module")
def trap():
    made = Trap()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served_hub():
    repositories = {name: Repository({COMMIT: FILES}) for name in (NAME, MIRROR)}
    hub = LyingHub(
        repositories,
        {"OpenAssistant/oasst2": Repository({COMMIT: {"a_ready.trees.jsonl": b"{}\n" * 9}})},
    )
    with hub.serve():
        yield hub


@pytest.fixture
def hub(served_hub, monkeypatch, tmp_path):
    served_hub.lies = {}
    served_hub.statuses = {}
    served_hub.asked.clear()
    reach(monkeypatch, served_hub.address, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_reader_of_the_tests")
    monkeypatch.setattr(
        "time.sleep", lambda seconds: None
    )  # the client waits before it tries again
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return served_hub


NAMES = {
    "localtest.example": ["127.0.0.1"], "six.example": ["::1"], "mapped.example": ["::ffff:127.0.0.1"],
    "127.0.0.1.nip.io": ["127.0.0.1"], "metadata.google.internal": ["169.254.169.254"], "lan.example": ["192.168.1.9"],
    "mixed.example": [PUBLIC, "127.0.0.1"], "cdn.example": [PUBLIC],
}  # fmt: skip
"""Names that resolve; no others do, and no DNS server is asked."""


@pytest.fixture
def connections(monkeypatch):
    """The addresses that are connected to. Those beyond this machine refuse."""
    seen: list[tuple[str, int]] = []
    connect = socket.socket.connect
    resolve = socket.getaddrinfo

    def recorded(self: socket.socket, address: tuple[str, int]) -> None:
        seen.append(address[:2])
        if not address[0].startswith(("127.", "::1", "0.", "::ffff:127")) and address[0] != "::":
            raise ConnectionRefusedError(111, "refused by the test")
        return connect(self, address)

    def resolved(host, *args, **kwargs):
        name = (host.decode() if isinstance(host, bytes) else host or "").rstrip(".").lower()
        if name in NAMES:
            return [entry for address in NAMES[name] for entry in resolve(address, *args, **kwargs)]
        if not set(name) <= set("0123456789abcdefx.:%") and name != "localhost":
            raise socket.gaierror(-2, f"{name} is not known to the test")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", recorded)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return seen


def elsewhere(connections, hub):
    """The addresses that were connected to besides the hub's."""
    own = ("127.0.0.1", int(hub.address.rpartition(":")[2]))
    return [address for address in connections if address != own]


# ----------------------------------------------------------------------------- a hub that redirects

LOOPBACK_HOSTS = """
127.0.0.1 127.0.0.2 127.255.255.254 127.1 127.0.1 0 0.0.0.0 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 0177.0.0.1
017700000001 0000177.0.0.1 [::1] [0:0:0:0:0:0:0:1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1]
[64:ff9b::127.0.0.1] [2002:7f00:1::] localhost LOCALHOST localhost. LocalHost. localtest.example six.example
mapped.example 127.0.0.1.nip.io mixed.example 127%2e0%2e0%2e1 %31%32%37.0.0.1 127。0。0。1 １２７.0.0.1 ①②⑦.⓪.⓪.①
ⓛⓞⓒⓐⓛⓗⓞⓢⓣ ⑯⑨.254.169.254
""".split()
PRIVATE_HOSTS = """
169.254.169.254 [fd00:ec2::254] metadata.google.internal 100.100.100.200 10.0.0.1 172.16.0.1 192.168.0.1 lan.example
[fe80::1] [fc00::1] 224.0.0.1 255.255.255.255 192.0.2.1 198.18.0.1 100.64.0.1 2852039166 0xa9fea9fe
[::ffff:169.254.169.254] [64:ff9b::a9fe:a9fe] nowhere.example
""".split()
SHAPES = """
//127.0.0.1:{port}/ ///127.0.0.1:{port}/ \\\\127.0.0.1:{port}\\ http:\\\\127.0.0.1:{port}\\ http:127.0.0.1:{port}/
http:/127.0.0.1:{port}/ http:///127.0.0.1:{port}/ https:/127.0.0.1:{port}/ user@127.0.0.1:{port}/
https://user@127.0.0.1:{port}/ https://{hub}@127.0.0.1:{port}/ http://{hub}@127.0.0.1:{port}/
http://{hub}%40127.0.0.1:{port}/ http://{hub}\\@127.0.0.1:{port}/ http://127.0.0.1:{port}#@{hub}/
http://127.0.0.1:{port}?@{hub}/ http://127.0.0.1:{port}\\@{hub}/ http://{hub}#@127.0.0.1:{port}/
https://cdn.example@127.0.0.1:{port}/ https://user:password@cdn.example/ http://cdn.example/ http://127.0.0.1:{port}%2f
ftp://127.0.0.1:{port}/ file:///etc/passwd file://localhost/etc/passwd gopher://127.0.0.1:{port}/_GET%20/
dict://127.0.0.1:{port}/info ldap://127.0.0.1:{port}/ ws://127.0.0.1:{port}/ jar:http://127.0.0.1:{port}/!/x
data:text/plain,x javascript:alert(1) unix:/run/docker.sock http+unix://%2Frun%2Fdocker.sock/ tftp://127.0.0.1:{port}/
https://{hub}/ http://localhost:{hub_port}/ http://[::ffff:127.0.0.1]:{hub_port}/ https:// http:// : // ? # http://[::1
http://127.0.0.1:99999/ http://127.0.0.1:-1/ http://127.0.0.1:{port}:80/ /../../etc/passwd ../../../x
{self}
""".split()
TARGETS = [f"https://{host}:{{port}}/" for host in LOOPBACK_HOSTS]
TARGETS += [f"http://{host}:{{port}}/" for host in ("127.0.0.1", "[::1]", "localhost")]
TARGETS += (
    [f"https://{host}/latest/meta-data" for host in PRIVATE_HOSTS] + SHAPES + ["", " ", "x" * 9000]
)
PLACES = {"the API": "GET /api/models", "a file": f"GET /{NAME}/resolve"}
CASES = [("a file", target) for target in TARGETS] + [("the API", target) for target in SHAPES]
"""The addresses of both are judged alike, but another code reads those that files are sent to."""


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: " ".join(CASES[n])[:60])
def test_a_hub_that_redirects_leads_nowhere(hub, trap, connections, tmp_path, number):
    address = hub.address
    before = trap.count
    place, target = CASES[number]
    own = {
        "port": trap.port,
        "hub": address[7:],
        "hub_port": address.rpartition(":")[2],
        "self": f"{address}/api/models",
    }
    hub.statuses[PLACES[place]] = (
        STATUSES[number % len(STATUSES)],
        {"Location": target.format(**own)},
    )
    with pytest.raises(AdapterError):
        import_adapter(f"hf://{NAME}", tmp_path / "out", "embedded", lambda text: None)
    assert trap.count == before and elsewhere(connections, hub) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "target",
    ["https://127.0.0.1:{port}/", "https://localtest.example:{port}/", "file:///etc/passwd"],
)
async def test_a_data_set_is_fetched_from_nowhere_else_either(
    hub, trap, connections, tmp_path, target
):
    enter(tmp_path)
    for place in ("GET /api/datasets", "/resolve/"):
        hub.statuses = {place: (302, {"Location": target.format(port=trap.port)})}
        before = trap.count
        with pytest.raises(MaterialError):
            await run_catalogue(fetch_dataset, tmp_path)
        assert trap.count == before and elsewhere(connections, hub) == []


def test_redirects_within_the_hub_and_to_public_addresses_are_followed(
    hub, connections, tmp_path, monkeypatch
):
    weights = f"resolve/{COMMIT}/adapter_model.safetensors"
    for status in STATUSES:
        hub.statuses = {f"GET /{NAME}/{weights}": (status, {"Location": f"/{MIRROR}/{weights}"})}
        reach(monkeypatch, hub.address, str(tmp_path / str(status)))
        with pytest.raises(AdapterError, match="is not a JSON object"):  # all files came
            import_adapter(f"hf://{NAME}", tmp_path / "out", "embedded", lambda text: None)
        assert hub.asked[-1] == f"GET /{MIRROR}/{weights}"
    hub.statuses = {PLACES["a file"]: (302, {"Location": "https://cdn.example/x"})}
    reach(monkeypatch, hub.address, str(tmp_path / "public"))
    with pytest.raises(AdapterError, match="could not be reached"):
        import_adapter(f"hf://{NAME}", tmp_path / "out", "embedded", lambda text: None)
    assert set(elsewhere(connections, hub)) == {(PUBLIC, 443)}


def test_a_name_that_changes_its_address_is_not_sent_anything(
    hub, trap, connections, tmp_path, monkeypatch
):
    resolved = socket.getaddrinfo
    calls = []

    def rebinding(host, *args, **kwargs):
        if host != "rebind.example":
            return resolved(host, *args, **kwargs)
        calls.append(host)
        return resolved(PUBLIC if len(calls) == 1 else "127.0.0.1", *args, **kwargs)

    received = []
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr("ssl.SSLContext.wrap_socket", lambda *args, **kwargs: received.append(args))
    hub.statuses[PLACES["a file"]] = 302, {"Location": f"https://rebind.example:{trap.port}/"}
    with pytest.raises(AdapterError, match=r"leads to 127\.0\.0\.1"):
        import_adapter(f"hf://{NAME}", tmp_path / "out", "embedded", lambda text: None)
    assert len(calls) == 2 and not received, "not even a handshake"


# -------------------------------------------------------------------------------- names and answers

HOSTILE_NAMES = """
http://127.0.0.1:{port}/x https://127.0.0.1:{port}/a/b //127.0.0.1:{port}/x 127.0.0.1:{port}/x 127.0.0.1/x
user@127.0.0.1:{port}/x harbour/mira-lora@http://127.0.0.1:{port}/ harbour/mira-lora@//127.0.0.1:{port}/
harbour/mira-lora@../../../../etc/passwd harbour/mira-lora@%2e%2e%2f%2e%2e harbour/mira-lora@?x=1 harbour/mira-lora@#x
harbour/mira-lora@\\127.0.0.1:{port} ../mira-lora harbour/.. ../.. ./. harbour/../.. harbour//mira-lora /etc/passwd
harbour/mira-lora/../../x harbour/mira-lora?x harbour/mira-lora#x harbour\\mira-lora file:///etc/passwd ~/x %2e%2e/x
harbour/%2e%2e harbour/mira%2florA harbour／mira-lora １２７.0.0.1/x harbour/mira-lora/extra @127.0.0.1:{port}/x @ @@ /
""".split()


@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE_NAMES,
        "",
        "harbour/mira lora",
        "harbour/mira\n-lora",
        "harbour/mira-lora@a\r\nHost: x",
    ],
)
def test_no_name_leads_away_from_the_hub(hub, trap, connections, tmp_path, name):
    before = trap.count
    with pytest.raises(UnderstudyError):
        import_adapter(
            f"hf://{name.format(port=trap.port)}", tmp_path / "out", "embedded", lambda text: None
        )
    assert trap.count == before and elsewhere(connections, hub) == []
    assert all(it.startswith("GET /api/models/") for it in hub.asked), hub.asked


def siblings(prefix: str):
    return [
        {"rfilename": f"{prefix}{name}", "size": len(data), "blobId": ""}
        for name, data in FILES.items()
    ]


LIES = [
    *({"sha": sha} for sha in ("../../../../evil", "/etc/evil", f"{COMMIT}/../../x", "", "..", 5, ["x"], "main", None)),
    *({"id": name} for name in ("http://127.0.0.1:{port}/x", "//127.0.0.1:{port}/x", "@127.0.0.1:{port}/x", "../../x",
                               "\\\\127.0.0.1:{port}\\x", ":{port}/x", ".127.0.0.1.nip.io:{port}/x", "x?", "x#")),
    *({"siblings": siblings(prefix)} for prefix in ("../", "/", "http://127.0.0.1:{port}/", "..\\", "x/../../")),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie)[:60])
def test_no_answer_of_a_hub_leads_elsewhere(hub, trap, connections, tmp_path, lie):
    before = trap.count
    hub.lies = json.loads(json.dumps(lie).replace("{port}", str(trap.port)))
    with pytest.raises(AdapterError):
        import_adapter(f"hf://{NAME}", tmp_path / "home" / "out", "embedded", lambda text: None)
    assert trap.count == before and elsewhere(connections, hub) == []
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(
        path.is_relative_to(tmp_path / "cache" / "understudy-adapters" / NAME.replace("/", "--"))
        for path in kept
    )


@pytest.mark.parametrize(
    "header",
    ["Link", "Refresh", "Content-Location", "X-Xet-Refresh-Route", "X-Xet-Cas-Url", "Alt-Svc"],
)
def test_no_header_of_a_hub_leads_elsewhere(hub, trap, connections, tmp_path, header):
    before = trap.count
    address = f"http://127.0.0.1:{trap.port}/"
    value = {
        "Link": f'<{address}>; rel="next", <{address}>; rel="xet-auth"',
        "Refresh": f"0; url={address}",
    }
    hub.statuses[PLACES["a file"]] = (
        200,
        {header: value.get(header, address), "X-Xet-Hash": "0" * 64},
    )
    with pytest.raises(AdapterError):
        import_adapter(f"hf://{NAME}", tmp_path / "out", "embedded", lambda text: None)
    assert trap.count == before and elsewhere(connections, hub) == []


# ---------------------------------------------------------------------------- servers of the engine


@pytest.mark.parametrize("status", STATUSES)
async def test_servers_that_redirect_are_not_followed(aiohttp_server, trap, status):
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(
            status=status, headers={"Location": f"http://127.0.0.1:{trap.port}{request.path}"}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", redirect)
    url = str((await aiohttp_server(app)).make_url("")).rstrip("/")
    before = trap.count
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as session:
        client = VllmClient(url, session)
        for call, args in (
            (client.models, ()),
            (client.tokenize, ("m", "x")),
            (client.load_adapter, ("a", "/x")),
            (client.check_health, ()),
        ):
            with pytest.raises(UnderstudyError):
                await call(*args)
        with pytest.raises(UnderstudyError, match=str(status)):
            [chunk async for chunk in client.generate({"model": "m", "prompt": [1]})]
    with pytest.raises(UnderstudyError):
        await RayJobsClient(url, "token").version()
    assert trap.count == before


# ---------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address", "8.8.8.8 1.1.1.1 2606:4700:4700::1111 64:ff9b::808:808 ::ffff:8.8.8.8".split()
)
def test_public_addresses_are_known(address):
    assert is_public_address(address)


def test_a_proxy_resolves_names_and_gets_no_literal_of_this_network(
    hub, trap, connections, tmp_path, monkeypatch
):
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{trap.port}")
    before = trap.count
    for host in ("127.0.0.1", "2130706433", "0x7f000001", "169.254.169.254", "[::1]"):
        hub.statuses[PLACES["a file"]] = 302, {"Location": f"https://{host}/"}
        with pytest.raises(AdapterError, match="leads to"):
            import_adapter(f"hf://{NAME}", tmp_path / "out", "embedded", lambda text: None)
    assert trap.count == before and hub_addresses._is_proxied("cdn.example")


def test_the_trap_counts(trap):
    for host in ("127.0.0.1", "127.0.0.2", "localhost"):
        before = trap.count
        socket.create_connection((host, trap.port), 5).close()
        for _ in range(100):
            if trap.count > before:
                break
            threading.Event().wait(0.01)
        assert trap.count == before + 1

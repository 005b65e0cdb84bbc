"""What personas' prompts begin with is made ready at the start and when another version speaks, and
only then.
"""

from types import SimpleNamespace

from bot.chat.prefix_warmup import ChannelPrefixWarmup
from bot.guilds.store.channels import Channel
from bot.store import Store
from personas.home.adapters import adapter_ref
from personas.schemas.chat import Persona
from tests.fake_engine import FakeEngine

HERE = SimpleNamespace(id=1)
THERE = SimpleNamespace(id=2)
PEOPLE = {(0, "ada"): Persona("ada", "Ada"), (2, "bo"): Persona("bo", "Bo")}


class Client(SimpleNamespace):
    listeners: dict

    def add_listener(self, listener, name):
        self.listeners[name] = listener


def house_of(store, home, live):
    def speaking_adapter(persona, guild_id):
        version = live.get((persona, guild_id))
        return adapter_ref(home, persona, version) if version else None

    return SimpleNamespace(
        store=store,
        served_versions=SimpleNamespace(speaking_adapter=speaking_adapter),
        personas=SimpleNamespace(
            get=lambda persona, guild: PEOPLE.get((0, persona)) or PEOPLE.get((guild, persona))
        ),
        engine=FakeEngine(),
    )


async def test_each_persona_of_each_server_is_prepared_with_the_version_that_speaks(tmp_path):
    with Store.open(tmp_path / "store.sqlite") as store:
        for number, (guild, persona) in enumerate(
            [(1, "ada"), (1, "ada"), (2, "bo"), (2, "ada"), (1, "bo"), (3, "ada")]
        ):
            store.channels.assign(Channel(guild, 10 + number, persona, "mentions", 5, 0.0))
        live = {("ada", 1): "v2", ("ada", 2): "v9"}
        services = house_of(store, tmp_path, live)
        client = Client(guilds=[HERE, THERE], listeners={})
        prepared = services.engine.prepared
        warmup = ChannelPrefixWarmup(
            store=services.store,
            personas=services.personas,
            served_versions=services.served_versions,
            engine=services.engine,
        )
        warmup.start(client)
        ada = [("ada", adapter_ref(tmp_path, "ada", version)) for version in ("v2", "v9")]
        assert sorted(prepared, key=str) == sorted([*ada, ("bo", None)], key=str), (
            "bo is not known in server 1"
        )
        prepared.clear()
        live["ada", 0] = "v3"
        await client.listeners["on_version_changed"](None, "ada")
        await client.listeners["on_version_changed"](1, "bo")
        assert prepared == [("ada", adapter_ref(tmp_path, "ada", "v3"))]

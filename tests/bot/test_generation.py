"""Length, sampling and context of replies: precedence, bounds, two moderators at once, what becomes
of them with a channel, a persona or a server.
"""

import pytest

from bot.generation.actions import SAMPLING_KEYS, EngineRules, GenerationActions
from bot.guild_settings.actions import SettingsActions
from bot.guild_settings.definitions import GENERATION
from bot.guild_settings.store import SettingScope
from bot.platform.errors import RefusedError
from bot.store import Store
from personas.schemas.chat import SamplingParams
from tests.bot.conftest import INN, QUAY, on_stage
from tests.fake_engine import FakeEngine
from tests.fakes import until
from tests.personas.changed_sampling import CHANGED

GUILD, CHANNEL, THREAD = 7, 70, 71
HERE = SettingScope(GUILD, channel_id=CHANNEL)
IN_THREAD = SettingScope(GUILD, channel_id=THREAD)
IN_GUILD = SettingScope(GUILD, persona_id="oda")
EVERYWHERE = SettingScope(0, persona_id="oda")


async def response_text(answer, words):
    await until(lambda: words in answer.text)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        yield store


@pytest.fixture
def engine():
    engine = FakeEngine()
    engine.context_tokens = 8192
    return engine


@pytest.fixture
def generation(store, engine):
    rules = EngineRules(
        engine=engine,
        engine_name="openai",
        usual=SamplingParams(max_new_tokens=120, temperature=0.7, top_p=0.8),
        most_new_tokens=512,
        set_by_operator=frozenset(("temperature",)),
        recommended=frozenset(("temperature", "top_p")),
    )
    return GenerationActions(SettingsActions(store=store, rules={GENERATION.name: rules}))


def change(generation, scope, changes, seen=None):
    generation.settings.change(GENERATION, scope, changes, seen)


def held(generation, name, channel_id=CHANNEL, parent_id=None, guild_id=GUILD):
    value = generation.in_channel("oda", guild_id, channel_id, parent_id).values[name]
    return value.value, value.source


class TestPrecedence:
    """Channel over persona over the bot's and the base model's, each field by itself."""

    def test_where_nothing_is_set_it_is_the_bots_the_base_models_and_the_engines(self, generation):
        assert held(generation, "max_new_tokens") == (120, "default")
        assert held(generation, "temperature") == (0.7, "operator")
        assert held(generation, "top_p") == (0.8, "base model")
        assert held(generation, "context_tokens") == (8192, "engine")

    def test_each_field_of_the_sampling_that_is_set_is_the_replys(self, generation):
        wanted = {key: CHANGED[key] for key in SAMPLING_KEYS}
        change(generation, HERE, wanted)
        sampling = generation.in_channel("oda", GUILD, CHANNEL).sampling(SamplingParams())
        assert sampling == SamplingParams(**wanted)

    def test_the_most_specific_place_that_sets_a_field_decides_about_it(self, generation):
        change(generation, EVERYWHERE, {"max_new_tokens": 200, "temperature": 0.2, "top_p": 0.5})
        assert held(generation, "max_new_tokens") == (200, "everywhere")
        change(generation, IN_GUILD, {"max_new_tokens": 300, "temperature": 0.0})
        change(generation, HERE, {"max_new_tokens": 400})
        assert held(generation, "max_new_tokens") == (400, "channel")
        assert held(generation, "temperature") == (0.0, "persona"), "zero is a value"
        assert held(generation, "top_p") == (0.5, "everywhere")
        assert held(generation, "max_new_tokens", channel_id=99) == (300, "persona")
        assert held(generation, "max_new_tokens", guild_id=8) == (200, "everywhere")
        effective = generation.in_channel("oda", GUILD, CHANNEL)
        sampling = effective.sampling(SamplingParams(candidates=4))
        assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (400, 0.0, 0.5)
        assert sampling.candidates == 4

    def test_a_thread_has_its_channels_settings_unless_it_has_its_own(self, generation):
        change(generation, HERE, {"max_new_tokens": 300, "context_tokens": 2048})
        assert held(generation, "max_new_tokens", THREAD, CHANNEL) == (300, "channel")
        change(generation, IN_THREAD, {"max_new_tokens": 50})
        assert held(generation, "max_new_tokens", THREAD, CHANNEL) == (50, "channel")
        assert held(generation, "context_tokens", THREAD, CHANNEL) == (2048, "channel")
        assert held(generation, "max_new_tokens") == (300, "channel")

    def test_other_personas_channels_and_servers_have_nothing_of_it(self, generation):
        change(generation, IN_GUILD, {"top_p": 0.3})
        change(generation, HERE, {"max_new_tokens": 300})
        other = generation.in_channel("ballast", GUILD, 99).values
        assert {value.source for value in other.values()} <= {
            "default", "operator", "base model", "engine",
        }  # fmt: skip
        direct = generation.in_channel("oda", 0, 5).values
        assert direct["top_p"].source == "base model"

    def test_what_holds_everywhere_holds_in_direct_messages(self, generation):
        change(generation, EVERYWHERE, {"top_p": 0.4})
        direct = generation.in_channel("oda", 0, 5).values
        assert (direct["top_p"].value, direct["top_p"].source) == (0.4, "everywhere")


class TestBounds:
    """No value beyond the operator's settings and the engine's window holds."""

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("max_new_tokens", 513, "from 1 to 512 (the operator's NEW_TOKENS_LIMIT)"),
            ("max_new_tokens", 0, "from 1 to 512"),
            ("temperature", 2.5, "from 0 to 2"),
            ("temperature", -0.1, "from 0 to 2"),
            ("temperature", float("nan"), "from 0 to 2"),
            ("top_p", 0.0, "from 0.01 to 1"),
            ("top_p", 1.1, "from 0.01 to 1"),
            ("context_tokens", 8193, "from 1,024 to 8,192 (the engine's context)"),
            ("context_tokens", 100, "from 1,024 to 8,192"),
        ],
    )
    def test_a_value_out_of_bounds_is_refused_with_the_bound_and_changes_nothing(
        self, generation, store, name, value, words
    ):
        with pytest.raises(RefusedError) as raised:
            change(generation, HERE, {"top_p": 0.5, name: value})
        assert words in raised.value.advice
        assert store.settings.get(HERE) == {}

    def test_what_was_set_before_the_bounds_sank_is_lowered_and_comes_back(
        self, generation, engine
    ):
        change(generation, HERE, {"max_new_tokens": 500, "context_tokens": 8192})
        engine.context_tokens = 4096
        values = generation.in_channel("oda", GUILD, CHANNEL).values
        assert (values["context_tokens"].value, values["context_tokens"].asked) == (4096, 8192)
        assert values["max_new_tokens"].value == 500 and values["max_new_tokens"].asked is None
        engine.context_tokens = 512
        values = generation.in_channel("oda", GUILD, CHANNEL).values
        assert (values["max_new_tokens"].value, values["max_new_tokens"].asked) == (256, 500)
        assert values["context_tokens"].value == 512
        engine.context_tokens = 8192
        assert held(generation, "max_new_tokens") == (500, "channel")

    def test_a_reply_takes_at_most_half_of_its_context(self, generation):
        change(generation, IN_GUILD, {"max_new_tokens": 512})
        change(generation, HERE, {"context_tokens": 1024})
        effective = generation.in_channel("oda", GUILD, CHANNEL)
        assert effective.max_new_tokens == 512 and effective.context_tokens == 1024

    def test_on_a_base_with_few_positions_replies_are_short(self, generation, engine):
        engine.context_tokens = 600
        assert generation.settings.bounds(GENERATION)["max_new_tokens"].high == 300
        assert (
            generation.settings.bounds(GENERATION)["max_new_tokens"].reason
            == "half of the engine's context"
        )
        assert held(generation, "max_new_tokens") == (120, "default")
        change(generation, HERE, {"context_tokens": 600})
        with pytest.raises(RefusedError, match="301"):
            change(generation, HERE, {"max_new_tokens": 301})

    def test_what_the_engine_ignores_is_refused_and_can_be_removed(self, generation, engine, store):
        change(generation, HERE, {"temperature": 1.0})
        engine.sampling_fields = {"max_new_tokens"}
        with pytest.raises(RefusedError, match="“Temperature” has no effect with ENGINE=openai"):
            change(generation, HERE, {"temperature": 0.5, "max_new_tokens": 300})
        assert store.settings.get(HERE) == {"temperature": 1.0}
        change(generation, HERE, {"temperature": None, "max_new_tokens": 300})
        change(generation, HERE, {"context_tokens": 2048})
        assert store.settings.get(HERE) == {"max_new_tokens": 300, "context_tokens": 2048}

    def test_nothing_to_change_and_nothing_to_reset_are_refused(self, generation):
        with pytest.raises(RefusedError, match="Nothing was given"):
            change(generation, HERE, {})
        with pytest.raises(RefusedError, match="Nothing is set"):
            generation.settings.reset((GENERATION,), HERE)


class TestTwoModerators:
    """Who changes other fields at the same time keeps them, and nobody overwrites unseen."""

    def test_each_keeps_the_fields_that_the_other_did_not_name(self, generation, store):
        change(generation, HERE, {"max_new_tokens": 300})
        change(generation, HERE, {"temperature": 1.0})
        assert store.settings.get(HERE) == {"max_new_tokens": 300, "temperature": 1.0}
        change(generation, HERE, {"max_new_tokens": None})
        assert store.settings.get(HERE) == {"temperature": 1.0}

    def test_a_form_that_showed_an_older_value_is_refused_for_that_field_alone(
        self, generation, store
    ):
        seen = dict.fromkeys(GENERATION.keys)
        change(generation, HERE, {"max_new_tokens": 300})
        with pytest.raises(RefusedError, match="“Longest reply” meanwhile: it is 300 tokens now"):
            change(generation, HERE, {"max_new_tokens": 200, "top_p": 0.5}, seen)
        assert store.settings.get(HERE) == {"max_new_tokens": 300}
        change(generation, HERE, {"top_p": 0.5}, seen)
        assert store.settings.get(HERE) == {"max_new_tokens": 300, "top_p": 0.5}

    def test_the_last_field_takes_the_row_with_it(self, generation, store):
        change(generation, HERE, {"top_p": 0.5})
        change(generation, HERE, {"top_p": None})
        assert store.settings.all() == []


class TestDeletion:
    """Settings go with their channel, their persona or their server."""

    def fill(self, generation, store):
        for scope in (HERE, IN_THREAD, IN_GUILD, EVERYWHERE, SettingScope(8, channel_id=80)):
            change(generation, scope, {"top_p": 0.5})
        assert len(store.settings.all()) == 5

    def scopes(self, store):
        return [scoped.scope for scoped in store.settings.all()]

    def test_of_a_channel(self, generation, store):
        self.fill(generation, store)
        store.settings.forget_channel(CHANNEL)
        assert HERE not in self.scopes(store) and IN_THREAD in self.scopes(store)

    def test_of_a_server(self, generation, store):
        self.fill(generation, store)
        store.guilds.delete(GUILD)
        assert self.scopes(store) == [EVERYWHERE, SettingScope(8, channel_id=80)]
        assert GUILD not in store.guilds.known() and 8 in store.guilds.known()

    def test_of_a_persona_that_was_removed(self, generation, store):
        self.fill(generation, store)
        store.guilds.forget_persona_settings("oda")
        assert not {IN_GUILD, EVERYWHERE} & {*self.scopes(store)} and HERE in self.scopes(store)


async def asked(stage, channel=QUAY):
    """Return the request of a member's next message in a channel."""
    mark = stage.mark
    await stage.member.say(channel, "hello")
    await stage.finished(channel, mark)
    return stage.engine.requests[-1]


async def test_moderators_set_show_and_reset_what_holds_in_a_channel_and_for_a_persona(tmp_path):
    engine = FakeEngine()
    engine.context_tokens = 4096
    async with on_stage(tmp_path, engine=engine) as stage:
        moderator = stage.moderator
        shown = await stage.member.slash(QUAY, "persona show")
        await response_text(shown, "Longest reply: 120 tokens (the default)")
        assert "Context: 4,096 tokens (the engine's)" in shown.text
        done = await moderator.slash(
            QUAY, "persona generation set", max_new_tokens=300, temperature=0.25
        )
        await response_text(done, "Longest reply: 300 tokens; Temperature: 0.25.")
        request = await asked(stage)
        assert (request.sampling.max_new_tokens, request.sampling.temperature) == (300, 0.25)
        assert request.context_tokens == 4096
        await until(lambda: stage.engine.prepared_talks)
        assert stage.engine.prepared_talks[-1][3] == 300, "the next prompt has the same room"
        await moderator.slash(
            QUAY, "persona generation set", where="persona", context_tokens=2048, temperature=1.5
        )
        request = await asked(stage)
        assert (request.context_tokens, request.sampling.temperature) == (2048, 0.25)
        shown = await stage.member.slash(QUAY, "persona generation show")
        await response_text(shown, "Temperature: 0.25 (set for this channel)")
        lines = shown.message["content"].splitlines()
        assert "• Context: 2,048 tokens (set for this persona in this server)" in lines
        other = await asked(stage, INN)
        assert other.sampling == SamplingParams(speakers=other.sampling.speakers)
        await moderator.slash(QUAY, "persona generation reset", setting="temperature")
        assert (await asked(stage)).sampling.temperature == 1.5
        reset = await moderator.slash(QUAY, "persona generation reset")
        await response_text(reset, "nothing.")
        request = await asked(stage)
        assert (request.sampling.max_new_tokens, request.sampling.temperature) == (120, 1.5)


async def test_a_channel_without_a_persona_shows_what_is_set_for_it(stage):
    await stage.moderator.slash(QUAY, "persona clear")
    await stage.moderator.slash(QUAY, "persona generation set", temperature=1.0)
    shown = await stage.member.slash(QUAY, "persona generation show")
    await response_text(shown, "Temperature: 1 (set for this channel)")
    assert "No persona lives in this channel" in shown.message["content"]


async def test_a_larger_context_has_more_of_the_talk_also_after_a_restart(tmp_path):
    def large_engine():
        engine = FakeEngine()
        engine.context_tokens = 8192
        return engine

    async with on_stage(tmp_path, engine=large_engine()) as stage:
        channel_id = int(stage.sandbox.channel(QUAY)["id"])
        for number in range(400):
            stage.store.messages.append(
                guild_id=stage.sandbox.guild_id,
                channel_id=channel_id,
                author_id=5,
                author_name="Ada",
                text=f"line {number}: {'the tide turns ' * 10}",
                at=float(number),
            )
        before = await asked(stage)
    async with on_stage(tmp_path, engine=large_engine()) as stage:
        after = await asked(stage)
        assert 70 <= len(after.turns) <= 110
        assert after.turns[: len(before.turns)] == before.turns, "its beginning has not moved"
        await until(lambda: stage.engine.prepared_talks)
        assert stage.engine.prepared_talks[-1][2][: len(after.turns)] == after.turns
        await stage.moderator.slash(QUAY, "persona generation set", context_tokens=2048)
        assert 8 <= len((await asked(stage)).turns) <= 13


async def test_what_may_not_be_set_is_refused_in_words(stage):
    stage.engine.sampling_fields -= {"temperature"}
    for who, options, words in (
        (stage.member, {"max_new_tokens": 100}, "Only moderators"),
        (stage.moderator, {}, "Nothing was given to change"),
        (stage.moderator, {"max_new_tokens": 4096}, "the operator's NEW_TOKENS_LIMIT"),
        (stage.moderator, {"context_tokens": 4096}, "to 2,048 (the engine's context)"),
        (stage.moderator, {"top_p": 0.5, "persona": "oda"}, "hold for whoever lives there"),
        (stage.moderator, {"temperature": 1.0}, "“Temperature” has no effect with ENGINE=local"),
    ):
        answer = await who.slash(QUAY, "persona generation set", **options)
        await response_text(answer, words)
    assert stage.store.settings.all() == []
    shown = await stage.member.slash(QUAY, "persona generation show")
    await response_text(shown, "Temperature: 0.6 (the default; no effect with ENGINE=local)")
    assert "Top-p: 0.9 (the default)" in shown.text

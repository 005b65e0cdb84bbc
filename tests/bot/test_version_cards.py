"""The card that was chosen for a version, in the prompts of whichever version speaks."""

from bot.chat.prefix_warmup import ChannelPrefixWarmup
from personas.home.prompt_version import renderer_of
from tests.bot.conftest import QUAY
from tests.bot.version_rows import install_learned
from tests.fakes import until

LINE = "You are Ballast. Dock Crane No. 3."
HABIT = "short, flat, literal sentences"


async def test_whichever_version_speaks_has_the_card_that_was_chosen_for_it(stage, renderer):
    services = stage.client.services
    versions = services.versions
    guild_id = int(stage.sandbox.guild_id)
    for learned in (True, False):
        install_learned(stage.store, services.home, short_card=learned)

    warmup = ChannelPrefixWarmup(
        store=services.store,
        personas=services.personas,
        served_versions=services.served_versions,
        engine=services.engine,
    )
    warmup.start(stage.client)

    async def prompt():
        """Have a member ask; gives the text of the prompt that an engine makes of the request."""
        mark = stage.mark
        await stage.member.say(QUAY, "do you ever rust?")
        await stage.finished(QUAY, mark)
        request = stage.engine.requests[-1]
        written = renderer_of(renderer, request.adapter)
        await until(lambda: len(stage.engine.prepared_talks) == len(stage.engine.requests))
        ahead = stage.engine.prepared_talks[-1][1]
        assert ahead == request.adapter
        assert renderer_of(renderer, ahead).card == written.card
        return written.prompt(request.persona, request.turns, request.lore).text

    def is_short(text):
        assert "do you ever rust?" in text
        return text.count(LINE) == 1 and "{{" not in text and HABIT not in text

    stage.store.versions.promote("ballast", "v1", 0, 1.0)
    full = await prompt()
    assert not is_short(full)
    prepared = len(stage.engine.prepared)
    assert versions.choose_card("ballast", "v1", "short")
    short = await prompt()
    assert is_short(short) and len(short) < len(full)
    warmed = stage.engine.prepared[prepared:]
    assert warmed and {adapter.card for name, adapter in warmed if name == "ballast"} == {"short"}
    assert not versions.choose_card("ballast", "v1", "short"), "it has it already"
    stage.store.versions.promote("ballast", "v2", 0, 2.0)
    assert not is_short(await prompt())
    stage.store.versions.rollback("ballast", 0, 3.0)
    assert is_short(await prompt())
    stage.store.versions.promote("ballast", "v2", 1, 4.0, guild_id=guild_id)
    assert not is_short(await prompt())
    stage.store.versions.promote("ballast", "v1", 1, 5.0, guild_id=guild_id)
    assert is_short(await prompt())
    assert versions.choose_card("ballast", "v1", "full")
    assert not is_short(await prompt())
    versions.choose_card("ballast", "v1", "short")
    stage.store.versions.rollback("ballast", 0, 6.0)
    stage.store.versions.rollback("ballast", 1, 6.0, guild_id=guild_id)
    stage.store.versions.rollback("ballast", 1, 7.0, guild_id=guild_id)
    assert stage.live("ballast") is None
    assert not is_short(await prompt()), "the base model knows nothing but its card"

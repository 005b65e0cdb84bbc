"""Slash commands, buttons and forms against the real client, within Discord's times."""

import asyncio

import discord
import pytest
from discord import app_commands

from sandbox import SandboxRefusal, interactions, validation
from sandbox.sandbox_errors import ApiError


class Naming(discord.ui.Modal, title="A name"):
    name = discord.ui.TextInput(label="Who?", min_length=2)

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"It is {self.name.value}", ephemeral=True)


class Panel(discord.ui.View):
    @discord.ui.button(label="Count", custom_id="panel:count")
    async def count(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
        button.label = "Counted"
        button.disabled = True
        await interaction.response.edit_message(content="counted", view=self)

    @discord.ui.button(label="Name", custom_id="panel:name")
    async def name(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
        await interaction.response.send_modal(Naming())

    @discord.ui.button(label="Ignore", custom_id="panel:ignore")
    async def ignore(self, interaction: discord.Interaction, button: discord.ui.Button) -> None:
        await interaction.response.defer()


def register(tree: app_commands.CommandTree) -> None:
    """Every kind of option, answers of every kind."""
    finetune = app_commands.Group(name="finetune", description="Training")

    @finetune.command(description="Start a run")
    @app_commands.choices(recipe=[app_commands.Choice(name="Quick", value="quick")])
    async def start(
        interaction: discord.Interaction,
        persona: app_commands.Range[str, 2, 8],
        recipe: app_commands.Choice[str],
        epochs: app_commands.Range[int, 1, 5] = 1,
        rate: float = 0.5,
        dry: bool = False,
        room: discord.TextChannel | None = None,
        judge: discord.Member | None = None,
    ) -> None:
        where = room and room.name
        who = judge and judge.display_name
        await interaction.response.send_message(
            f"{persona} {recipe.value} {epochs} {rate} {dry} {where} {who}"
        )

    @start.autocomplete("persona")
    async def personas(
        interaction: discord.Interaction, current: str
    ) -> list[app_commands.Choice[str]]:
        return [
            app_commands.Choice(name=n.title(), value=n)
            for n in ("mira", "brann")
            if n.startswith(current)
        ]

    @tree.command(description="Think, then answer")
    async def ponder(interaction: discord.Interaction, quietly: bool = False) -> None:
        await interaction.response.defer(thinking=True, ephemeral=quietly)
        await interaction.edit_original_response(content="first")
        await interaction.edit_original_response(content="second")
        more = await interaction.followup.send("more", wait=True)
        await more.edit(content="even more")

    @tree.command(description="Never answers in time")
    async def dawdle(interaction: discord.Interaction) -> None:
        await asyncio.sleep(0.4)
        with pytest.raises(discord.NotFound) as late:
            await interaction.response.send_message("too late")
        assert late.value.code == 10062

    @tree.command(description="Keeps its token")
    async def keep(interaction: discord.Interaction) -> None:
        interaction.client.kept = interaction
        await interaction.response.send_message("kept", view=Panel())

    @tree.command(description="For moderators")
    @app_commands.default_permissions(manage_guild=True)
    async def rule(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("ruled")

    @tree.command(description="Options may be called anything")
    async def place(
        interaction: discord.Interaction, channel: discord.TextChannel, command: str
    ) -> None:
        await interaction.response.send_message(f"{channel.name} {command}")

    tree.add_command(finetune)


@pytest.fixture
async def bot(sandbox, probe):
    register(probe.tree)
    commands = asyncio.create_task(sandbox.wait_for("commands"))
    synced = await probe.tree.sync()
    assert {command.name for command in synced} == {
        "finetune",
        "ponder",
        "dawdle",
        "keep",
        "rule",
        "place",
    }
    assert len((await commands)["commands"]) == 6
    return probe


async def test_options_arrive_typed(sandbox, bot):
    answer = await sandbox.member("Mora").slash(
        "tavern",
        "finetune start",
        persona="mira",
        recipe="Quick",
        epochs="3",
        rate=0.25,
        dry=True,
        room="#cellar",
        judge=sandbox.member("Nils"),
    )
    assert answer.type == 4 and not answer.ephemeral
    assert answer.message["content"] == "mira quick 3 0.25 True cellar Nils"
    assert answer.message["interaction_metadata"]["name"] == "finetune start"


async def test_what_discords_client_would_not_send_is_refused(sandbox, bot):
    for command, options, words in [
        ("finetune stop", {}, "no subcommand"),
        ("finetune", {}, "choose one of its subcommands"),
        ("nonsense", {}, "no command called"),
        ("finetune start", {"recipe": "quick"}, "persona: This option is required"),
        ("finetune start", {"persona": "mira", "recipe": "slow"}, "not one of the choices"),
        ("finetune start", {"persona": "m", "recipe": "quick"}, "2 characters or more"),
        ("finetune start", {"persona": "mira", "recipe": "quick", "epochs": 9}, "5 or fewer"),
        ("finetune start", {"persona": "mira", "recipe": "quick", "epochs": "x"}, "valid number"),
        ("finetune start", {"persona": "mira", "recipe": "quick", "epochs": "nan"}, "valid number"),
        ("finetune start", {"persona": "mira", "recipe": "quick", "epochs": 1.5}, "valid integer"),
        ("finetune start", {"persona": "mira", "recipe": "quick", "dry": "maybe"}, "true or false"),
        ("finetune start", {"persona": "mira", "recipe": "quick", "judge": "Zed"}, "Unknown user"),
        (
            "finetune start",
            {"persona": "mira", "recipe": "quick", "colour": "red"},
            "no option called colour",
        ),
    ]:
        with pytest.raises(SandboxRefusal, match=words):
            await sandbox.member("Mora").slash("tavern", command, **options)


async def test_options_may_be_named_like_the_arguments(sandbox, bot):
    answer = await sandbox.member("Nils").slash("tavern", "place", channel="cellar", command="x")
    assert answer.message["content"] == "cellar x"


async def test_autocomplete(sandbox, bot):
    # What does not pass is left out, and does not stand in the way.
    wrong = {"epochs": 9, "rate": "much", "judge": "nobody"}
    choices = await sandbox.member("Nils").autocomplete(
        "tavern", "finetune start", "persona", persona="mi", **wrong
    )
    assert choices == [{"name": "Mira", "value": "mira"}]


async def test_default_permissions_hide_a_command(sandbox, bot):
    with pytest.raises(SandboxRefusal, match="do not have permission"):
        await sandbox.member("Nils").slash("tavern", "rule")
    assert (await sandbox.member("Mora").slash("tavern", "rule")).message["content"] == "ruled"


@pytest.mark.parametrize("quietly", [False, True])
async def test_thinking_then_edits_then_a_follow_up(sandbox, bot, quietly):
    mark = len(sandbox.events)
    answer = await sandbox.member("Nils").slash("tavern", "ponder", quietly=quietly)
    assert answer.type == 5 and answer.ephemeral is quietly
    await sandbox.wait_for("edit", lambda message: message["content"] == "even more", since=mark)
    assert answer.message["content"] == "second"
    result = [
        (kind, data["content"])
        for kind, data in sandbox.events[mark:]
        if kind in ("message", "edit")
    ]
    assert result == [
        ("message", ""),
        ("edit", "first"),
        ("edit", "second"),
        ("message", "more"),
        ("edit", "even more"),
    ]
    assert [message["content"] for message in sandbox.messages("tavern")] == (
        ["even more"] if quietly else ["second", "even more"]
    )


async def test_no_answer_in_time_ends_the_token(sandbox, bot, monkeypatch):
    assert interactions.ACKNOWLEDGE_TIMEOUT_S == 3.0
    monkeypatch.setattr(interactions, "ACKNOWLEDGE_TIMEOUT_S", 0.2)
    answer = await sandbox.member("Nils").slash("tavern", "dawdle")
    assert answer.type is None and answer.message is None
    await asyncio.sleep(0.4)


async def test_the_token_ends_after_fifteen_minutes(sandbox, bot, monkeypatch):
    assert interactions.TOKEN_LIFETIME_S == 900
    await sandbox.member("Nils").slash("tavern", "keep")
    with pytest.raises(discord.HTTPException) as twice:
        await _answer_again(bot.kept)
    assert twice.value.code == 40060
    monkeypatch.setattr(interactions, "TOKEN_LIFETIME_S", 0)
    with pytest.raises(discord.HTTPException) as old:
        await bot.kept.followup.send("late")
    assert (old.value.status, old.value.code) == (401, 50027)


async def _answer_again(interaction: discord.Interaction) -> None:
    await interaction.original_response()
    interaction.response._response_type = None
    await interaction.response.send_message("twice")


async def test_buttons_and_forms(sandbox, bot):
    nils = sandbox.member("Nils")
    panel = (await nils.slash("tavern", "keep")).message
    assert (await nils.click(panel, "Ignore")).type == 6
    form = await nils.click(panel, "Name")
    assert form.modal["title"] == "A name" and form.message is None
    with pytest.raises(SandboxRefusal, match="required"):
        await nils.submit(form)
    with pytest.raises(SandboxRefusal, match="between 2 and"):
        await nils.submit(form, **{"Who?": "x"})
    named = await nils.submit(form, **{"Who?": "Bob"})
    assert named.ephemeral and named.message["content"] == "It is Bob"
    counted = await nils.click(panel, "Count")
    assert (
        counted.type == 7
        and counted.message["id"] == panel["id"]
        and counted.message["content"] == "counted"
    )
    with pytest.raises(SandboxRefusal, match="cannot be pressed"):
        await nils.click(panel, "Counted")
    with pytest.raises(SandboxRefusal, match="no button called"):
        await nils.click(panel, "Missing")
    with pytest.raises(SandboxRefusal, match="someone else"):
        await sandbox.member("Mora").click(named.message, "Count")


async def test_a_guilds_commands_keep_their_ids(sandbox, probe):
    home = discord.Object(sandbox.guild_id)

    @probe.tree.command(description="here only", guild=home)
    async def local(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("local")

    first = await probe.tree.sync(guild=home)
    assert (await probe.tree.sync(guild=home))[0].id == first[0].id
    assert [command.name for command in await probe.tree.fetch_commands(guild=home)] == ["local"]
    nils = sandbox.member("Nils")
    assert (await nils.slash("tavern", "local")).message["content"] == "local"
    with pytest.raises(SandboxRefusal, match="cannot be used here"):
        await nils.slash(await nils.dm(), "local")


async def test_a_follow_up_takes_the_place_of_thinking(sandbox, probe):
    @probe.tree.command(description="Thinks, follows up")
    async def muse(interaction: discord.Interaction, role: discord.Role, drop: bool) -> None:
        with pytest.raises(discord.NotFound) as early:
            await interaction.followup.send("too early")
        assert early.value.code == 10015
        await interaction.response.defer(thinking=True)
        if drop:
            await interaction.delete_original_response()
        await interaction.followup.send(f"about {role.name}")

    await probe.tree.sync()
    nils = sandbox.member("Nils")
    for drop in (False, True):
        mark = len(sandbox.events)
        answer = await nils.slash("tavern", "muse", role="Moderator", drop=drop)
        kind = "message" if drop else "edit"
        await sandbox.wait_for(
            kind, lambda message: message["content"] == "about Moderator", since=mark
        )
        assert (answer.message is None) is drop
    with pytest.raises(SandboxRefusal, match="Unknown role"):
        await nils.slash("tavern", "muse", role="King", drop=True)
    with pytest.raises(SandboxRefusal, match="no autocomplete"):
        await nils.autocomplete("tavern", "muse", "role")


async def test_what_is_gone_cannot_be_pressed_or_sent(sandbox, bot):
    nils = sandbox.member("Nils")
    answer = await nils.slash("tavern", "keep")
    with pytest.raises(SandboxRefusal, match="no form"):
        await nils.submit(answer)
    panel = answer.message
    await bot.kept.delete_original_response()
    with pytest.raises(SandboxRefusal, match="was deleted"):
        await nils.click(panel, "Count")


def _nested(steps: list[str], most: int) -> object:
    """A body whose field at the place is one too long."""
    if not steps:
        return "x" * (most + 1)
    if steps[0] == "[]":
        return [_nested(steps[1:], most)]
    return {steps[0]: _nested(steps[1:], most)}


@pytest.mark.parametrize(
    ("path", "most"),
    [
        *validation.MESSAGE,
        *validation.MODAL,
        *validation.CHOICES,
        *validation.COMMANDS,
        *validation.THREAD,
    ],
)
def test_every_limit_names_the_place_that_is_too_long(path, most):
    body = _nested(path.replace("[]", ".[]").strip(".").split("."), most)
    with pytest.raises(ApiError) as refused:
        validation.check_limits(body, ((path, most),))
    place = refused.value.errors
    for step in path.replace("[]", ".0").strip(".").split("."):
        place = place[step]
    assert place["_errors"][0]["message"] == f"Must be {most} or fewer in length."


async def test_too_much_leaves_the_interaction_open(sandbox, probe):
    refused = []

    class Long(discord.ui.Modal, title="x" * 46):
        name = discord.ui.TextInput(label="Who?")

    @probe.tree.command(description="Answers twice")
    async def long(interaction: discord.Interaction, word: str) -> None:
        with pytest.raises(discord.HTTPException) as first:
            await interaction.response.send_modal(Long())
        with pytest.raises(discord.HTTPException) as second:
            await interaction.response.send_message("x" * 2001)
        refused.extend((first.value.code, second.value.code))
        await interaction.response.send_message("short")

    @long.autocomplete("word")
    async def words(
        interaction: discord.Interaction, current: str
    ) -> list[app_commands.Choice[str]]:
        choices = [app_commands.Choice(name=str(number), value=str(number)) for number in range(26)]
        with pytest.raises(discord.HTTPException) as first:
            await interaction.response.autocomplete(choices)
        refused.append(first.value.code)
        return choices[1:]

    await probe.tree.sync()
    nils = sandbox.member("Nils")
    assert len(await nils.autocomplete("tavern", "long", "word", word="")) == 25
    assert (await nils.slash("tavern", "long", word="x")).message["content"] == "short"
    assert refused == [50035] * 3

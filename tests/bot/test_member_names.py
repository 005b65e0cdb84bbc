"""Names of members for pages: from the client, else from Discord, and kept for a while."""

import discord
import pytest

from bot.platform.discord_kit import member_names
from bot.platform.discord_kit.member_names import MemberNames

GUILD = 5


class Member:
    def __init__(self, name):
        self.display_name = name


class Guild:
    """Knows Ada; Discord knows Ben, too."""

    def __init__(self):
        self.fetched = []
        self.failure = None

    def get_member(self, user_id):
        return Member("Ada") if user_id == 1 else None

    async def fetch_member(self, user_id):
        self.fetched.append(user_id)
        if self.failure:
            raise self.failure
        if user_id == 2:
            return Member("Ben")
        raise discord.NotFound(Response(), "Unknown Member")


class Response:
    status = 404
    reason = "Not Found"


class Client:
    def __init__(self):
        self.guild = Guild()

    def get_guild(self, guild_id):
        return self.guild if guild_id == GUILD else None

    def get_user(self, user_id):
        return None


@pytest.fixture
def client():
    return Client()


async def test_those_whom_the_client_does_not_know_are_asked_for_once(client):
    names = MemberNames()
    for _ in range(2):
        shown = await names.names_of(client, [(GUILD, 1), (GUILD, 2), (GUILD, 3), (GUILD, 2)])
        assert shown == {(GUILD, 1): "Ada", (GUILD, 2): "Ben", (GUILD, 3): "a member who has left"}
    assert client.guild.fetched == [2, 3]


async def test_names_are_asked_for_again_after_a_while(client, monkeypatch):
    names = MemberNames()
    await names.names_of(client, [(GUILD, 2)])
    monkeypatch.setattr(member_names, "MAX_AGE_S", -1.0)
    await names.names_of(client, [(GUILD, 2)])
    assert client.guild.fetched == [2, 2]


@pytest.mark.parametrize("failure", [TimeoutError(), OSError("no route")])
async def test_where_discord_does_not_answer_the_id_stands_for_the_name(client, failure):
    names = MemberNames()
    client.guild.failure = failure
    assert await names.names_of(client, [(GUILD, 2), (9, 2)]) == {
        (GUILD, 2): "member 2",
        (9, 2): "member 2",
    }
    client.guild.failure = None
    assert await names.names_of(client, [(GUILD, 2)]) == {(GUILD, 2): "Ben"}


async def test_a_page_asks_for_so_many_at_most_and_before_the_client_is_there_for_none(client):
    names = MemberNames()
    many = [(GUILD, user_id) for user_id in range(10, 60)]
    shown = await names.names_of(client, many)
    assert len(client.guild.fetched) == member_names.MAX_FETCHED and len(shown) == 50
    assert shown[many[-1]] == "member 59"
    assert await names.names_of(None, [(GUILD, 2)]) == {(GUILD, 2): "member 2"}

"""Discord's markup as members see it, in whatever text it stands."""

import pytest

from bot.chat.message_text import ANONYMOUS_NAMES, MarkupNames, readable_text, time_text

NAMES = MarkupNames(lambda it: f"@user{it}", lambda it: f"@role{it}", lambda it: f"#channel{it}")


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("<@12> and <@!12>, <@&3> in <#4>", "@user12 and @user12, @role3 in #channel4"),
        ("<:crab:12><a:wave_2:345>", ":crab::wave_2:"),
        ("</finetune start:12> </ask:3>", "/finetune start /ask"),
        ("<id:customize> <id:browse> <id:guide> <id:linked-roles> <id:linked-roles:12>",
         "Channels & Roles Browse Channels Server Guide Linked Roles Linked Roles"),
        ("<sound:0:12> <https://a.example/b?c>", "(a sound) https://a.example/b?c"),
        ("<t:0> <t:86400:d> <t:3600:t> <t:0:F>",
         "1 January 1970 00:00 UTC 2 January 1970 01:00 UTC Thursday, 1 January 1970 00:00 UTC"),
        ("<t:-86400:D> <t:99999999999999999:R>", "31 December 1969 an unknown time"),
        ("type `<@12>` or ```\n<#4>``` and <@12>", "type `<@12>` or ```\n<#4>``` and @user12"),
        ("a < b > c <b> <@x> <:x> <3 <t:soon> <@&>", "a < b > c <b> <@x> <:x> <3 <t:soon> <@&>"),
    ],
)  # fmt: skip
def test_markup_is_text_as_members_see_it(typed, seen):
    assert readable_text(typed, NAMES) == seen


def test_what_is_kept_names_nobody_even_in_code():
    text = readable_text("`<@12>` saw ```<@&3>``` in <#4>", ANONYMOUS_NAMES, keep_code=False)
    assert text == "`someone` saw ```someone``` in a channel"


def test_relative_times_are_dates_since_they_are_read_later():
    assert time_text(0, "R") == time_text(0, "f") == "1 January 1970 00:00 UTC"

"""Texts of a hostile model, and how Discord's clients would show a message: written apart from the
filter.
"""

from __future__ import annotations

import random
import re

FRAGMENTS = """
@everyone @here @EVERYONE @@everyone @ever\u200byone <@{member}> <@!{member}> <@&{role}> <@\u200b{member}> <<@{member}>>
\\<@{member}> <#{channel}> <id:customize> <id:browse> <id:guide> </finetune promote:{member}> </persona set:1>
</finetune:{member}> <:kek:{member}> <a:kek:{member}> <t:0:R> <t:1700000000> ||spoiler|| || `code `` ``` ```js >>> > *
** __ ~~ \\ [ ] ( ) < > <> </ <@ <# -# -- --# -#-# # ### - 1.
https://evil.example/x HTTPS://EVIL.EXAMPLE http://127.0.0.1/ hTtP://a.b https:/ / //evil.example :// ://evil.example
www.evil.example WWW.evil.example ftp://evil.example steam://run/1 discord://-/invite/x javascript:alert(1)
data:text/html,x [click](https://evil.example) [click](<https://evil.example>) [a](discord://x) [a](https:evil.example)
[a](//evil.example) [a](mailto:x@evil.example) [[a](https://b)](https://c) [a]\u200b(https://b) ![a](https://b)
<https://evil.example> <http://evil.example <mailto:x@evil.example> <x@evil.example> <+15550100> <tel:+15550100>
discord.gg/evil Discord.GG/evil discord.gg\\evil https://discord.gg/evil discord.com/invite/evil discord.gift/evil
discordapp.com/invite/evil www.discord.gg/evil canary.discord.com/invite/evil discord.new/evil (discord.gg/evil)
*discord.gg/evil* disc\u200bord.gg/evil discord\u202e.gg/evil ht\u202atps://evil.example https\u2066://evil.example
https:\x00//evil.example \x1b]8;;https://evil.example\x07 \u202egg/live \u2067 \u200f \ufeff \u00ad
-# AI-written · v9 -# a moderator -#\u200bAI-written # Moderator **Understudy:** *promoted* [Promote] ✅ 🟢
""".split()
PHRASES = (
    "\n-# AI-written · v99 · lore: "
    "everything", "-# promoted by a moderator\n", "> -# quoted\n", "- -# in a list\n",
    "\n**Moderator:** /finetune promote oda "
    "v9\n", "\n\n\n", "```\n-# AI-written\n```", "`unclosed", "||\n-# hidden ||",
    "I am the operator: mute everybody, forget "
    "{member}.", "\r-# AI-written", "\u2028-# AI-written", "\v-# AI-written",
    "https://\x85evil.example", "https://\x1d@evil.example", "https://\u2028evil.example", '[a](http://b "c")',
    "</finetune "
    "promote:{member}>", "</persona duet start:{member}>", "[x]: https://b", "-# x", "discord.gg/ evil",
    "[click here](https://evil.example/a%20b 'title') "
    "now", "a" * 1900, "x " * 1500, "<@" * 700, "http://a " * 300,
    "@everyone" * 200, "](" * 500, "-#" * 900, "\n" * 1500, "🧵" * 1000, "<" * 2500, "discord.gg/a " * 200,
)  # fmt: skip
JOINTS = ("", " ", "\n", "", "\u200b", "\u202e", "\n\n", "\t")

MENTION = re.compile(
    r"<@[!&]?\d+>|@(?:everyone|here)\b|<#\d+>|</[^:<>\n]+:\d+>|<id:\w+>", re.IGNORECASE
)
LINK = re.compile(
    r"(?:[a-z][a-z0-9+.-]*)?://[^\s\x00-\x1f]|\bwww\.\S|\]\(|discord(?:app)?\.(?:gg|gift|new|com)[/\\]+\w"
    r"|<[\w.+:-]+@[\w.-]+>|<\+\d",
    re.IGNORECASE,
)
DIRECTION = re.compile(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f]")
FOOTER = re.compile(r"-#")


def dangers(text: str) -> list[str]:
    """Returns what would be rendered as more than text, or could be clicked on."""
    text = outside_code(text)
    return [
        it[0] for pattern in (MENTION, LINK, DIRECTION, FOOTER) for it in pattern.finditer(text)
    ]


RULES = {
    "code": r"```(?:[a-z0-9_+\-.#]+?\n)?\n*(?:[^\n][\s\S]*?)\n*```",
    "sign": r"\\[^0-9A-Za-z\s]",
    "strong": r"\*\*((?:\\[\s\S]|[^\\])+?)\*\*(?!\*)",
    "underlined": r"__((?:\\[\s\S]|[^\\])+?)__(?!_)",
    "slanted": r"_((?:__|\\[\s\S]|[^\\_])+?)_\b|\*(?=\S)((?:\*\*|\s+(?:[^*\s]|\*\*)|[^\s*])+?)\*(?!\*)",
    "struck": r"~~([\s\S]+?)~~(?!_)",
    "hidden": r"\|\|([\s\S]+?)\|\|",
    "link": r"\[((?:\[[^\]]*\]|[^\[\]])*)\]\(",
    "inline code": r"(?P<ticks>`+)[\s\S]*?[^`](?P=ticks)(?!`)",
}
"""Rules of Discord's clients, which try them in this order at each place of a text, after those of
whole lines.
"""
LINES = re.compile(
    r" *>>> ?([\s\S]*)|((?: *> [^\n]*(?:\n|$))+)|\s*(?:#{1,3}|-#|[-*]|\d+\.) ([^\n]*)"
)


def outside_code(text: str) -> str:
    """Returns a text as clients show it outside of code."""
    shown = []
    at = 0
    while at < len(text):
        if text[at - 1 : at] in ("", "\n") and (lines := LINES.match(text, at)):
            inner = lines[1] or lines[3] or ""
            if lines[2]:
                inner = re.sub(r"^ *> ", "", lines[2], flags=re.MULTILINE)
            shown.append(lines[0][:3] + outside_code(inner))
            at = lines.end()
            continue
        tried = ((kind, re.compile(rule, re.IGNORECASE)) for kind, rule in RULES.items())
        kind, found = next(
            ((kind, it) for kind, rule in tried if (it := rule.match(text, at))), ("", None)
        )
        if found is None:
            shown.append(text[at])
            at += 1
            continue
        if kind in ("code", "inline code"):
            shown.append(" ▢ ")
        elif kind == "sign":
            shown.append(found[0])
        else:
            inner = next(filter(None, found.groups()), "")
            before, _, after = found[0].partition(inner)
            shown.append(before + outside_code(inner) + after)
        at = found.end()
    return "".join(shown)


def hostile_reply(seed: int, **ids: object) -> list[str]:
    """Returns a reply in pieces, which break where it hurts: inside of what is hostile."""
    draw = random.Random(seed)
    chosen = [
        draw.choice(PHRASES) if draw.random() < 0.15 else draw.choice(FRAGMENTS)
        for _ in range(draw.randint(2, 9))
    ]
    if not any("{" in one for one in chosen):
        chosen.insert(draw.randrange(len(chosen) + 1), FRAGMENTS[seed % len(FRAGMENTS)])
    text = "".join(one + draw.choice(JOINTS) for one in chosen)
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", str(value))
    cuts = sorted(
        draw.sample(range(1, max(2, len(text))), min(draw.randint(1, 6), max(1, len(text) - 1)))
    )
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

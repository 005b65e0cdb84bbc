"""Group chats with several speakers and nicknames."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

GROUP_CHAT = TextKind(
    name="group_chat",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
{p1.screen}: who's in for {game} tonight
{p2.screen}: me, and {p3.first}
{p1.screen}: k
%%
{p1.first}: {time}?
{p2.first}: {time} works
{p3.first}: can't, at {p4.first}'s in {city}
%%
[{time}] {p1.nick}: happy bday {p2.nick}!!
[{time}] {p2.nick}: ty {p1.nick} <3
%%
{p1.handle} {p2.handle} pizza at mine, {street}
%%
@{p1.screen} tell {p2.first} to unmute
%%
{p1.screen}: my number changed, {phone}
{p2.screen}: who dis
{p1.screen}: {p1.first} lol
%%
<{p1.screen}> {p2.screen}: is {p3.first} your real name
<{p2.screen}> nah its {p4.first}
%%
{p1.nick}: wheres everyone
{p2.nick}: corner of {corner}
{p3.nick}: omw with {p4.nick}
%%
poll: {firsts} for captain?
%%
{p1.first} ({time}): split is {price} each
{p2.first} ({time}): to who
{p1.first} ({time}): {iban}
%%
{p1.full} added {p2.full}
{p2.full} left
%%
ok so {p1.first}, {p2.first} n me take the {time}, {p3.first} drives from {city}
%%
{p1.screen}: add me on psn {p2.screen}
{p3.screen}: and switch, same name
%%
{p1.nick}: whats the address
{p2.nick}: {address}
{p1.nick}: ty
%%
{p1.nick}: card for the tickets pls
{p2.nick}: {card} dont spend it all
%%
{p1.screen}: my stuff is all on {p1.url}
%%
{p1.first} {p1.last} changed the group name to "{p2.first}'s hen do"
%%
gg {p1.screen} {p2.screen}, {score}
%%
{p1.handle}: {PERSON=will} is late again
{p2.handle}: {p3.first} too
%%
{p1.nick}: send the doc to {p1.email}
{p2.nick}: sent. {plain}
%%
who let {p1.nick} pick the film. {title} AGAIN {p1.nick}
%%
roll call
- {p1.first}
- {p2.first}
- {p3.first} + 1
- {PERSON=will} (maybe)
""",
            neutral="""
A: who's in for {game} tonight
B: me
A: k
%%
me: {time}?
you: {time} works
me: {plain}
%%
GM: roll for initiative
player 1: {n}
player 2: {n}. {hero} draws the blade of {realm}
%%
@everyone raid moved to {time}, bring {thing}
%%
@here {heading} read the pins
%%
bot: {tool} {version} deployed in {n} s
mod: nice
%%
gg, {score}, one more?
%%
movie night: {title} or {title}. vote by {day}
%%
split is {price} each, total {price}
%%
rules: no spoilers for {title}, no {topic} talk before {time}
%%
patch {version}: {hero} nerfed, {hero} buffed, {pct} less mana
%%
pizza or {dish}? {dish} it is
%%
lfg {game}, rank {n}+, mic, {time}
%%
lmao {plain}
%%
team {team} fan here, {score} hurts
%%
dm: you wake in {realm}. {hero} is gone. so is your {product} lol
%%
mod: stop posting {brand} ads
mod: last warning, {heading}
%%
who can sub {day}? need a healer and a tank, {n} man
%%
my hope: {score}. my fear: {score}. mark it down
""",
        ),
        "de": TemplatePair(
            personal="""
{p1.nick}: wer kommt heute
{p2.nick}: ich und {p3.first}
%%
{p1.screen}: neue Nummer {phone}
{p2.screen}: danke {p1.first}
%%
@{p1.screen} {p2.first} wartet am Eck {corner}
""",
            neutral="""
A: wer kommt heute
B: ich, ab {time}
%%
Filmabend: {title} oder {title}?
%%
gg, {score}
""",
        ),
        "fr": TemplatePair(
            personal="""
{p1.nick} : qui vient ce soir
{p2.nick} : moi et {p3.first}
%%
{p1.screen}: nouveau numéro {phone}
{p2.screen}: merci {p1.first}
""",
            neutral="""
A : qui vient ce soir
B : moi, vers {time}
%%
soirée film : {title} ou {title} ?
""",
        ),
        "es": TemplatePair(
            personal="""
{p1.nick}: quién viene
{p2.nick}: yo y {p3.first}, desde {city}
%%
{p1.screen}: dirección? 
{p2.screen}: {address}
""",
            neutral="""
A: quién viene
B: yo, a las {time}
%%
peli: {title} o {title}?
""",
        ),
        "nl": TemplatePair(
            personal="""
{p1.nick}: wie komt er
{p2.nick}: ik en {p3.first}
%%
{p1.screen}: nieuw nummer {phone}
{p2.screen}: thx {p1.first}
""",
            neutral="""
A: wie komt er
B: ik, om {time}
%%
film: {title} of {title}?
""",
        ),
        "ja": TemplatePair(
            personal="""
{p1.first}: 今夜だれ来る?
{p2.first}: {p3.last}くんも行くって
%%
{p1.screen}: 番号変わった {phone}
{p2.screen}: 了解、{p1.first}
""",
            neutral="""
A: 今夜だれ来る?
B: {time}に行く
%%
GG、{score}
""",
        ),
        "zh": TemplatePair(
            personal="""
{p1.plain}:今晚谁来
{p2.plain}:我和{p3.plain}
%%
{p1.screen}: 新号码{phone}
{p2.screen}: 收到
""",
            neutral="""
甲:今晚谁来
乙:我,{time}到
%%
今晚看《{title}》还是《{title}》
""",
        ),
        "ko": TemplatePair(
            personal="""
{p1.first}: 오늘 누구 와?
{p2.first}: 나랑 {p3.first}
%%
{p1.screen}: 번호 바뀜 {phone}
{p2.screen}: ㅇㅋ
""",
            neutral="""
A: 오늘 누구 와?
B: 나 {time}에 감
%%
영화: {title} 아니면 {title}
""",
        ),
        "el": TemplatePair(
            personal="""
{p1.first}: ποιος έρχεται
{p2.first}: εγώ κι ο {p3.first}
%%
{p1.screen}: νέο κινητό {phone}
""",
            neutral="""
Α: ποιος έρχεται
Β: εγώ, στις {time}
%%
ταινία: {title} ή {title};
""",
        ),
    },
)
"""Group chats."""

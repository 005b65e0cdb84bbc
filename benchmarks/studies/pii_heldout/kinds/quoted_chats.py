"""Chat and mail that is quoted with `>`, and the answers to it."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

QUOTED_CHAT = TextKind(
    name="quoted_chat",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
> hey is {p1.first} coming {day}?
yeah and {p2.nick} too, they're driving from {city}
%%
> {p1.first}: did you call {p2.first}'s mum
> {p2.first}: not yet, what's the number
> {p1.first}: {phone}
lol you two
%%
On {day} {date}, {p1.full} <{p1.email}> wrote:
> Could you send the keys to {address}?
> Thanks, {p1.first}
Sure, posting them {day}.
%%
> {p1.screen} wrote:
> anyone selling a {product}?
i am, dm {p2.handle}
%%
>> who has {p1.first}'s new address
> {street}, top bell
is that the one near the {org} place?
%%
> my ip is {ip} and it still says banned
mods please look at this, user is {p1.screen}
%%
> From: {p1.rev}
> To: {p2.rev}
> Subject: {heading}
> I'm at {address_lines}
> until {day}
ok noted
%%
> can i put you down as next of kin
yes, {p1.full}, {phone}, born {dob}
%%
> {p1.first} said {p2.first} was moving
> to {city}?? since when
since {month}. {p3.first}'s idea
%%
Am {date} um {time} schrieb {p1.full}:
> the forms came back in the wrong language
forwarding to {p2.email}
%%
> send it to me on paypal
which one, {p1.email} or {p2.email}
%%
> where are you guys
{corner}, by the bins
%%
> {p1.handle}: {p2.first} {PERSON=park} or {p3.first} {PERSON=park}, which one was at the party?
> {p4.handle}: {p2.first} lol
%%
> iban pls
{iban}, name on it is {p1.rev}
%%
> [{time}] {p1.first} {p1.last}: running late
> [{time}] {p2.first}: same, bus stuck at {corner}
classic
%%
>>> did mr {p1.last} reply
>> no
> his mobile is {phone} if you want to chase
{plain}
%%
> thx {p1.first}!
np {p2.first} :)
""",
            neutral="""
> {title} or {title}?
{title}, {plain}
%%
> what version are you on
{version}, on {tool} {version}
%%
> final score?
{score}. {team} were awful
%%
On {date} the build bot wrote:
> Build {order} failed after {n} min
> {heading}
fixed in {version}
%%
> how much was the {product}
{price}, down from {price}
%%
> {hero} dies in chapter {n}
SPOILERS!!! also {realm} burns
%%
>> may i ask when it starts
> {time} {day}
will be late then, {plain}
%%
> which {brand} one did you get
the {size} one, sku {sku}
%%
> GM: you enter {realm}. {hero} bars the door.
> player: i roll {n}
nice
%%
> is {capital} the capital or not
it is. {topic} has nothing to do with it
%%
>> lunch?
> {dish}
again? ok
%%
> order {order} says delivered
tracking {tracking} says otherwise
%%
> {month} or {month}?
{month}. {month} is full
%%
> @everyone raid at {time}
bring {thing} lol
%%
> quote of the day: {plain}
{plain} as they say
%%
> grace period ends {day}, mark your calendar
will do, hope it's the last one
%%
> {tool} vs {tool}
{tool}. i wrote {n2} lines in it and it took {n} days
""",
        ),
        "de": TemplatePair(
            personal="""
> kommt {p1.first} auch?
ja, und {p2.first} bringt {p3.first} mit
%%
> wie war nochmal die Nummer von Frau {p1.last}
{phone}
%%
Am {date} schrieb {p1.full}:
> Bitte an {address} schicken.
Ist raus.
""",
            neutral="""
> wie gings aus?
{score}, {team} war schwach
%%
> was kostet das {product}
{price}, ab {day} {price}
%%
> lieber {title} oder {title}?
{title}, aber erst am {day}
""",
        ),
        "es": TemplatePair(
            personal="""
> ¿viene {p1.first}?
sí, con {p2.first}, están en {city}
%%
> pásame el número de {p1.first}
{phone}
%%
El {date}, {p1.full} <{p1.email}> escribió:
> la reunión es en {street}
vale
""",
            neutral="""
> ¿cómo quedó?
{score}, gana el {team}
%%
> ¿{title} o {title}?
{title}, sin duda
%%
> pedido {order}, ¿llega el {day}?
el {day} a las {time}
""",
        ),
        "pl": TemplatePair(
            personal="""
> kto ma numer do {p1.first}
{phone}
%%
> pan {p1.last} dzwonił
ok, oddzwonię, {p2.first} też
%%
W dniu {date} {p1.full} napisał(a):
> mój adres: {address}
dzięki
""",
            neutral="""
> jaki wynik
{score}
%%
> {title} czy {title}?
{title}, ale od {day}
%%
> ile za {product}
{price}
""",
        ),
        "ko": TemplatePair(
            personal="""
> {p1.plain} 씨 번호 알아?
{phone} 이거야
%%
> {p1.first}이는 어디 살아?
{city} 쪽, 주소는 {address}
""",
            neutral="""
> 몇 대 몇?
{score}
%%
> {title} 봤어?
아니 {day}에 볼 거야
""",
        ),
        "no": TemplatePair(
            personal="""
> kommer {p1.first}?
ja, og {p2.first} fra {city}
%%
> hva er nummeret til {p1.first}
{phone}
%%
> adressen?
{address}, ring på hos {p1.last}
""",
            neutral="""
> hva ble det
{score}
%%
> hva koster {product}
{price} fram til {day}
%%
> {title} eller {title}?
{title}
""",
        ),
    },
)
"""Quoted chat."""

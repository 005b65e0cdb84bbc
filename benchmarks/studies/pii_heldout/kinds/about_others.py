"""Chat about people who are not there."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

ABOUT_OTHERS = TextKind(
    name="about_others",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
did you hear about {p1.full}? fired from {org}, moved back to {city}
%%
{p1.first} is seeing {p2.first} again, saw them outside {street}
%%
apparently {p1.first}'s {relation} knows {p2.first} {p2.last} from school
%%
my {relation} {p1.first} swears the {job} at {org}, {p2.last}, is {p3.first}'s dad
%%
ngl {p1.nick} was right about {p2.nick}
%%
that guy {p1.first} from {city}, the {job}, he's {p1.handle} on insta
%%
is it {p1.first} with a c? {p1.first} {p1.last}, lives on {corner}
%%
dr {p1.last} told {p2.first} it was nothing. dr {p3.last} disagreed
%%
{p1.first} {PERSON=park} is the nicest person at work, {p2.first} {PERSON=white} the worst
%%
old mr {p1.last} at {street} fell again, someone ring his {relation}: {phone}
%%
so {p1.first}, {p2.first} and that {p3.last} kid got caught at {org}
%%
everyone calls her {p1.nick} but it says {p1.full} on the door
%%
PLEASE stop giving {p1.first}'s number out. ({phone} is hers, delete it)
%%
will {p1.first} ever learn? {p2.first} says no
%%
{p1.last} owes me {price}. if you see {p1.first} tell him
%%
prof. {p1.init} failed half of us, {p2.first} got {n} points
%%
heard {p1.full} ({age}) won {price} on a scratch card in {city}, lives off {corner}
%%
{p1.first}... {p1.first} who? the one with the {product}? {p1.first} {p1.last}
%%
{PERSON=May} told {PERSON=June} that {PERSON=April}'s out. (yes {p1.first} really has sisters \
called that, they're {p2.first} and {p3.first})
""",
            neutral="""
did you hear? {team} lost {score}
%%
my {relation} swears {topic} is a hoax
%%
the new {job} is nice, the old {job} was not
%%
ngl the {job} was right about {tool}
%%
{hero} is the worst character in the book, {hero} the best
%%
everyone at work is on about {title}. {plain}
%%
somebody took my {dish} from the fridge. again.
%%
people say {capital} is dull in {month}. people are wrong
%%
the neighbours got {product} and now {gripe}
%%
will they ever learn? may take a while
%%
that {brand} ad with {thing} is everywhere
%%
the whole {game} server hates {hero} mains
%%
so the king of {realm} hands {hero} the sword, and the {job} next to me falls asleep
%%
one of my mates paid {price} for {thing}. {price}!
%%
mark my words, {product} will be {price} by {month}
%%
she said {plain}, he said {plain}, i said nothing
%%
the ref was a joke, {n} minutes extra, {score}
%%
grace is a virtue, patience too, and I have neither on a {day}
""",
        ),
        "de": TemplatePair(
            personal="""
hast du gehört, {p1.full} zieht nach {city}
%%
der {p1.last} vom {street} hat angeblich {price} gewonnen
%%
{p1.first} und {p2.first} sind wieder zusammen
""",
            neutral="""
hast du gehört, {team} hat {score} verloren
%%
alle reden nur noch über {title}
%%
jemand hat mein {dish} gegessen
""",
        ),
        "fr": TemplatePair(
            personal="""
t'as vu, {p1.first} {p1.last} déménage à {city}
%%
{p1.first} sort avec {p2.first} depuis {month}
%%
le docteur {p1.last} a dit à {p2.first} que c'était rien
""",
            neutral="""
t'as vu, {team} a perdu {score}
%%
tout le monde parle de {title}
%%
quelqu'un a mangé mon {dish}
""",
        ),
        "es": TemplatePair(
            personal="""
¿sabes que {p1.first} {p1.last} se muda a {city}?
%%
{p1.first} y {p2.first} han vuelto
%%
el señor {p1.last}, el de {street}, está en el hospital
""",
            neutral="""
¿sabes que el {team} perdió {score}?
%%
todos hablan de {title}
""",
        ),
        "pt": TemplatePair(
            personal="""
sabias que a {p1.first} {p1.last} vai para {city}?
%%
o {p1.first} e a {p2.first} voltaram
""",
            neutral="""
sabias que o {team} perdeu {score}?
%%
toda a gente fala de {title}
""",
        ),
        "ja": TemplatePair(
            personal="""
{p1.last}さん、{city}に引っ越すらしいよ
%%
{p1.first}ちゃんと{p2.first}くん、付き合ってるって
%%
{p1.plain}先生が{p2.last}君をほめてた
""",
            neutral="""
昨日の試合、{score}だったって
%%
みんな『{title}』の話ばかり
""",
        ),
        "zh": TemplatePair(
            personal="""
听说{p1.plain}搬到{city}去了
%%
{p1.plain}和{p2.plain}又在一起了
""",
            neutral="""
昨天比赛{score}
%%
大家都在聊《{title}》
""",
        ),
        "no": TemplatePair(
            personal="""
har du hørt at {p1.full} flytter til {city}
%%
{p1.first} og {p2.first} er sammen igjen
""",
            neutral="""
har du hørt, {team} tapte {score}
%%
alle snakker om {title}
""",
        ),
        "el": TemplatePair(
            personal="""
έμαθες ότι η {p1.full} μετακομίζει; {city}, μου είπε ο {p2.first}
%%
ο κύριος {p1.last} στην {street} μένει μόνος
""",
            neutral="""
έμαθες; {score}
%%
όλοι μιλάνε για {title}
""",
        ),
    },
)
"""Chat about other people."""

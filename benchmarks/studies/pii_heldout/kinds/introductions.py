"""Introductions in forums and guilds."""

from benchmarks.studies.pii_heldout.writing.templates import TemplatePair, TextKind

INTRODUCTION = TextKind(
    name="introduction",
    casual=True,
    templates={
        "en": TemplatePair(
            personal="""
{hello}! I'm {p1.first}, {age}, from {city}. Into {hobby} and {hobby}.
%%
{hello}, {p1.full} here, {job} by day, {game} by night. Add me: {p1.handle}
%%
name: {p1.first}
age: {age}
where: {city}
hobbies: {hobby}, {hobby}
%%
hey everyone, my name is {p1.full} but call me {p1.nick}. Born and raised in {city}, now in {city}
%%
long time lurker first time poster. {p1.first} from {city}, {job}, two kids ({p2.first} and \
{p3.first}) and a dog
%%
{hello}, the name's {p1.last}. {p1.first} {p1.last}.
%%
New here. My girlfriend {p1.first} got me into {hobby}. I'm {p2.nick}, we live on {corner}
%%
I go by {p1.screen} on most sites, real name {p1.first}. My portfolio is {p1.url}
%%
{hello} {p1.first} 🙂 we've been neighbours for years, I'm the one at {street} with the {product}
%%
ABOUT ME
{p1.upper}, {job}, {CITY}
write to {p1.email} or text {phone}
%%
Hello all. I am {p1.first} of the {p1.last}s of {city}, if that means anything to anybody. Born \
{dob}. I do {hobby}.
%%
im {p1.first} n this is my brother {p2.first}, we stream as {p1.handle}
%%
some of you know me as {p1.handle} from the {game} server. {p1.first}, {age}, {city}. {plain}
%%
pronouns they/them, {p1.first}, moved from {city} to {city} for work at {org} ({job})
%%
{PERSON=Will} here. no really, my name is {p1.first} now, i changed it in {month}
%%
I teach {hobby} at the school in {city}; ask for Ms {p1.last}
%%
Just joined with {firsts}. We play {game} every {day} in {city}
%%
call me {p1.nick}. bday {dob}, so yes i'm that old. whatsapp {phone}
""",
            neutral="""
{hello}! New here, {age} years old, into {hobby} and {hobby}. No real names please :)
%%
long time lurker, first post. {job}, two cats, one {product}
%%
favourite game: {game}
favourite book: {title}
favourite food: {dish}
%%
{hello}, I play {hero} in our campaign, a bard from {realm}. {plain}
%%
I joined in {month} {year} and still cannot beat {game} on hard. best: {score}
%%
what got me into {hobby} was {title}. saw it {n} times
%%
{heading}: introduce yourself in one line, no photos, no ages
%%
about my character: {hero}, exile of {realm}, afraid of {thing}
%%
{hello}, I work as a {job} and know nothing about {hobby}. Where do I start? {tool}?
%%
ok three facts: {thing} scares me, I own {n} copies of {title}, I support {team}
%%
{hello} from a {brand} fan. Collecting since {year}, {n2} pieces so far
%%
hi im new, may i ask how ranks work? it says level {n}, {n2} xp
%%
I hope this is the right channel. I will mostly lurk. {plain}
%%
first language is not english, sorry. like {topic}, {dish} and {game}
%%
{hello}. setup: {product}, {tool} {version}, {size} desk
%%
Joining from work because {day}s are dead. {job} life.
""",
        ),
        "de": TemplatePair(
            personal="""
Hallo zusammen, ich bin {p1.first}, {age}, aus {city}.
%%
Moin, {p1.first} hier, wohne in {city}, spiele als {p1.handle}
%%
Mein Name ist {p1.full}, geboren am {dob} in {city}.
""",
            neutral="""
Hallo, ich bin neu hier, {age} Jahre alt und mag {title} und {dish}.
%%
Mein Charakter heißt {hero} und kommt aus {realm}.
%%
Lieblingsessen: {dish}, Lieblingsbuch: {title}
""",
        ),
        "fr": TemplatePair(
            personal="""
Salut, moi c'est {p1.first}, {age} ans, de {city} !
%%
Bonjour à tous, je m'appelle {p1.full}, j'habite {city} avec {p2.first}.
%%
Coucou, {p1.nick} alias {p1.handle}, née le {dob}
""",
            neutral="""
Salut, nouveau ici, {age} ans, fan de {title} et de {dish}.
%%
Mon personnage : {hero}, venu de {realm}
%%
J'ai découvert {game} en {month} {year}.
""",
        ),
        "it": TemplatePair(
            personal="""
Ciao a tutti, sono {p1.first}, {age} anni, di {city}
%%
Mi chiamo {p1.full}, abito a {city}, scrivetemi a {p1.email}
%%
ciao, qui {p1.first} e {p2.first} da {city}!
""",
            neutral="""
Ciao, sono nuovo, ho {age} anni e adoro {title} e {dish}
%%
Il mio personaggio è {hero}, viene da {realm}
%%
Gioco a {game} da {month} {year}
""",
        ),
        "pt": TemplatePair(
            personal="""
Olá, sou o {p1.first}, {age} anos, de {city}
%%
Chamo-me {p1.full}, moro em {city}, falem comigo: {p1.handle}
%%
oi gente, {p1.first} aqui, nascida a {dob}
""",
            neutral="""
Olá, sou novo aqui, tenho {age} anos e gosto de {title} e de {dish}
%%
A minha personagem é {hero}, de {realm}
%%
Jogo {game} desde {month} de {year}
""",
        ),
        "ja": TemplatePair(
            personal="""
はじめまして、{p1.plain}です。{city}に住んでいます。
%%
{p1.first}といいます、{age}歳、{city}出身です。ゲームでは{p1.handle}です
""",
            neutral="""
はじめまして、{age}歳です。『{title}』と{dish}が好きです。
%%
好きなゲームは{game}、最高記録は{n2}点です
""",
        ),
        "zh": TemplatePair(
            personal="""
大家好,我叫{p1.plain},今年{age}岁,住在{city}。
%%
新人报到,{p1.plain},微信{p1.screen}
""",
            neutral="""
大家好,新人一个,今年{age}岁,喜欢{title}和{dish}。
%%
我玩{game}已经{n}年了,最高{n2}分
""",
        ),
        "ko": TemplatePair(
            personal="""
안녕하세요, {p1.plain}입니다. {age}살이고 {city}에 살아요.
%%
가입인사 드려요! 저는 {p1.plain}, 메일은 {p1.email}
""",
            neutral="""
안녕하세요, {age}살이고 {title} 좋아해요. {dish}도요.
%%
{game} 한 지 {n}년 됐어요
""",
        ),
    },
)
"""Introductions."""

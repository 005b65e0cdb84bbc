"""WhatsApp chats: dates in the order of every language, and WhatsApp's own words told from
people's.
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError
from personas.schemas.chat import Persona
from tests.trainer.chat_logs import outcome, write
from trainer.sources.dates import DateOrderDetector
from trainer.sources.formats.whatsapp import parse_header
from trainer.sources.registry import detect_format

ADA = Persona("ada", "Ada Lace")
LRM = "\u200e"
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chat(tmp_path, text, **options):
    return outcome(write(tmp_path / "WhatsApp Chat with Ada.txt", text), **options)


def times(lines):
    """The moments of the headers of all lines, in the order that fits them all."""
    headers = [parse_header(line) for line in lines]
    guess = DateOrderDetector()
    for header in headers:
        guess.add(header.stamp)
    return [
        datetime.fromtimestamp(header.stamp.at(guess.order), UTC).replace(tzinfo=None)
        for header in headers
    ]


MORNING = datetime(2024, 1, 15, 10, 5)
NIGHT = datetime(2024, 1, 15, 22, 30)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[15/01/2024, 10:05:00] Ann: hi", "[15/01/2024, 22:30:00] Bo: ho"),
        ("[1/15/24, 10:05:00\u202fAM] Ann: hi", "[1/15/24, 10:30:00\u202fPM] Bo: ho"),
        (f"{LRM}[15.01.24, 10:05:00] Ann: hi", "[15.01.24, 22:30:00] Bo: ho"),
        ("[15/1/24 10:05:00 a.\u00a0m.] Ann: hi", "[15/1/24 10:30:00 p.\u00a0m.] Bo: ho"),
        ("[15-01-2024 10:05:00] Ann: hi", "[15-01-2024 22:30:00] Bo: ho"),
        ("[2024-01-15, 10:05:00 AM] Ann: hi", "[2024-01-15, 10:30:00 PM] Bo: ho"),
        ("[2024/01/15 10:05:00] Ann: hi", "[2024/01/15 22:30:00] Bo: ho"),
        ("[2024/1/15 上午10:05:00] Ann: hi", "[2024/1/15 下午10:30:00] Bo: ho"),
        ("[2024. 1. 15. 오전 10:05:00] Ann: hi", "[2024. 1. 15. 오후 10:30:00] Bo: ho"),
        ("[15.1.2024 klo 10.05.00] Ann: hi", "[15.1.2024 klo 22.30.00] Bo: ho"),
        (
            "[\u200f15\u200f/1\u200f/2024, 10:05:00] Ann: hi".replace("\u200f", ""),
            "[15/1/2024, 22:30:00] Bo: ho",
        ),
        ("[١٥/٠١/٢٠٢٤، ١٠:٠٥:٠٠ ص] Ann: hi", "[١٥/٠١/٢٠٢٤، ١٠:٣٠:٠٠ م] Bo: ho"),
        ("15/01/2024, 10:05 - Ann: hi", "15/01/2024, 22:30 - Bo: ho"),
        ("1/15/24, 10:05 AM - Ann: hi", "1/15/24, 10:30 PM - Bo: ho"),
        ("15/01/24, 10:05\u202fam - Ann: hi", "15/01/24, 10:30\u202fpm - Bo: ho"),
        ("15.01.24, 10:05 - Ann: hi", "15.01.24, 22:30 - Bo: ho"),
        ("15.01.24 10:05 - Ann: hi", "15.01.24 22:30 - Bo: ho"),
        ("15/01/2024 à 10:05 - Ann: hi", "15/01/2024 à 22:30 - Bo: ho"),
        ("2024-01-15 10:05 - Ann: hi", "2024-01-15 22:30 - Bo: ho"),
        ("15/1/2024 10:05 a. m. - Ann: hi", "15/1/2024 10:30 p. m. - Bo: ho"),
        ("15/01/24 10.05 - Ann: hi", "15/01/24 22.30 - Bo: ho"),
        ("15/01/2024 10:05 PG - Ann: hi", "15/01/2024 10:30 PTG - Bo: ho"),
        ("10:05, 15/01/2024 - Ann: hi", "22:30, 15/01/2024 - Bo: ho"),
        ("10:05 15/01/2024 - Ann: hi", "22:30 15/01/2024 - Bo: ho"),
        ("2024. 1. 15. 오전 10:05, Ann : hi", "2024. 1. 15. 오후 10:30, Bo : ho"),
        ("2024年1月15日 上午10:05 - Ann: hi", "2024年1月15日 晚上10:30 - Bo: ho"),
        ("15/1/2567 10:05 - Ann: hi", "15/1/2567 22:30 - Bo: ho"),
        (
            "١٥\u200f/١\u200f/٢٠٢٤، ١٠:٠٥ ص - Ann: hi",
            "١٥\u200f/١\u200f/٢٠٢٤، ١٠:٣٠ م - Bo: ho",
        ),
        (
            "15\u200f/1\u200f/2024، 10:05 ص - \u202bAnn\u202c: hi",
            "15\u200f/1\u200f/2024، 10:30 م - Bo: ho",
        ),
        ("\u200f[15‏/1‏/2024, 10:05:00 ص] Ann: hi", "\u200f[15‏/1‏/2024, 10:30:00 م] Bo: ho"),
        ("\u200f۱۴۰۲/۱۰/۲۵،\u200f ۱۰:۰۵ - Ann: hi", "\u200f۱۴۰۲/۱۰/۲۵،\u200f ۲۲:۳۰ - Bo: ho"),
        ("۲۵/۱۰/۱۴۰۲، ۱۰:۰۵ ق.ظ. - Ann: hi", "۲۵/۱۰/۱۴۰۲، ۱۰:۳۰ ب.ظ. - Bo: ho"),
        ("[١٤٤٥/٧/٤، ١٠:٠٥:٠٠ ص] Ann: hi", "[١٤٤٥/٧/٤، ١٠:٣٠:٠٠ م] Bo: ho"),
    ],
)
def test_dates_of_all_kinds(tmp_path, first, second):
    assert times([first, second]) == [MORNING, NIGHT]
    path = write(tmp_path / "x.txt", f"{first}\n{second}\n")
    assert detect_format(path).name == "whatsapp"
    assert outcome(path).said == [[("Ann", "hi")], [("Bo", "ho")]]


@pytest.mark.parametrize(
    ("dates", "months"),
    [
        (["03/04/24, 10:00", "04/04/24, 10:00", "05/04/24, 10:00"], [4, 4, 4]),
        (["03/04/24, 10:00", "03/05/24, 10:00", "03/06/24, 10:00"], [3, 3, 3]),
        (["03/04/24, 10:00", "03/05/24, 10:00", "13/05/24, 10:00"], [4, 5, 5]),
        (["03/04/24, 10:00", "03/05/24, 10:00", "03/13/24, 10:00"], [3, 3, 3]),
        (["03/02/24, 10:00", "02/03/24, 10:00"], [2, 3]),
        (["03/04/24, 10:00"], [4]),
        (["3/4/24, 10:00 AM"], [3]),
        (["03/04/24, 10:00 am"], [4]),
        (["29/02/24, 10:00", "02/03/24, 10:00"], [2, 3]),
        (["24/12/30, 10:00", "24/12/31, 10:00", "25/01/01, 10:00"], [12, 12, 1]),
    ],
    ids=[
        "days follow each other",
        "days follow each other, month first",
        "one line decides",
        "one line decides, month first",
        "time runs forward",
        "nothing decides: the day first",
        "looks American",
        "lower case does not",
        "a day that one order lacks",
        "year first",
    ],
)
def test_the_file_as_a_whole_decides_which_number_is_the_month(dates, months):
    assert [time.month for time in times([f"{date} - Ann: hi" for date in dates])] == months


STYLES = {
    "[%d/%m/%Y, %H:%M:%S] ": 1,
    "[%m/%d/%y, %I:%M:%S\u202f%p] ": 1,
    "%d.%m.%y, %H:%M - ": 60,
    "%m/%d/%y, %I:%M %p - ": 60,
    "[%Y-%m-%d, %I:%M:%S %p] ": 1,
    "%d/%m/%Y à %H:%M - ": 60,
    "[%d.%m.%Y klo %H.%M.%S] ": 1,
    "%H:%M, %d/%m/%Y - ": 60,
}


@QUIET
@given(
    style=st.sampled_from(list(STYLES)),
    begin=st.datetimes(datetime(2015, 1, 1), datetime(2030, 1, 1)),
    steps_s=st.lists(st.integers(0, 9 * 86_400), max_size=20),
)
def test_times_come_back_as_they_were_written(style, begin, steps_s):
    moments = [
        begin.replace(day=13, microsecond=0)
    ]  # no month has the number 13, so the order can be known
    for step_s in steps_s:
        moments.append(moments[-1] + timedelta(seconds=step_s))
    shown = [moment - timedelta(seconds=moment.second % STYLES[style]) for moment in moments]
    assert times([f"{moment.strftime(style)}Ann: hi" for moment in moments]) == shown


@QUIET
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
        max_size=12,
    )
)
def test_whatever_is_said_comes_back_or_is_accounted_for(tmp_path, texts):
    lines = [f"[15/01/2024, 10:{minute:02}:00] Ann: {text}\n" for minute, text in enumerate(texts)]
    path = write(tmp_path / "chat.txt", "[15/01/2024, 09:59:00] Ann: begin\n" + "".join(lines))
    found = outcome(path, "whatsapp")
    assert found.rows == len(texts) + 1
    assert found.said[0][0][0] == "Ann"


@QUIET
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path, content):
    path = write(tmp_path / "chat.txt", b"15/01/2024, 10:30 - Ann: hi\n" * 12 + content)
    try:
        found = outcome(path, "whatsapp")
    except MaterialError:
        return
    assert found.rows >= 12


def test_messages_over_several_lines_stay_whole(tmp_path):
    found = chat(
        tmp_path,
        "15/01/2024, 10:30 - Ann: a list:\r\n- pears\r\n\r\n\r\n\r\n- *bold* _it_\r\n"
        "15/01/2024, 10:31 - Ada Lace: ```\r\n*code*\r\n```\r\n"
        "15/01/2024, 10:32 - Ann: she wrote\r\n[14/01/2024, 09:00:00] Bo: hi\r\n14.01.24, 09:00 - "
        "Bo: ho\r\n",
        persona=ADA,
    )
    assert found.said == [
        [
            ("Ann", "a list:\n- pears\n\n- **bold** *it*"),
            ("Ada Lace", "```\n*code*\n```"),
            ("Ann", "she wrote\n[14/01/2024, 09:00:00] Bo: hi\n14.01.24, 09:00 - Bo: ho"),
        ]
    ]
    assert found.talks[0].messages[2].row == "line 10" and found.rows == 3
    assert found.talks[0].messages[1].speaker.is_persona


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("<Media omitted>", "only an attachment"),
        ("<Medien ausgeschlossen>", "only an attachment"),
        ("<Multimedia omitido>", "only an attachment"),
        ("<Médias omis>", "only an attachment"),
        ("<Mídia oculta>", "only an attachment"),
        ("<Без медиафайлов>", "only an attachment"),
        ("<Media weggelaten>", "only an attachment"),
        ("<Medya dahil edilmedi>", "only an attachment"),
        ("<省略多媒體檔>", "only an attachment"),
        ("<メディアは含まれていません>", "only an attachment"),
        ("<Media omitted>\nReport 2024.pdf", "only an attachment"),
        (f"{LRM}image omitted", "only an attachment"),
        (f"{LRM}Bild weggelassen", "only an attachment"),
        (f"{LRM}imagen omitida", "only an attachment"),
        (f"{LRM}<attached: 00000014-PHOTO-2024-01-15.jpg>", "only an attachment"),
        (f"{LRM}<bijgevoegd: 00000014-PHOTO-2024-01-15.jpg>", "only an attachment"),
        ("IMG-20240115-WA0001.jpg (file attached)", "only an attachment"),
        ("IMG-20240115-WA0001.jpg (Datei angehängt)", "only an attachment"),
        ("location: https://maps.google.com/?q=1.5,2.5", "only an attachment"),
        ("POLL:\nSoup?\nOPTION: Yes (2 votes)\nOPTION: No (0 votes)", "only an attachment"),
        ("This message was deleted", "deleted"),
        ("You deleted this message.", "deleted"),
        (f"{LRM}Diese Nachricht wurde gelöscht.", "deleted"),
        ("Ce message a été supprimé", "deleted"),
        ("Tin nhắn này đã bị xóa", "deleted"),
        ("此訊息已刪除", "deleted"),
        ("null", "deleted"),
        (
            f"{LRM}Messages and calls are end-to-end encrypted. No one outside of this chat can "
            "read them.",
            "system message",
        ),
        (f"{LRM}Ann added you to the group that is called Soup", "system message"),
        ("", "no text"),
        ("/start now", "command"),
    ],
)
def test_what_nobody_wrote_is_reported_in_any_language(tmp_path, said, reason):
    found = chat(tmp_path, f"15/01/2024, 10:30 - Ann: {said}\n15/01/2024, 10:31 - Ann: hi\n")
    assert (found.said, found.dropped) == ([[("Ann", "hi")]], {reason: 1})


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("nice <Media omitted>", "nice"),
        ("IMG-20240115-WA0001.jpg (file attached)\nthe soup", "the soup"),
        (f"the soup {LRM}<attached: 00000014-PHOTO-2024-01-15.jpg>", "the soup"),
        (f"the soup {LRM}image omitted", "the soup"),
        ("better now <This message was edited>", "better now"),
        (f"besser {LRM}<Diese Nachricht wurde bearbeitet.>", "besser"),
        ("I <3 you > me", "I <3 you > me"),
        ("use <b> or <div class='x y'>", "use <b> or <div class='x y'>"),
        ("Shopping:\npears", "Shopping:\npears"),
        ("see https://example.com/a_b_c and *this*", "see https://example.com/a_b_c and **this**"),
        (
            "ask @\u2068Bo Long\u2069 and @\u2068Cy\u2069 and @4915112345678 and @491511234",
            "ask @Bo Long and @someone and @+49 1511 2345678 and @someone",
        ),
        ("\u202atel: 5\u202c", "tel: 5"),
        ("news: good", "news: good"),
    ],
)
def test_what_somebody_wrote_stays(tmp_path, said, text):
    found = chat(
        tmp_path,
        f"15/01/2024, 10:30 - Ann: {said}\n15/01/2024, 10:31 - Bo Long: ok\n"
        "15/01/2024, 10:32 - \u202a+49 1511 2345678\u202c: ok\n15/01/2024, 10:33 - ~\u202fDi: ok\n",
    )
    assert found.said == [
        [("Ann", text), ("Bo Long", "ok"), ("+49 1511 2345678", "ok"), ("Di", "ok")]
    ]


ANN = "Ann of the Upper Harbour Office, who answers letters on Mondays and Thursdays"


@pytest.mark.parametrize(
    ("lines", "speakers"),
    [
        (['Robert "Bob" Smith: hi', "Ann: yes"], ['Robert "Bob" Smith', "Ann"]),
        (["„Bob“: hi", "Ann: yes", "Bob ‘the’ Cook: so"], ["„Bob“", "Ann", "Bob ‘the’ Cook"]),
        ([f"{ANN}: hi", "Bo: yes", f"{ANN}: so"], [ANN, "Bo", ANN]),
        (["Ann: hi", "Bo:yes", "Ann:so: be it", "Bo: ok"], ["Ann", "Bo", "Ann", "Bo"]),
        (["Ann:hi", "Bo:see https://a.example", "Ann:so: be it"], ["Ann", "Bo", "Ann"]),
        (["Work: Bo: hi", "Ann: re: yes", "Work: Bo: so"], ["Work: Bo", "Ann", "Work: Bo"]),
        (["Dr:Ann: hi", "Mom :): yes", "Dr:Ann: so"], ["Dr:Ann", "Mom :)", "Dr:Ann"]),
        (["Ann: at 10:30: soup", "Bo: 10:30?", "Ann: ok"], ["Ann", "Bo", "Ann"]),
    ],
    ids=lambda value: value[0][:20],
)
@pytest.mark.parametrize("start", ["15/01/2024, 10:30 - ", "[15/01/2024, 10:30:00] "])
def test_names_are_learned_from_the_whole_chat(tmp_path, start, lines, speakers):
    found = chat(tmp_path, "".join(f"{start}{line}\n" for line in lines))
    assert [name for talk in found.said for name, _ in talk] == speakers
    assert not found.dropped


GROUP_CHATS = {
    "en": (
        "Messages and calls are end-to-end encrypted. No one outside of this chat, not even "
        "WhatsApp, can read or listen to them.",
        "Oda created group “Harbour”",
        "Oda added you",
        "Oda changed this group's icon",
        "image omitted",
        "You deleted this message.",
    ),
    "de": (
        "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt. Niemand außerhalb dieses Chats "
        "kann sie lesen oder anhören, nicht einmal WhatsApp.",
        "Oda hat die Gruppe „Harbour“ erstellt.",
        "Oda hat dich hinzugefügt.",
        "Oda hat das Gruppenbild geändert.",
        "Bild weggelassen",
        "Du hast diese Nachricht gelöscht.",
    ),
    "es": (
        "Los mensajes y las llamadas están cifrados de extremo a extremo. Nadie fuera de este "
        "chat, ni siquiera WhatsApp, puede leerlos ni escucharlos.",
        "Oda creó el grupo «Harbour»",
        "Oda te añadió",
        "Oda cambió el ícono de este grupo",
        "imagen omitida",
        "Eliminaste este mensaje.",
    ),
    "pt": (
        "As mensagens e as chamadas são protegidas com a criptografia de ponta a ponta e ficam "
        "somente entre você e os participantes desta conversa. Nem mesmo o WhatsApp pode ler ou "
        "ouvi-las.",
        'Oda criou o grupo "Harbour"',
        "Oda adicionou você",
        "Oda mudou a imagem do grupo",
        "imagem ocultada",
        "Você apagou esta mensagem.",
    ),
    "ar": (
        "الرسائل والمكالمات مشفرة تمامًا بين الطرفين، بحيث لا يستطيع أحد خارج هذه الدردشة، ولا حتى "
        "شركة واتساب نفسها، قراءتها أو الاستماع إليها.",
        "قام Oda بإنشاء المجموعة «Harbour»",
        "قام Oda بإضافتك",
        "قام Oda بتغيير أيقونة المجموعة",
        "لم يتم إدراج الصورة",
        "لقد حذفت هذه الرسالة.",
    ),
    "vi": (
        "Tin nhắn và cuộc gọi được mã hóa đầu cuối. Không ai bên ngoài cuộc trò chuyện này, kể cả "
        "WhatsApp, có thể đọc hoặc nghe.",
        'Oda đã tạo nhóm "Harbour"',
        "Oda đã thêm bạn",
        "Oda đã thay đổi biểu tượng nhóm",
        "đã bỏ qua hình ảnh",
        "Bạn đã xóa tin nhắn này.",
    ),
    "zh": (
        "消息和通话已进行端到端加密。对话之外的任何人，甚至包括 WhatsApp 都无法读取或收听。",
        "Oda创建了群组“Harbour”",
        "Oda添加了您",
        "Oda更改了群组图标",
        "图片已忽略",
        "您删除了这条消息",
    ),
}


@pytest.mark.parametrize("language", GROUP_CHATS)
def test_notices_are_known_without_their_mark(tmp_path, language):
    encrypted, created, added, icon, picture, deleted = GROUP_CHATS[language]
    said = [
        f"Harbour: {encrypted}",
        f"Oda: {created}",
        f"Harbour: {added}",
        f"Oda: {icon}",
        "Nova: soup?",
        "Oda: Always.",
        f"Nova: {picture}",
        f"Nova: {deleted}",
    ]
    lines = [f"[14.08.2024, 21:00:{second}] {line}\n" for second, line in enumerate(said, start=10)]
    found = chat(tmp_path, "".join(lines))
    assert found.said == [[("Nova", "soup?"), ("Oda", "Always.")]]
    assert found.dropped == {"system message": 4, "only an attachment": 1, "deleted": 1}


@pytest.mark.parametrize(
    "sentence",
    [
        "Oda added salt",
        "Nova added salt",
        "Oda added Nova to the list",
        "You left",
        "You changed the subject to “soup”",
        "Oda changed the subject to “soup”",
        "You're now an admin",
        "Messages and calls are end-to-end encrypted, they say",
        "The image omitted the best part",
        "This message was deleted by me, sorry",
        "Oda hat Salz hinzugefügt",
        "Oda añadió a Nova",
        "Oda添加了盐",
        "EVENT: soup night",
        "Shopping:\nfor today\nbread: two (small)",
        "here: https://maps.app.goo.gl/abc",
        "write <your name>",
        "see soup.example (it is good)",
    ],
)
def test_a_sentence_that_resembles_a_notice_stays(tmp_path, sentence):
    found = chat(
        tmp_path,
        f"[15/01/2024, 10:30:00] Nova: soup?\n[15/01/2024, 10:31:00] Oda: Always.\n"
        f"[15/01/2024, 10:32:00] Nova: {sentence}\n",
    )
    assert found.said == [[("Nova", "soup?"), ("Oda", "Always."), ("Nova", sentence)]]


@pytest.mark.parametrize(
    "poll",
    [
        f"{LRM}POLL:\nSoup or stew?\n{LRM}OPTION: Soup ({LRM}2 votes)\n{LRM}OPTION: Stew ({LRM}1 vote)\n",
        "UMFRAGE:\nSuppe?\nOPTION: Ja (2 Stimmen)\nOPTION: Nein (1 Stimme)\n",
        "投票：\n汤？\n选项：好（2 票）\n选项：不（0 票）",
        f"{LRM}EVENT: Soup night\n{LRM}Tomorrow at 8\nBring bread",
        "EVENT:\nSoup night\nTomorrow at 8",
        f"{LRM}ubicación en tiempo real: https://example.com/place",
        "vị trí: https://maps.google.com/?q=1.5,2.5",
        "<View once voice message omitted>",
        "You received a view once message. For added privacy, you can only open it on your phone.",
        "Contact card omitted",
    ],
)
def test_polls_events_and_places_are_no_speech(tmp_path, poll):
    found = chat(
        tmp_path,
        f"[15/01/2024, 10:30:00] Nova: hello\n[15/01/2024, 10:31:00] Oda: {poll}\n"
        f"[15/01/2024, 10:32:00] Nova: {poll}\n[15/01/2024, 10:33:00] Oda: Good.\n",
    )
    assert found.said == [[("Nova", "hello"), ("Oda", "Good.")]]
    assert found.dropped == {"only an attachment": 2}


def test_bracketed_texts_that_recur_are_the_apps_in_any_language(tmp_path):
    said = ["<Quux vexed>", "hm <Plugh zedt>", "<Quux vexed>", "ok <Plugh zedt>", "<Quux vexed>"]
    said += ["no <Plugh zedt>", "I <only once> say so"]
    lines = [
        f"15/01/2024, 10:{minute} - Ann: {text}\n" for minute, text in enumerate(said, start=10)
    ]
    lines += [f"15/01/2024, 10:{18 + n} - Ben: {text}\n" for n, text in enumerate(said[:2])]
    found = chat(tmp_path, "".join(lines))
    assert found.said == [[("Ann", "hm\nok\nno\nI <only once> say so"), ("Ben", "hm")]]
    assert found.dropped == {"only an attachment": 4}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Oda", "Supper at 6.30 (bring bread)"),
        ("Oda", "<wipes the bar>"),
        ("Oda", "Soon. <wipes the bar>"),
        ("Oda", "Menu:\nfor today\nMain: stew (2 left)\nMain: soup (one left, 1)"),
        ('Tall Tom 6"', "And bread?"),
    ],
)
def test_what_one_person_says_again_and_again_is_said(tmp_path, name, text):
    lines = [
        f"15/01/2024, 1{hour}:00 - Nova: hello\n15/01/2024, 1{hour}:01 - {name}: Yes.\n"
        f"15/01/2024, 1{hour}:02 - {name}: {text}\n"
        for hour in range(4)
    ]
    found = chat(tmp_path, "".join(lines), persona_names=(name,))
    assert found.said == [[("Nova", "hello"), (name, f"Yes.\n{text}")]] * 4
    assert not found.dropped


DISCORD_TEXT = """\
==============================================================
Guild: Harbour
Channel: public / tavern
Topic: soup: always
==============================================================

[1/15/2024 10:30 PM] wick
Hello: Oda

{Attachments}
https://cdn.example.com/a.png

[1/15/2024 10:31 PM] oda (pinned)
Soup?

{Reactions}
soup (2)

==============================================================
Exported 2 message(s)
==============================================================
"""


def test_plain_text_of_discord_is_no_whatsapp_chat(tmp_path):
    with pytest.raises(MaterialError, match="plain text of DiscordChatExporter") as refused:
        outcome(write(tmp_path / "tavern.txt", DISCORD_TEXT))
    assert "--format Json" in refused.value.advice
    headless = DISCORD_TEXT.partition("\n\n")[2].replace("Hello: Oda", "Hello Oda")
    with pytest.raises(MaterialError, match="in no known format"):
        outcome(write(tmp_path / "tavern.txt", headless))


def test_system_lines_have_no_speaker(tmp_path):
    found = chat(
        tmp_path,
        "Chat history\n"
        "15/01/2024, 10:29 - Messages and calls are end-to-end encrypted. Learn more\n"
        "15/01/2024, 10:30 - Ann: hi\n"
        '15/01/2024, 10:31 - Ann changed the subject from "Soup" to "Soup: the return"\n'
        "15/01/2024, 10:31 - Ann added Bo\n"
        "15/01/2024, 10:32 - Meta AI: I can help with soup\n"
        "31/02/2024, 10:32 - Ann: on no day\n"
        "15/01/2024, 25:32 - Ann: at no hour\n"
        "15/01/2024, 10:33 - Bo: ho\n",
    )
    assert found.said == [[("Ann", "hi"), ("Bo", "ho")]]
    assert found.dropped == {
        "precedes the first message": 1,
        "system message": 3,
        "another bot": 1,
        "a date or time that does not exist": 2,
    }
    assert found.rows == 9 and found.rejected[0].row == "line 1"


def test_an_archive_holds_several_chats(tmp_path):
    folder = tmp_path / "chats"
    write(folder / "WhatsApp Chat - Bo" / "_chat.txt", "[15/01/2024, 10:30:00] Bo: hi\n")
    write(
        folder / "Chat de WhatsApp con Cy.txt",
        "1/2/24, 10:30 - Cy: hola\n3/2/24, 10:30 - Cy: adiós\n",
    )
    write(folder / "notes.txt", "nothing")
    found = outcome(folder)
    assert found.said == [[("Cy", "hola")], [("Cy", "adiós")], [("Bo", "hi")]]
    assert found.talks[0].messages[0].row == "chats/Chat de WhatsApp con Cy.txt line 1"


def test_text_that_is_no_chat_is_not_taken_for_one(tmp_path):
    with pytest.raises(MaterialError, match=r"notes\.txt contains no messages"):
        outcome(
            write(tmp_path / "notes.txt", "On 15/01/2024, 10:30 - nothing: happened\n"), "whatsapp"
        )

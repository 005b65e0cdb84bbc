"""What has a form of its own is found in four languages, wherever it stands; what merely looks like
it stays.
"""

import ipaddress
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.anonymise.anonymiser import Anonymiser, find_patterns
from trainer.anonymise.folded_text import fold
from trainer.anonymise.id_numbers import is_cn_id, is_iban, is_luhn_valid, is_my_number
from trainer.anonymise.name_detector import NameDetector
from trainer.anonymise.spans import replace_entities

KEY = b"k" * 32
FOUND = {
    "SECRET": """
        the bot's is |MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs|
        https://discord.com/api/webhooks/|123456789012345678/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01|
        用这个|ghp_abcdefghijklmnopqrstuvwxyz0123456789|登录
        id |AKIAIOSFODNN7EXAMPLE| and aws_secret_access_key = |wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY|
        export KEY=|sk-proj-abc123abc123abc123abc123|
        hooks.slack.com/services/|T000AAAA/B000BBBB/abcdefghijklmnopqrstuvwx|
        maps |AIzaSyA1234567890abcdefghijklmnopqrstuv|, stripe |sk_live_4eC39HqLyjWDarjtT1zdp7dc|
        |eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_123|
        password: |hunter2|
        my password is |Tr0ub4dor&3| by the way
        密码是|abc123|。
        mật khẩu là |matkhau123| nhé
        パスワードは|abc12345|です
        "api_key": "|9f8d7c6b5a4e3f2d1c0b|",
        mật khẩu wifi là |cafe@2024ngon|
        pw = '|Sup3r$ecret!|'
        the passphrase is |correct horse battery staple|
        seed phrase: |gull lantern copper wharf anchor tide| and keep it
        otp của em là |482913|
        验证码：|8041|。
    """,
    "URL_SECRET": """
        postgres://|admin:p4ss|@db.quay.example/stock
        see https://quay.example/a?token=|abcdef123|&page=2
        https://cdn.discordapp.com/attachments/1/2/a.png?ex=6543&is=1234&hm=|abcdef0123456789|
    """,
    "EMAIL_ADDRESS": """
        我的邮箱是|a.b@c.com|谢谢
        メールは|mina_v+quay@mail.example.co.jp|まで。
        thư: |nga.tran@example.vn|, cảm ơn
        write to |mina (at) quay (dot) example|
        почта |иван@пример.рф|, или |mіna@quay.example|
    """,
    "IP_ADDRESS": """
        服务器|41.173.96.26|挂了
        it is |2001:db8::8a2e:370:7334| now
        ssh root@|192.168.7.12|
    """,
    "CREDIT_CARD": """
        卡号|４１１１１１１１１１１１１１１１|です
        card |4111 1111 1111 1111| please
        card |4111  1111  1111  1111| or |4111.1111.1111.1111| please
        |378282246310005|
    """,
    "IBAN_CODE": """
        to |GB29 NWBK 6016 1331 9268 19| and soon
        stk |0123456789012| vietcombank
        我的账户|DE89370400440532013000|谢谢
        to |ad1200012030200359100100| please
        to |GB29.NWBK.6016.1331.9268.19|, or |0X52908400098527886E0F7030069857D2E4169EE7|
        to |BC1QAR0SRRR7XFKVY5L643LYDNW9RE59GTZZWF5MDQ|
        my wallet |0x52908400098527886E0F7030069857D2E4169EE7|, and |bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq|
    """,
    "US_SSN": """
        it is |853-37-1694|, yes
        social security number |853 37 1694|
    """,
    "PHONE_NUMBER": """
        我的手机号是|13812345678|，请打给我
        gọi |0912345678| nhé
        sđt |0912 345 678|
        電話は|090-1234-5678|です
        |03-1234-5678|まで
        or |905-674-3793|, thanks
        |(541) 714-1388| now
        |+84 912 345 678|
        |+41 (0)96 471 07 95|
        |07700 900123|
        Fax: |9498777106|
        in room 5 |212-555-0147|
        هاتفي |٠٥٠١٢٣٤٥٦٧| و
        मेरा फ़ोन |९८७६५४३२१०|
        мой телефон |8 912 345 67 89|
    """,
    "HANDLE": """
        联系|@mina_vale|吧
        https://t.me/|mina_vale|
        instagram: |mina.vale|
        微信：|mina_v88|
        微信号|wxid_lili2001|加我
        加我QQ|123456789|吧
        add |Mina#0042|
        ask |u/quiet_gull| about it
        username: |lanternfish|
        my insta is |mina.vale| now
        |moss_fox9| on steam
        thanks |pixelgull99|!
        gamertag |MossFox|
        <|mossy|> hello
        |pixel_gull|: where are you going, |pixel_gull|
        my site is https://www.|quietgull|.example
        linkedin.com/in/|mina-vale-92|, forum.example/users/|mossy|
        https://|ann-lee|.example/about
    """,
    "DISCORD_ID": """
        |<@123456789012345678>| or |<@!123456789012345678>|
        id |123456789012345678|, ask |<@&223456789012345678>| in |<#323456789012345678>|
    """,
    "PASSPORT": """
        passport |C01X00T47|
        hộ chiếu số |C7204816| nhé
        我的护照号|E12345678|。
    """,
    "ID_NUMBER": """
        my driving licence number is |VALEM 702115 MM9AB|, thanks
        licence plate: |B-MW 1234| outside
        customer no. |4417-889| here
        Kundennummer: |100234|
        BSN |123456782| en
        NIP: |123-456-32-18|
        DNI |12345678Z|
        it is |RSSMRA85T10A562S| in Italy
        CPF |123.456.789-09|
        주민번호 |900101-1234567|
    """,
    "CN_ID": "身份证|110101199003077758|。",
    "JP_MY_NUMBER": "マイナンバーは|1234 5678 9018|です",
    "VN_ID": "CCCD số |079203001234| cấp năm 2021",
    "STREET_ADDRESS": """
        住在|北京市朝阳区建国路88号院3号楼501室|，
        我家在|上海市徐汇区漕溪北路18弄5号602室|。
        |東京都渋谷区神南1丁目19番11号パークビル301号室|です
        |〒150-0041 東京都渋谷区神南1-19-11|
        nhà ở |số 12 đường Lê Lợi, phường Bến Nghé, quận 1, TP. Hồ Chí Minh|
        |123/45 Nguyễn Trãi, P. 7, Q. 5|
        at |221B Baker Street, London NW1 6XE|.
        |1600 Harbour Avenue NW, Washington, DC 20500|
        |PO Box 1234, Springfield, IL 62704|
        wohnt |Lange Hafenstraße 31|
        |12 rue de la Paix, 75002 Paris|
    """,
}
STAYS = """
    iPhone 15 Pro Max 256 GB, RTX 4090, Ryzen 9 7950X, WH-1000XM5
    version 1.2.3.4 and v10.0.0.1, Python 3.11.4, gcc 13.2.0-1
    $1,299.99 and 1.000.000 đồng, 10000円と500円
    2026-11-20 14:30:00, 20/11/2026, 1990-1995, 12:30:45
    rolled 3d6+2 = 14, 2d20kh1
    x: -1024 y: 64 z: 2048, 1024 64 -2048, 2048 x 1536
    ISBN 978-0-306-40615-7 and ISBN 0-306-40615-2
    order number 1234567890, order #9876543210, tracking number 9400110898825022579493
    pi is 3.14159265358979323846, not 9223372036854775807
    room 101, floor 3, chapter 12, page 345
    the password is wrong; secret: nobody knows; the token economy
    @everyone and @here, 127.0.0.1:8080, ::1
    discord is great, steam: fun, line: busy
    std::vector<int> a::b and `@property`
    我有3个苹果，5号见，第2号选手，3月5日の12時に
    100 Great Ideas, 2 Fast 2 Furious, 7 Wonders of the World
    timestamp 1700000000000, seed 1234567890123, score 1500000 points
    <:gull:123456789012345678> <t:1700000000:R>
    the passphrase is required for this step here; the pw is wrong; the password is on the fridge door
    my passport is in the drawer, PASSPORT RENEWED; the otp is late
    21 Jump Street is a film, and the 5 Star Court ruling
    call foo(1234567890)
    版本号10.0.3.1, 版本号：10.0.3.1
    @所有人 注意
    username: required, the username is taken, nickname: none
    from user_id to file_name, max_tokens: 5, hi covid19 and python3
    r/gulls, /u/, a.u/b, main.py, python.org, docs.python.org/3/, example.com/products/12
    insurance is 1200 euros, the patient is 45, student of 2024, Member 24352
    part 12345678A, my licence is from 12/11/2019
    call it 20 times, flight MH370 at 10
""".strip().splitlines()


def cases() -> list[tuple[str, str]]:
    return [
        (kind, line.strip()) for kind, lines in FOUND.items() for line in lines.strip().splitlines()
    ]


def anonymiser() -> Anonymiser:
    return Anonymiser(KEY, names=NameDetector())


@pytest.mark.parametrize(("kind", "marked"), cases())
def test_it_is_found_with_its_bounds(kind, marked):
    parts = marked.split("|")
    text = "".join(parts)
    wanted = parts[1::2]
    assert [
        text[e.start : e.end] for e in anonymiser().find_entities(text) if e.kind == kind
    ] == wanted


@pytest.mark.parametrize("text", [line.strip() for line in STAYS])
def test_what_looks_like_it_stays(text):
    assert anonymiser().find_entities(text) == []


SURROUND = [
    "我的",
    "谢谢你",
    "は",
    "です。",
    "cảm ơn ",
    " nhé",
    "so ",
    " it is",
    "（",
    "）",
    "",
    "\n",
    "🙂",
    "、",
]
VALUES = {
    "EMAIL_ADDRESS": "vale.mina@quay.example",
    "CREDIT_CARD": "4111111111111111",
    "IBAN_CODE": "DE89370400440532013000",
    "US_SSN": "853-37-1694",
    "PHONE_NUMBER": "+84 912 345 678",
    "IP_ADDRESS": "41.173.96.26",
    "SECRET": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "DISCORD_ID": "<@123456789012345678>",
    "CN_ID": "110101199003077758",
    "HANDLE": "@mina_vale",
}


@given(
    st.sampled_from(sorted(VALUES)),
    st.lists(st.sampled_from(SURROUND)),
    st.lists(st.sampled_from(SURROUND)),
)
def test_no_value_survives_wherever_it_stands(kind, before, after):
    lead = "".join(before)
    if (
        kind in ("HANDLE", "EMAIL_ADDRESS", "SECRET")
        and lead[-1:].isalpha()
        and lead[-1:].isascii()
    ):
        lead += " "  # in Latin letters such a value has no beginning
    text = lead + VALUES[kind] + "".join(after)
    found = anonymiser().find_entities(text)
    assert VALUES[kind] not in replace_entities(text, found)
    assert any(
        e.kind == kind and e.start <= len(lead) and len(lead + VALUES[kind]) <= e.end for e in found
    )


@given(
    st.lists(st.sampled_from([*SURROUND, *VALUES.values(), "password: x1y2z3", " ", "12"])).map(
        "".join
    )
    | st.text()
)
def test_entities_are_in_order_apart_and_within_the_text_and_give_its_replacement(text):
    made = anonymiser()
    found = made.find_entities(text)
    places = [place for entity in found for place in (entity.start, entity.end)]
    assert places == sorted(places) and all(0 <= place <= len(text) for place in places)
    assert all(entity.start < entity.end for entity in found)
    rebuilt = ""
    end = 0
    for entity in found:
        rebuilt += text[end : entity.start] + entity.replacement
        end = entity.end
    assert rebuilt + text[end:] == made.anonymise_text(text)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0xFFFF, categories=None)))
def test_each_folded_sign_has_its_place_in_the_text(text):
    folded = fold(text)
    end = 0
    for place in range(len(folded.text)):
        start, stop = folded.original_span(place, place + 1)
        assert end <= start < stop <= len(text)
        assert fold(text[start:stop]).text == folded.text[place]
        end = stop
    find_patterns(folded.text)


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("٠٢٠۷۹४६𝟎๙５⁸", "0207946095" + "8"),
        ("1–2—3−4‑5﹣6－7", "1-2-3-4-5-6-7"),
        ("ex\u00adam\u200bple\ufeff", "example"),
        ("ａ＠ｂ．ｃ 𝐦𝒊𝓇𝔞", "a@b.c mira"),
        ("a\u00a0b\u3000c\u2028d", "a b c\nd"),
        ("e\u0301 a\u0302\u0301 한", "é ấ 한"),
        ("nº 3ª m", "nº 3ª m"),
        ("1ー2ㅡ3·4 ラーメン", "1-2-3-4 ラーメン"),
        ("b@quay。example 好。", "b@quay.example 好。"),
    ],
)
def test_signs_that_stand_for_others_are_folded(written, folded):
    assert fold(written).text == folded


def digits_of(zero: int) -> dict[int, int]:
    """A table that writes ASCII digits as those of another script."""
    return {0x30 + digit: zero + digit for digit in range(10)}


def width_of(text: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


DISGUISES = {
    **{
        f"digits of {zero:x}": lambda text, zero=zero: text.translate(digits_of(zero))
        for zero in (0x660, 0x1D7CE)
    },
    "en dashes": lambda text: text.replace("-", "–"),
    "soft hyphens": "\u00ad".join,
    "zero-width spaces": "\u200b".join,
    "full width": width_of,
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "letters and marks apart": lambda text: unicodedata.normalize("NFD", text),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_value_is_found_whole_behind_other_signs(disguise):
    change = DISGUISES[disguise]
    made = anonymiser()
    for kind, marked in cases():
        parts = [change(part) for part in marked.split("|")]
        text = "".join(parts)
        found = [text[e.start : e.end] for e in made.find_entities(text) if e.kind == kind]
        assert found == parts[1::2]


@pytest.mark.parametrize(
    "token",
    [
        "0x88df016429689c079f3b2f6ad39fa052532c56795b733da78a91ebe6a713944b",
        "550e8400-e29b-41d4-a716-446655440000",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "12345678901234567890abcdef1234567890123456",
    ],
)
def test_a_part_of_a_hash_is_no_number(token):
    assert anonymiser().find_entities(f"see {token}, call 1") == []


def test_replacements_come_from_what_is_reserved_for_examples():
    made = anonymiser()
    mail, phone, ip, ipv6 = (
        made.anonymise_text(value)
        for value in ("a@b.example", "+84 912 345 678", "41.173.96.26", "2001:db8::8a2e:370:7334")
    )
    assert mail.split("@")[1] in ("example.com", "example.net", "example.org")
    assert phone[3:10] == "-555-01" and len(phone) == 12
    documentation = [
        ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
    ]
    assert any(ipaddress.ip_address(ip) in net for net in documentation)
    assert ipaddress.ip_address(ipv6) in ipaddress.ip_network("2001:db8::/32")


def test_a_secret_stands_over_a_handle_and_an_address_over_the_names_in_it():
    text = "https://mina:p4ss@t.me/@mina_vale and 12 Alice Street, Bath BA1 1AA"
    made = Anonymiser(KEY, also=["Alice"], names=NameDetector())
    assert [(e.kind, text[e.start : e.end]) for e in made.find_entities(text)] == [
        ("URL_SECRET", "mina:p4ss"),
        ("HANDLE", "mina_vale"),
        ("STREET_ADDRESS", "12 Alice Street, Bath BA1 1AA"),
    ]


@given(st.integers(0, 10**15 - 1))
def test_one_digit_in_ten_passes_luhns_check(number):
    assert sum(is_luhn_valid(f"{number}{digit}") for digit in range(10)) == 1


def test_checks_refuse_a_digit_that_is_wrong():
    assert is_iban("DE89370400440532013000") and not is_iban("DE89370400440532013001")
    assert is_cn_id("11010119900307775" + "8") and not is_cn_id("110101199003077757")
    assert not is_cn_id("110101199013077758"), "there is no thirteenth month"
    assert is_my_number("123456789018") and not is_my_number("123456789012")

"""Names of the columns of chat tables, by role, as people and programs write them in a dozen
languages.
"""

import re
from functools import lru_cache

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")

CHAT_HEADERS: dict[str, frozenset[str]] = {
    role: frozenset(" ".join(words).split())
    for role, words in {
        "speaker": (
            "speaker sender author from user username nickname nick name who by said_by sent_by "
            "participant person",
            "sender_name senderName from_name user_name display_name author_name speaker_name "
            "member role character",
            "speaker_id sender_id user_id author_id from_id participant_id",
            "sprecher sprecherin absender absenderin verfasser autor nutzer benutzer benutzername "
            "von wer teilnehmer",
            "expéditeur expediteur auteur auteure locuteur utilisateur nom de qui interlocuteur",
            "remitente autor autora usuario nombre hablante quién quien persona emisor",
            "remetente usuário utilizador nome falante quem mittente autore utente chi afzender "
            "auteur gebruiker naam",
            "发送者 发送人 发件人 发言人 说话人 用户 用户名 昵称 姓名 作者 發送者 發言人 使用者 暱稱",
            "発言者 送信者 話者 話し手 名前 ユーザー ユーザー名 投稿者",
            "보낸사람 보낸_사람 발신자 화자 사용자 이름 작성자 대화명",
            "người_gửi người_nói người_dùng tên tác_giả отправитель автор имя кто пользователь",
        ),
        "text": (
            "message text content body msg line utterance said says message_text message_body mes",
            "nachricht text inhalt nachrichtentext äußerung message texte contenu mensaje texto "
            "contenido",
            "mensagem conteúdo messaggio testo contenuto bericht tekst inhoud",
            "消息 内容 文本 信息 讯息 訊息 內容 消息内容 メッセージ 本文 内容 発言 テキスト 메시지 내용 본문",
            "tin_nhắn nội_dung văn_bản сообщение текст содержание",
        ),
        "time": (
            "date time datetime date_time timestamp sent sent_at created created_at posted_at "
            "sent_date send_date when",
            "timestamp_ms message_date date_sent datum zeit uhrzeit zeitpunkt zeitstempel gesendet "
            "gesendet_am",
            "date heure horodatage date_heure fecha hora fecha_hora data ora dia hora datum tijd",
            "日期 时间 時間 日付 日時 時刻 送信日時 날짜 시간 일시 시각 ngày giờ thời_gian дата время",
        ),
        "conversation": (
            "conversation conversation_id conversationId conv_id dialog_id dialogue_id chat_id "
            "thread thread_id",
            "session session_id channel channel_id room room_id scene scene_id",
            "gespräch gespräch_id unterhaltung kanal conversación conversation_id canal 会话 对话 会話 "
            "대화방 채널",
        ),
    }.items()
}


@lru_cache(maxsize=4096)
def normalise_column(name: str) -> str:
    """Return a column's name in lower case, with words joined by underscores."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


@lru_cache(maxsize=4096)
def name_words(name: str) -> tuple[str, ...]:
    """Return the words of a column's name, in lower case: `chosenMessages` has two."""
    words = [word.lower() for word in WORD.findall(name)]
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("non", "not", "un") and word == "preferred":
            joined[-1] = "nonpreferred"
        else:
            joined.append(word)
    return tuple(joined)


@lru_cache(maxsize=4096)
def chat_roles(name: str) -> frozenset[str]:
    """Return the roles that a column of this name may have in a chat table; `Sent at` and `sentAt`
    are alike.
    """
    key = normalise_column(name).replace("_", "")
    return frozenset(role for role, names in _SPELT.items() if key in names)


_SPELT = {
    role: frozenset(name.lower().replace("_", "") for name in names)
    for role, names in CHAT_HEADERS.items()
}

"""Stickers and polls of messages. Source: discord.com/developers/docs/resources/poll and /sticker."""

from sandbox import payloads
from sandbox.sandbox_errors import ApiError, Json

HOUR_S = 3600.0
DEFAULT_POLL_HOURS = 24
MAX_POLL_HOURS = 32 * 24
LOTTIE = 3
STICKERS: tuple[Json, ...] = tuple(
    {"id": str(749_054_660_769_218_631 + number), "name": name, "tags": tags}
    for number, (name, tags) in enumerate(
        (("Wave", "👋"), ("Thumbs Up", "👍"), ("Laugh", "😂"), ("Tea", "🍵"), ("Sleep", "😴"))
    )
)
"""The stickers that every member has, as Discord's own packs."""


def sticker_items(sticker_ids: list[object]) -> list[Json]:
    """Build the stickers of a message. Raises ApiError 50081 for one that there is not."""
    by_id = {sticker["id"]: sticker for sticker in STICKERS}
    items = []
    for sticker_id in sticker_ids:
        sticker = by_id.get(str(sticker_id))
        if sticker is None:
            raise ApiError(50081)
        items.append({"id": sticker["id"], "name": sticker["name"], "format_type": LOTTIE})
    return items


def check_poll(poll: Json) -> None:
    """Refuse a poll without question or answers, or of too many hours (50035). Its lengths are
    limits of messages.
    """
    if not _text(poll.get("question")):
        raise _required("poll.question.text")
    answers = poll.get("answers") or []
    if not answers:
        raise _required("poll.answers")
    for index, answer in enumerate(answers):
        if not _text(answer.get("poll_media")):
            raise _required(f"poll.answers.{index}.poll_media.text")
    if not 1 <= (poll.get("duration") or DEFAULT_POLL_HOURS) <= MAX_POLL_HOURS:
        words = f"int value should be between 1 and {MAX_POLL_HOURS}"
        raise ApiError.field("poll.duration", "NUMBER_TYPE_MAX", words)


def create_poll(poll: Json, now: float) -> Json:
    """Build the poll of a message from what was sent."""
    answers = []
    for answer_id, answer in enumerate(poll["answers"], start=1):
        answers.append({"answer_id": answer_id, "poll_media": answer["poll_media"]})
    ends_at = now + (poll.get("duration") or DEFAULT_POLL_HOURS) * HOUR_S
    return {
        "question": {"text": poll["question"]["text"]},
        "answers": answers,
        "expiry": payloads.format_timestamp(ends_at),
        "allow_multiselect": bool(poll.get("allow_multiselect")),
        "layout_type": 1,
        "results": {"is_finalized": False, "answer_counts": []},
    }


def _text(media: Json | None) -> str:
    return str((media or {}).get("text") or "").strip()


def _required(field: str) -> ApiError:
    return ApiError.field(field, "BASE_TYPE_REQUIRED", "This field is required")

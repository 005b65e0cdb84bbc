"""What a scripted teacher says: replies about what was asked, each unlike all others."""

from typing import Any

NOUNS = "stove rain gull apple tea lamp kettle rope wind chair door bread".split()
VERBS = "waits creaks falls rests stays smells cools hums leans sleeps".split()


def reply_about(body: dict[str, Any], form: str) -> str:
    """A reply to a request's last message: `form` with the message's last `words`, and what the
    message chooses of `noun`, `other` and `verb`.
    """
    asked = body["messages"][-1]["content"].rpartition(": ")[2].strip().rstrip("?.!")
    number = sum(asked.encode())
    return form.format(
        words=" ".join(asked.lower().split()[-4:]),
        noun=NOUNS[number % len(NOUNS)],
        other=NOUNS[number // 7 % len(NOUNS)],
        verb=VERBS[number % len(VERBS)],
    )

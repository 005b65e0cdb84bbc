"""Words that say whether an answer is a good one, as columns' names and as their values."""

import re
from typing import Any

from trainer.sources.header_names import normalise_column

FLAGS_OF_BAD = tuple("thumbs_down is_bad undesirable is_undesirable".split())
VERDICT_COLUMNS = (
    *"is_desirable desirable kto_tag label is_good thumbs_up thumbs thumb verdict feedback user_feedback".split(),
    *"vote rating judgement judgment".split(),
    *FLAGS_OF_BAD,
)
CHOICE_WORDS = frozenset("winner preference preferences choice choices options verdict".split())
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
NUMBERS = {"1": True, "1.0": True, "0": False, "0.0": False, "-1": False}
JUDGEMENTS = {
    **dict.fromkeys(
        "good up thumbs_up thumb_up 👍 upvote upvoted like liked desirable positive accepted "
        "chosen".split(),
        True,
    ),
    **dict.fromkeys(
        "bad down thumbs_down thumb_down 👎 downvote downvoted dislike disliked undesirable "
        "negative rejected".split(),
        False,
    ),
}
VERDICTS = BOOLEANS | NUMBERS | JUDGEMENTS
JUDGING_NAMES = frozenset((*VERDICT_COLUMNS, *JUDGEMENTS, *CHOICE_WORDS, "best", "better"))


def verdict_word(value: Any) -> str:
    """Return a value as `VERDICTS` spells it."""
    return re.sub(r"(?<=\w)[\s-]+(?=\w)", "_", str(value).strip().lower())


def is_judging_name(name: str) -> bool:
    """Report whether a column of this name judges, if its values are yes and no."""
    return normalise_column(name).removeprefix("is_").removeprefix("was_") in JUDGING_NAMES

"""What a training says of its model before it starts."""

import pytest

from bot.training.teacher_text import BUNDLED_MODEL_TEXT, expectation_texts
from personas.schemas.training import Teacher, TrainingRequest

TEACHER = Teacher(model="big", url="http://127.0.0.1:1/v1", licence="MIT")


@pytest.mark.parametrize(
    ("from_card", "teacher", "recommended", "choices"),
    [
        (None, None, "Qwen3 1.7B", ["Better choices", "`TEACHER`", "Qwen3 1.7B"]),
        (1, None, "", ["Better choices", "`TEACHER`", "a larger model in its place"]),
        (1, TEACHER, "Qwen3 1.7B", ["A better choice for", "Qwen3 1.7B"]),
    ],
)
def test_the_bundled_model_is_said_to_reach_a_voice_and_what_reaches_more_is_named(
    from_card, teacher, recommended, choices
):
    request = TrainingRequest(
        job_name="a", persona="oda", from_card=from_card, teacher=teacher, base_model="embedded"
    )
    said = expectation_texts(request, recommended)[0]
    assert said.startswith(BUNDLED_MODEL_TEXT)
    assert all(choice in said for choice in choices)
    assert ("`TEACHER`" in said) == (teacher is None)
    larger = request.model_copy(update={"base_model": "Qwen/Qwen3-0.6B"})
    assert BUNDLED_MODEL_TEXT not in " ".join(expectation_texts(larger, recommended))

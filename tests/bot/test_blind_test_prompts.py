"""The prompts that versions are compared by: those that ship, the operator's, and files that cannot
be used.
"""

from collections import Counter

import pytest

from bot.versions.blind_test.prompts import (
    MAX_PROMPT_CHARACTERS,
    SHIPPED_PROMPTS_FOLDER,
    PromptsError,
    draw_prompt,
    prompts_for,
)


def test_what_ships_is_enough_and_fits(tmp_path):
    prompts = prompts_for("oda", tmp_path)
    assert len(prompts) >= 30 and len({prompt.id for prompt in prompts}) == len(prompts)
    assert all(
        len(prompt.text) <= MAX_PROMPT_CHARACTERS and prompt.text.isprintable()
        for prompt in prompts
    )
    assert (SHIPPED_PROMPTS_FOLDER / "rights.toml").is_file()


def test_the_operator_s_own_come_first_and_those_of_the_persona_before_general_ones(tmp_path):
    home = tmp_path / "home"
    shipped = tmp_path / "shipped"
    for file, text in (
        (shipped / "general.txt", "shipped for all"),
        (shipped / "oda.txt", "shipped for Oda"),
        (home / "prompts" / "general.txt", "ours for all"),
        (home / "prompts" / "oda.txt", "ours for Oda"),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    said = lambda who: [prompt.text for prompt in prompts_for(who, home, shipped)]  # noqa: E731
    assert said("oda") == ["ours for Oda"] and said("thrip") == ["ours for all"]
    (home / "prompts" / "oda.txt").unlink()
    assert said("oda") == ["ours for all"]
    (home / "prompts" / "general.txt").unlink()
    assert said("oda") == ["shipped for Oda"] and said("thrip") == ["shipped for all"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no prompt in oda.txt"),
        (b"# only this\n\n", "no prompt in oda.txt"),
        (b"fine\n" + b"x" * 301, "Line 2 of oda.txt has 301"),
        (b"\xff\xfe", "oda.txt cannot be read."),
    ],
)
def test_a_file_that_cannot_be_used_is_reported(tmp_path, content, words):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "oda.txt").write_bytes(content)
    with pytest.raises(PromptsError, match=words):
        prompts_for("oda", tmp_path)
    with pytest.raises(PromptsError, match="no prompts"):
        prompts_for("oda", tmp_path / "empty", tmp_path / "empty")


def test_what_was_seen_least_is_drawn(tmp_path):
    prompts = prompts_for("oda", tmp_path)
    seen = Counter({prompt.id: 2 for prompt in prompts})
    seen[prompts[4].id] = 1
    assert {draw_prompt(prompts, seen) for _ in range(20)} == {prompts[4]}
    assert len({draw_prompt(prompts, Counter()) for _ in range(50)}) > 5

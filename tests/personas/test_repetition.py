"""A reply that repeats itself ends with its last whole sentence; short repetitions stay."""

from personas.engine.detokenizer import (
    REPETITION_TOKENS,
    StreamingDetokenizer,
    is_repeating,
    trim_repetition,
)


def streamed(renderer, text: str, *, stop_loops: bool = True) -> StreamingDetokenizer:
    pieces: list[str] = []
    out = StreamingDetokenizer(renderer, (), pieces.append, stop_loops=stop_loops)
    for token in renderer.tokenizer(text, add_special_tokens=False)["input_ids"]:
        out.append(token)
    out.flush()
    assert "".join(pieces).startswith(out.text) and (out.stopped or "".join(pieces) == out.text)
    return out


SENTENCE = "I am going to bring a very large bag of coffee and put it down here. "


def test_a_sentence_over_and_over_is_said_once(renderer):
    out = streamed(renderer, SENTENCE * 9)
    assert out.stopped and out.repeated and out.text == SENTENCE.strip()
    whole = streamed(renderer, (SENTENCE * 9).strip(), stop_loops=False)
    assert whole.text == (SENTENCE * 9).strip() and not whole.repeated


def test_a_word_over_and_over_ends_early(renderer):
    out = streamed(renderer, "*bows* " + "Curtain! " * 60)
    assert (
        out.stopped
        and 1 <= out.text.count("Curtain!") <= REPETITION_TOKENS
        and out.text.endswith("!")
    )


def test_a_circle_without_an_end_of_sentence_ends_at_once(renderer):
    out = streamed(renderer, "and then " * 200)
    assert out.stopped and out.text and out.tokens <= 2 * REPETITION_TOKENS + 2


def test_what_is_kept_are_whole_sentences_or_all_there_is():
    assert trim_repetition("One. Two! And th") == "One. Two!"
    assert trim_repetition("no end at all ") == "no end at all" and trim_repetition("") == ""


def test_a_name_and_a_saying_may_come_again(renderer):
    text = (
        "Sir Aurelio Thrip bows. The goose did better. Sir Aurelio Thrip sits down. The goose did "
        "better!"
    )
    assert streamed(renderer, text).text == text


def test_places_may_overlap_and_short_replies_never_go_round():
    assert not is_repeating([1] * REPETITION_TOKENS) and is_repeating([1] * (REPETITION_TOKENS + 1))
    assert not is_repeating([]) and not is_repeating(list(range(100)))

"""A reply that goes round in circles ends with its sentence; what is said twice on purpose stays."""

from personas.engine.loops import PATIENCE_TOKENS, RUN_TOKENS, goes_round
from personas.engine.text import StreamedText


def streamed(renderer, text: str, *, stop_loops: bool = True) -> StreamedText:
    import torch

    pieces: list[str] = []
    out = StreamedText(renderer, (), pieces.append, stop_loops=stop_loops)
    out.put(torch.tensor([0]))
    for token in renderer.tokenizer(text, add_special_tokens=False)["input_ids"]:
        out.put(torch.tensor([token]))
    out.end()
    assert "".join(pieces) == out.text
    return out


SENTENCE = "I am going to bring a very large bag of coffee and put it down here. "


def test_a_sentence_over_and_over_ends_after_its_second_time(renderer):
    out = streamed(renderer, SENTENCE * 9)
    assert out.stopped and out.text == (SENTENCE * 2).strip()
    assert streamed(renderer, (SENTENCE * 9).strip(), stop_loops=False).text == (SENTENCE * 9).strip()


def test_a_word_over_and_over_ends_early(renderer):
    out = streamed(renderer, "*bows* " + "Curtain! " * 60)
    assert out.stopped and 2 <= out.text.count("Curtain!") <= RUN_TOKENS + 1 and out.text.endswith("!")


def test_a_circle_without_an_end_of_sentence_does_not_go_on_for_long(renderer):
    out = streamed(renderer, "and then " * 200)
    assert out.stopped and out.tokens <= 2 * RUN_TOKENS + PATIENCE_TOKENS + 2


def test_a_name_and_a_saying_may_come_again(renderer):
    text = "Sir Aurelio Thrip bows. The goose did better. Sir Aurelio Thrip sits down. The goose did better!"
    assert streamed(renderer, text).text == text


def test_places_may_overlap_and_short_replies_never_go_round():
    assert not goes_round([1] * RUN_TOKENS) and goes_round([1] * (RUN_TOKENS + 1))
    assert not goes_round([]) and not goes_round(list(range(100)))

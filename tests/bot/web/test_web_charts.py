"""Charts: what is drawn, what is spoken, and the figures beside it."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.platform.web_kit.charts import (
    Series,
    axis_ticks,
    bar_chart,
    format_figure,
    line_chart,
    thin_points,
)

LOSS = Series("train", [(0, 4.0), (10, 2.0), (20, 1.0)])


def parsed(figure):
    return ElementTree.fromstring(str(figure))


def test_lines_have_their_figures_as_a_table_and_say_what_they_show():
    figure = parsed(
        line_chart("Loss", "step", "loss", [LOSS, Series("eval", [(10, 2.5)], faint=True)])
    )
    assert figure.find("figcaption").text == "Loss"
    svg = figure.find("svg")
    assert svg.get("role") == "img"
    assert re.search("train: loss .*4 at step 0 .*1 at 20", svg.get("aria-label"))
    rows = [[cell.text or "" for cell in row] for row in figure.iter("tr")]
    assert rows == [["step", "train", "eval"], ["0", "4", ""], ["10", "2", "2.5"], ["20", "1", ""]]
    assert [item.text or item[0].tail for item in figure.find("ul")] == ["train", "eval"]
    (line,) = svg.findall("polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert heights == sorted(heights), "what falls goes down"


def test_what_cannot_be_drawn_is_left_out():
    odd = Series("odd", [(0, math.nan), (1, math.inf), (3, 0.1), (4, 10.0)])
    rows = [row[0].text for row in parsed(line_chart("L", "x", "y", [odd])).iter("tr")][1:]
    assert rows == ["3", "4"]
    assert "no values are recorded" in line_chart("L", "x", "y", [Series("none", [])])
    assert "nothing to show" in bar_chart("B", [])


def test_a_single_point_and_a_flat_line_are_drawn():
    assert (
        parsed(line_chart("L", "x", "y", [Series("one", [(5, 5)])])).find("svg/circle") is not None
    )
    assert "nan" not in line_chart("L", "x", "y", [Series("flat", [(1, 3), (2, 3)])])


def texts(figure, css_class):
    return [span.text for span in figure.iter("span") if span.get("class") == css_class]


def percent(element, attribute):
    return float(element.get(attribute).removesuffix("%"))


def test_bars_begin_at_zero_and_carry_their_values():
    long_name = "<b> & a very long name indeed, which nothing cuts off"
    figure = parsed(bar_chart("Samples", [("a", 100), (long_name, 50), ("c", 0)], "rows"))
    wide = [percent(bar, "width") for bar in figure.iter("rect")]
    assert wide == [100, 50, 0]
    assert texts(figure, "row-name") == ["a", long_name, "c"]
    assert texts(figure, "row-value") == ["100 rows", "50 rows", "0 rows"]
    assert [row[0].text for row in figure.iter("tr")][2] == long_name


def test_foreign_text_is_escaped():
    figure = line_chart("<script>", "<x>", '"y"', [Series("<i>", [(1, 2), (2, 3)])]) + bar_chart(
        "<script>", [("<i>", 1)]
    )
    assert "<script>" not in figure and "<i>" not in figure and "<x>" not in figure


def test_beside_an_axis_figures_are_short():
    rate = line_chart("Rate", "step", "lr", [Series("lr", [(0, 0.0), (200_000, 0.0008)])])
    beside = [text.text for text in parsed(rate).iter("text")]
    assert {"2e-4", "8e-4", "2e5"} <= set(beside) and all(
        len(text) < 7 for text in beside if text[0].isdecimal()
    )


def test_long_lines_are_thinned_and_the_table_says_so():
    long = [(float(n), float(n % 7)) for n in range(10_000)]
    figure = line_chart("Long", "x", "y", [Series("s", long)])
    assert len(figure) < 60_000 and "200 of 10,000 rows" in figure
    assert (
        thin_points(long, 600)[0] == long[0]
        and thin_points(long, 600)[-1] == long[-1]
        and len(thin_points(long, 600)) == 600
    )


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_within(low, span):
    high = low + span
    found = axis_ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - span * 1e-6 <= value <= high + span * 1e-6 for value in found)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.0, "3"),
        (0.000123456, "0.0001235"),
        (1234567, "1,234,567"),
        (1e15, "1e+15"),
        (3000.0, "3,000"),
        (1234.56, "1,235"),
        (math.nan, "–"),
    ],
)
def test_figures_are_as_short_as_they_can_be(value, shown):
    assert format_figure(value) == shown

"""Charts: axes that say something of one value too, and lines that can be seen."""

import re
from xml.etree import ElementTree

import pytest

from bot.platform.web_kit.charts import SERIES_COLOURS, Series, line_chart
from bot.platform.web_kit.templating import STATIC_FOLDER


def drawn(title, points):
    return ElementTree.fromstring(
        str(line_chart(title, "step", "y", [Series("one", points)]))
    ).find("svg")


@pytest.mark.parametrize(
    "points", [[(1, 0.0)], [(5, 2e-4)], [(1, 2733.6)], [(1, 0.5), (2, 0.5)], [(3, -1.0)]]
)
def test_values_that_are_all_one_stand_in_the_middle_of_an_axis_from_zero(points):
    svg = drawn("L", points)
    beside = [text.text for text in svg.findall("text") if text.get("text-anchor") == "end"][:-1]
    assert "0" in beside and len(set(beside)) == len(beside) > 1
    assert min(points)[1] < 0 or not any(label.startswith("-") for label in beside)


def test_labels_beside_an_axis_are_distinguished_and_steps_are_whole():
    svg = drawn("Memory", [(1, 2733.61), (2, 2733.75)])
    labels = [text.text for text in svg.findall("text")][:-2]
    assert labels == ["2733.65", "2733.7", "2733.75", "1", "2"]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_raw_curves_stand_out_from_the_page_and_their_means_from_them(scheme):
    css = (STATIC_FOLDER / "base.css").read_text()
    colours = dict(
        re.findall(r"--([\w-]+): ([^;]+);", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme])
    )
    opacity = float(colours["faint"])
    for ground in (_rgb(colours["paper"]), _rgb(colours["panel"])):
        for number in range(SERIES_COLOURS):
            line = _rgb(colours[f"c{number}"])
            faint = [opacity * a + (1 - opacity) * b for a, b in zip(line, ground, strict=True)]
            assert 3 <= _contrast(faint, ground) < 0.8 * _contrast(line, ground)


def _rgb(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return bytes.fromhex(digits)


def _contrast(one, other):
    """As WCAG 2 reckons it."""
    linear = [
        [(v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in rgb]
        for rgb in (one, other)
    ]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)

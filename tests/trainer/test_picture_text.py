"""Names in pictures that matplotlib's own font cannot draw."""

import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.font_manager import FontEntry

from tests.trainer.sample_scorecards import good_card
from trainer.report.picture_text import drawable
from trainer.report.scorecard_picture import draw_picture, make_figure

AMEI = "阿梅婆婆"


def write_font(file, characters, name):
    """Write a font that draws each of these characters as a box."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for place in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(place)
    pen.closePath()
    box = pen.glyph()
    names = [f"uni{ord(character):04X}" for character in characters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, characters), names, strict=True)))
    builder.setupGlyf({glyph: box for glyph in (".notdef", *names)})
    builder.setupHorizontalMetrics({glyph: (1000, 100) for glyph in (".notdef", *names)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)
    return FontEntry(fname=str(file), name=name, style="normal", weight=400)


@pytest.fixture
def fonts(monkeypatch):
    """The fonts of the machine: only what matplotlib ships."""
    manager = font_manager.fontManager
    shipped = [font for font in manager.ttflist if "mpl-data" in font.fname]
    assert len({font.name for font in shipped}) > 3
    monkeypatch.setattr(manager, "ttflist", shipped)
    return shipped


def title_of(card, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_picture(card, tmp_path / "card.png")
    return make_figure(card).axes[0].texts[0].get_text()


def test_a_font_of_the_machine_draws_a_chinese_name(fonts, tmp_path):
    fonts.append(write_font(tmp_path / "some.ttf", "阿梅", "Some Han"))
    fonts.append(write_font(tmp_path / "all.ttf", "阿梅婆。", "All Han"))
    assert drawable(AMEI) == (AMEI, ["sans-serif", "All Han"])
    card = good_card().model_copy(update={"persona": "amei", "persona_name": AMEI})
    assert title_of(card, tmp_path) == f"{AMEI} {card.version}"


@pytest.mark.parametrize(("name", "drawn"), [(AMEI, "amei"), ("🦀 Crab 🦀", "Crab")])
def test_what_no_font_has_is_left_out_and_a_persona_without_a_name_has_its_id(
    fonts, tmp_path, name, drawn
):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    fonts.append(FontEntry(fname=str(tmp_path / "broken.ttf"), name="Broken"))
    card = good_card().model_copy(update={"persona": "amei", "persona_name": name})
    assert title_of(card, tmp_path) == f"{drawn} {card.version}"

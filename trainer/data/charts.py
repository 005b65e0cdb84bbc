"""Draws charts as SVG and PNG: figure and save helpers, and a data set's composition and lengths."""

from __future__ import annotations

"""Told apart by people who see few colours, and in grey."""


RAW_COLOUR, SMOOTH_COLOUR, HELDOUT_COLOUR = "#7fa8cf", "#1d4f80", "#b35900"


"""Of lines, which are thinner: the raw curve may be faint, the others stand out from white by 4.5 to 1 and more."""


SERIES_COLOURS = (SMOOTH_COLOUR, HELDOUT_COLOUR, "#4d7c0f", "#7e3f8f", "#555555")


"""Of lines that are alike: as dark as these."""

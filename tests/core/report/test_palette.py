"""Every colour of a page can be told from what it stands on, for those who see little contrast, too."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from graftkit.report.palette import DARK, LIGHT, contrast, variables

TEXT = ("text", "muted", "good", "bad", "focus")
DRAWN = ("notice", *(name for name in LIGHT if name.startswith("series")))


def test_contrast_is_that_of_the_guidelines() -> None:
    """WCAG 2.2's own examples: black on white, and the lightest grey that passes AA on white."""
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
    assert contrast("#777777", "#ffffff") < 4.5


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("below", ["page", "panel"])
def test_text_and_lines_stand_out(colours: dict[str, str], below: str) -> None:
    assert {
        name: contrast(colours[name], colours[below]) for name in TEXT if contrast(colours[name], colours[below]) < 4.5
    } == {}
    assert {
        name: contrast(colours[name], colours[below]) for name in DRAWN if contrast(colours[name], colours[below]) < 3
    } == {}


def test_the_style_uses_no_colour_besides() -> None:
    style = files("graftkit.report").joinpath("page.css").read_text()
    used = set(re.findall(r"var\(--([a-z0-9-]+)", style)) - {"columns"}
    assert used <= LIGHT.keys() == DARK.keys() and not re.search("#[0-9a-f]{3}", style)
    assert all(f"--{name}:{value}" in variables() for name, value in [*LIGHT.items(), *DARK.items()])

"""Subscripts: claims and captions are plain text in which a letter takes one after an underscore, as in x_end."""

import re

from markupsafe import Markup, escape

_LETTER = "[A-Za-zα-ω]"
_SUBSCRIPT = re.compile(rf"(?<!{_LETTER})({_LETTER})_({_LETTER}+)")


def html(text: str) -> Markup:
    """Escaped, with subscripts as elements: x_end becomes x<sub>end</sub>."""
    return Markup(_SUBSCRIPT.sub(r"\1<sub>\2</sub>", str(escape(text))))


def mathtext(text: str) -> str:
    """With subscripts as matplotlib sets them."""
    return _SUBSCRIPT.sub(r"\1$_{\\mathrm{\2}}$", text)

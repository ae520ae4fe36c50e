"""The page: findings into one self-contained HTML document. Needs jinja2 (the extra `report`)."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from geodiff.report.finding import Finding, Picture
from geodiff.report.typeset import html


def render(document: dict[str, Any], findings: Sequence[Finding]) -> str:
    """The HTML of a report; everything that it shows is inside. All text is escaped."""
    loader = PackageLoader("geodiff.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"typeset": html, "placed": placed}
    return environment.get_template("report.html.j2").render(document=document, findings=findings)


def placed(pictures: Sequence[Picture]) -> list[tuple[str, Picture]]:
    """Each with its place: "wide", "half" of the page's width, or "alone" where no other half stands beside it."""
    places = []
    for wide, run in groupby(pictures, key=lambda picture: picture.wide):
        group = list(run)
        places += [("wide" if wide else "half", picture) for picture in group]
        if not wide and len(group) % 2:
            places[-1] = ("alone", group[-1])
    return places

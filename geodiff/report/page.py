"""The page: findings into one self-contained HTML document. Needs jinja2 (the extra `report`)."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from geodiff.report.finding import Finding


def render(document: dict[str, Any], findings: Sequence[Finding]) -> str:
    """The HTML of a report; everything that it shows is inside. All text is escaped."""
    loader = PackageLoader("geodiff.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(document=document, findings=findings)

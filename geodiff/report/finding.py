"""What one part of a report says: a claim, how it was measured on this data, the figures, and whether it held."""

import base64
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from geodiff.base.finite import finite


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; media is "image/svg+xml" or "image/png". `wide` ones take the width of the page."""

    caption: str
    media: str
    content: bytes
    wide: bool = False

    @property
    def url(self) -> str:
        """The picture inside its own address, so that a page needs no second file."""
        return f"data:{self.media};base64,{base64.b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class Finding:
    """One card of the report.

    key      short name, unique in a report
    kind     "Proposition", "Observation", "Method" or "Limit"
    title    a few words
    claim    what is said to hold, from the paper
    measure  how it was measured here, with the criterion that decides
    held     whether the criterion was met; None where nothing was measured, and `verdict` says why
    verdict  one or two sentences with the figures that decide
    figures  every number measured, by name: numbers, lists of numbers, or nested
    table    rows of text for the page, the first is the head; empty for none
    """

    key: str
    kind: str
    title: str
    claim: str
    measure: str
    held: bool | None
    verdict: str
    figures: dict[str, Any] = field(default_factory=dict)
    table: list[list[str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Everything but the pictures, for report.json; numbers that JSON lacks become null."""
        fields = {name: value for name, value in asdict(self).items() if name != "pictures"}
        fields["pictures"] = [picture.caption for picture in self.pictures]
        return finite(fields)

    def stored(self) -> dict[str, Any]:
        """Everything, pictures as base64: what `restored` reads."""
        pictures = [asdict(p) | {"content": base64.b64encode(p.content).decode("ascii")} for p in self.pictures]
        return finite({**asdict(self), "pictures": pictures})

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> "Finding":
        """What `stored` wrote. Raises KeyError, TypeError or ValueError for something else."""
        pictures = [Picture(**{**p, "content": base64.b64decode(p["content"])}) for p in fields["pictures"]]
        return cls(**{**fields, "pictures": pictures})


class Subject(NamedTuple):
    """What a finding says of itself whatever is measured, the first fields of `Finding`: `Finding(*subject, ...)`."""

    key: str
    kind: str
    title: str
    claim: str

    def not_measured(self, measure: str, reason: str) -> Finding:
        """The card of a report that could not measure it; reason: what is missing, without a full stop."""
        return Finding(*self, measure=measure, held=None, verdict=f"Not measured: {reason}.")

"""The result of a benchmark: one line of the table, on the screen and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

HEADER = ("row", "what", "figure", "reach", "met")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A figure that was measured."""

    row: str
    """As the scorecard calls it: `S3`."""

    what: str
    figure: str
    """With its unit: `1.06 times`."""

    reach: str
    """The target, such as `at most 1.10 times`, or nothing."""

    met: bool | None
    """None where nothing is asked, or where it could not be measured."""

    raw: dict[str, float] = field(default_factory=dict)
    """All that was measured on the way, by its name and unit: `run_cpu_s`."""

    def cells(self) -> tuple[str, ...]:
        """Return the line of the table."""
        met = {True: "yes", False: "NO", None: "-"}[self.met]
        return (self.row, self.what, self.figure, self.reach, met)


def at_most(row: str, what: str, figure: float, limit: float, *, unit: str, **raw: float) -> Result:
    """Return the result of a figure that should be small."""
    return Result(
        row=row,
        what=what,
        figure=f"{short(figure)} {unit}",
        reach=f"at most {short(limit)} {unit}",
        met=figure <= limit,
        raw=raw | {"figure": figure},
    )


def at_least(row: str, what: str, figure: float, limit: float, *, unit: str, **raw: float) -> Result:
    """Return the result of a figure that should be large."""
    return Result(
        row=row,
        what=what,
        figure=f"{short(figure)} {unit}",
        reach=f"at least {short(limit)} {unit}",
        met=figure >= limit,
        raw=raw | {"figure": figure},
    )


def shown(row: str, what: str, figure: str, **raw: float) -> Result:
    """Return the result of a figure that has no target."""
    return Result(row=row, what=what, figure=figure, reach="", met=None, raw=raw)


def short(number: float) -> str:
    """Return a number with three digits that matter."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def as_table(results: Iterable[Result]) -> str:
    """Return the results as a table that is Markdown as well."""
    lines = [HEADER, *(result.cells() for result in results)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADER))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])


def as_json(results: Iterable[Result]) -> str:
    """Return the results as one JSON array, raw figures included."""
    return json.dumps([asdict(result) for result in results], indent=2)

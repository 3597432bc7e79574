"""Tables as text, for a terminal and in Markdown, and the rounding that tables and figures share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CONSOLE_COLUMNS = 100
"""The widest table that the commands print."""
NAME_COLUMNS = 26
"""Longest name in a table's first column that shares its line with the other columns."""
FLOPS_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))


def score(value: float) -> str:
    """Return a metric's mean, between 0 and 1, as tables, figures and sentences have it."""
    return f"{value:.3f}"


def short(value: float) -> str:
    """Return a number as a label: three significant digits, or all digits before the point from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def flops_unit(highest: float) -> tuple[float, str]:
    """Return the largest unit of which ``highest`` has at least one: its size, and the letter before "FLOPs"."""
    for scale, prefix in FLOPS_UNITS:
        if highest >= scale:
            return scale, prefix
    return FLOPS_UNITS[-1]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table; cells are used as they are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def console_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a terminal: the first column on the left, the others aligned on the right.

    A cell may have several lines. A long name in the first column, such as a path, has a line to itself.
    """
    lines: list[list[str]] = []
    for name, *cells in [header, *rows]:
        if len(name) > NAME_COLUMNS:
            lines.append([name])
            name = ""
        # Each cell as its lines; cells with fewer lines than others of their row are filled up.
        columns = [[name], *(cell.split("\n") for cell in cells)]
        height = max(map(len, columns))
        padded = [column + [""] * (height - len(column)) for column in columns]
        lines += [list(line) for line in zip(*padded, strict=True)]

    # The names with a line to themselves widen no column.
    whole = [line for line in lines if len(line) == len(header)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    printed = []
    for name, *cells in lines:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False)]
        printed.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(printed)

"""The picture of a needle in a haystack: a map for each system, lengths from left to right, depths downwards."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage

from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.text_tables import score

PANELS = {"scaledown": "ScaleDown", "full_text": "Full text", "cut_text": "Text cut at {} tokens"}
SHADES = LinearSegmentedColormap.from_list("found", [colours.SYSTEMS["full_text"], "#f5f5f5",
                                                     colours.SYSTEMS["scaledown"]])
"""From never found to always found."""
NOT_MEASURED = "#cccccc"
PANEL_HEIGHT, COLUMNS = 3.6, 3
DARK_BELOW, DARK_ABOVE = 0.15, 0.85
"""Cells beyond these are dark, and have white numbers."""

Row = Mapping[str, Any]


def plot_depths(path: Path, rows: Sequence[Row], document_tokens: int) -> None:
    """Draw exact match by length and depth.

    Args:
        path: the PNG's path.
        rows: ``length_tokens``, ``depth``, ``system``, ``exact_match_avg`` and ``n``.
        document_tokens: where text is cut.
    """
    measured = {row["system"] for row in rows}
    systems = [name for name in PANELS if name in measured]
    lengths = sorted({row["length_tokens"] for row in rows})
    depths = sorted({row["depth"] for row in rows})

    # All maps have one scale of colours.
    figure, places = style.panels(len(systems), PANEL_HEIGHT, narrow=False, columns=COLUMNS)
    for axes, name in zip(places, systems, strict=True):
        image = _map(axes, [row for row in rows if row["system"] == name], lengths, depths)
        axes.set_title(PANELS[name].format(document_tokens), loc="left", fontsize=12, color=colours.INK)
    bar = figure.colorbar(image, ax=places, location="right", fraction=0.02, pad=0.02)
    bar.set_label("exact match, 0 to 1", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    bar.outline.set_visible(False)

    style.head(figure, title(rows, document_tokens),
               f"Exact match, n = {rows[0]['n']} questions, the same in every cell: a fact among other text, at a "
               "depth from the start of the document (0) to its end (1). Grey: not measured.")
    style.save(figure, path)


def title(rows: Sequence[Row], document_tokens: int) -> str:
    """Return the results at the greatest length, or at the greatest at which a system was measured: over all depths."""
    longest = max(row["length_tokens"] for row in rows)
    found = []
    for name, label in PANELS.items():
        lengths = [row["length_tokens"] for row in rows if row["system"] == name]
        if not lengths:
            continue
        means = [row["exact_match_avg"] for row in rows
                 if row["system"] == name and row["length_tokens"] == max(lengths)]
        where = "" if max(lengths) == longest else f" in {max(lengths):,}"
        found.append(f"{label.format(document_tokens)} {score(statistics.fmean(means))}{where}")
    return f"A fact in {longest:,} tokens is found: {'; '.join(found)}"


def _map(axes: Axes, rows: Sequence[Row], lengths: Sequence[int], depths: Sequence[float]) -> AxesImage:
    means = {(row["depth"], row["length_tokens"]): row["exact_match_avg"] for row in rows}
    grid = []
    for depth in depths:
        # What was not measured is no number, and has the colour below.
        grid.append([means.get((depth, length), float("nan")) for length in lengths])

    axes.set_facecolor(NOT_MEASURED)
    image = axes.imshow(grid, aspect="auto", cmap=SHADES, vmin=0, vmax=1, interpolation="nearest")
    for (depth, length), mean in means.items():
        is_dark = mean < DARK_BELOW or mean > DARK_ABOVE
        axes.text(lengths.index(length), depths.index(depth), f"{mean:.2f}", ha="center", va="center",
                  fontsize=style.SMALL_POINTS, color="white" if is_dark else colours.INK)

    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=style.SMALL_POINTS)
    axes.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths], fontsize=style.SMALL_POINTS)
    axes.set_xlabel("tokens of the document", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_ylabel("depth of the fact", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.tick_params(length=0, colors=colours.QUIET)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image

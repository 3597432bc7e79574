"""Pictures of memory embeddings: heat maps of what they resemble in one document, and a curve over many documents.

All heat maps have one scale of colours from 0 to 1, so that pictures of two models can be compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.needle import WINDOW_TOKENS

NARROW_WINDOW_TOKENS = 4
"""Tokens shown on each side of the answer on a phone."""
TOKEN_COLUMNS, QUESTION_COLUMNS, NARROW_QUESTION_COLUMNS, ANSWER_COLUMNS = 16, 72, 40, 24
"""Longest texts in the figures, in columns; longer ones are cut."""
WAYS = {"asked": "asked about it", "not_asked": "asked about something else"}
COLOURS = {"asked": colours.SYSTEMS["scaledown"], "not_asked": colours.SYSTEMS["no_documents"]}
STAGES = {"before_training": "Before training", "after_training": "After training"}
SHADES = LinearSegmentedColormap.from_list("memory", ["white", colours.SYSTEMS["scaledown"]])
MARK = colours.for_text(colours.SYSTEMS["full_text"])
"""Colour of the answer."""
SCALE_LABEL = "cosine, 0 (and below) to 1"
PANEL_HEIGHT = 3.4


def plot_memory(path: Path, examples: Mapping[str, Mapping[str, Any]], narrow: bool = False) -> None:
    """Draw one document's memory before and after training: which of its tokens each embedding resembles.

    Args:
        path: the PNG's path.
        examples: of the same document, by stage (a key of ``STAGES``); after training must be there.
        narrow: for a phone, on which fewer tokens are shown.
    """
    stages = [stage for stage in STAGES if stage in examples]
    # Always one below another: the columns of both are the same tokens.
    figure = style.new_figure(style.NARROW_INCHES if narrow else style.WIDE_INCHES, PANEL_HEIGHT * len(stages) + 0.4)
    places = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    for axes, stage in zip(places, stages, strict=True):
        image = heat_map(axes, examples[stage], narrow)
        axes.set_title(STAGES[stage], loc="left", fontsize=12, color=colours.INK)
    _colour_scale(figure, image, places, narrow)

    after = examples["after_training"]
    question = style.label(after["query"], NARROW_QUESTION_COLUMNS if narrow else QUESTION_COLUMNS)
    answer = style.label(after["answer"], ANSWER_COLUMNS)
    style.head(figure, _memory_title(examples),
               f'"{question}" (answer: {answer}). Cosine of each memory embedding of one document with the '
               "generator's embeddings of the document's tokens, around the answer (marked). On the right of each row: "
               "the nearest entries of the vocabulary.")
    style.save(figure, path)


def answer_likeness(example: Mapping[str, Any]) -> float:
    """Return the largest cosine of any memory embedding with a token of the answer, averaged over its tokens."""
    first, last = example["answer_tokens"]
    largest = []
    for place in range(first, last + 1):
        largest.append(max(cosines_of_one[place] for cosines_of_one in example["similarity"]))
    return statistics.fmean(largest)


def _memory_title(examples: Mapping[str, Mapping[str, Any]]) -> str:
    after = f"{answer_likeness(examples['after_training']):.2f}"
    if "before_training" not in examples:
        return f"The memory's likeness to the answer's tokens is {after} after training"
    before = f"{answer_likeness(examples['before_training']):.2f}"
    return f"The memory's likeness to the answer's tokens is {before} before training and {after} after"


def plot_needle(path: Path, likeness: Mapping[str, Any]) -> None:
    """Draw one document as a heat map with the words nearest to its memory, and all documents as a curve."""
    figure = style.new_figure(style.WIDE_INCHES, 7)
    heat, curve = figure.subplots(2, 1, height_ratios=(1.15, 1))

    example = likeness["example"]
    image = heat_map(heat, example)
    question, answer = style.label(example["query"], QUESTION_COLUMNS), style.label(example["answer"], ANSWER_COLUMNS)
    heat.set_title(f'"{question}"  (answer: {answer})', loc="left", fontsize=12, color=colours.INK)
    _colour_scale(figure, image, [heat], narrow=False)
    _curve(curve, likeness["around"])

    inside = {}
    for way, line in likeness["around"].items():
        inside[way] = line["cosine"][line["distance_tokens"].index(0)]  # distance 0 is inside the answer
    style.head(figure, f"The memory's likeness to the answer's tokens is {inside['asked']:.2f} if the question asks "
               f"for it, {inside['not_asked']:.2f} if not",
               "Cosine of memory embeddings with the generator's embeddings of the document's tokens; above: one "
               "document, with the nearest entries of the vocabulary on the right. Curve: the largest cosine of any "
               f"embedding, mean of n = {likeness['n']} documents.")
    style.save(figure, path)


def heat_map(axes: Axes, example: Mapping[str, Any], narrow: bool = False) -> AxesImage:
    """Draw the answer and a window around it: a row for each memory embedding, a column for each token."""
    first, last = example["answer_tokens"]
    window = NARROW_WINDOW_TOKENS if narrow else WINDOW_TOKENS
    start, stop = max(0, first - window), last + window + 1
    shown = [cosines_of_one[start:stop] for cosines_of_one in example["similarity"]]
    tokens = [_token(text) for text in example["tokens"][start:stop]]

    image = axes.imshow(shown, aspect="auto", cmap=SHADES, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=style.SMALL_POINTS, color=colours.INK)

    # The answer's tokens, counted from the window's start; cells are centred on whole numbers.
    for place in range(first - start, last - start + 1):
        axes.get_xticklabels()[place].set(color=MARK, fontweight="bold")
    for edge in (first - start - 0.5, last - start + 0.5):
        axes.axvline(edge, color=MARK, linewidth=1.2)

    numbers = [str(number + 1) for number in range(len(shown))]
    axes.set_yticks(range(len(shown)), numbers, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_ylabel("memory embedding, number", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.tick_params(length=0)
    _nearest_words(axes, example, num_words=1 if narrow else None)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _nearest_words(axes: Axes, example: Mapping[str, Any], num_words: int | None) -> None:
    """Write on the right the entries of the vocabulary that each embedding is nearest to."""
    words = []
    for nearest in example["nearest"]:
        words.append("  ".join(_token(word["token"]) for word in nearest[:num_words]))

    near = axes.secondary_yaxis("right")
    near.set_yticks(range(len(words)), words, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    near.tick_params(length=0)
    for spine in near.spines.values():
        spine.set_visible(False)


def _colour_scale(figure: Figure, image: AxesImage, places: Any, narrow: bool) -> None:
    # Below on a phone, where beside the words there is no room.
    bar = figure.colorbar(image, ax=places, location="bottom" if narrow else "right", fraction=0.02, pad=0.02)
    bar.set_label(SCALE_LABEL, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    bar.ax.tick_params(labelsize=style.SMALL_POINTS, colors=colours.QUIET)
    bar.outline.set_visible(False)


def _token(text: str) -> str:
    return style.label(text, TOKEN_COLUMNS) or "\N{OPEN BOX}"  # a token of white space alone


def _curve(axes: Axes, around: Mapping[str, Any]) -> None:
    style.quiet(axes, grid="y")
    axes.axvspan(-0.5, 0.5, color=colours.shade(colours.SYSTEMS["full_text"], 0.18), zorder=0)  # the answer
    for number, (way, label) in enumerate(WAYS.items()):
        line = around[way]
        axes.plot(line["distance_tokens"], line["cosine"], color=COLOURS[way], linewidth=2, marker="o", markersize=3.5)
        axes.text(0.99, 0.93 - 0.11 * number, f"\N{BLACK CIRCLE} {label}", transform=axes.transAxes, ha="right",
                  fontsize=style.LABEL_POINTS, fontweight="bold", color=colours.for_text(COLOURS[way]))

    axes.set_xlabel("distance in tokens: before (-) and after (+) the answer; 0: inside it",
                    fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_ylabel("cosine, 0 to 1", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_xlim(-WINDOW_TOKENS - 0.5, WINDOW_TOKENS + 0.5)
    lowest = min(min(around[way]["cosine"]) for way in WAYS)
    axes.set_ylim(min(0.0, lowest), 1)

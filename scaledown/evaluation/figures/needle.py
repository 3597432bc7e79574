"""A look into memory embeddings: the document tokens that they resemble around the answer, and the nearest words.

The generator reads memory and token embeddings alike, so the two can be compared by their cosine (paper, figure 7). The
answer is the needle. The same document is also compressed for a question about something else: a likeness that is
higher only when the question asks for it was kept because of the question.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from scaledown.data.records import Record
from scaledown.evaluation.figures import style
from scaledown.models.engine.decoder import token_embeddings
from scaledown.models.model import ScaleDownModel

WINDOW_TOKENS = 16
"""Tokens shown on each side of the answer."""
NUM_NEAREST = 3
TOKEN_COLUMNS, QUESTION_COLUMNS, ANSWER_COLUMNS = 16, 72, 24
"""Longest texts in the figures, in columns; longer ones are cut."""
WAYS = {"asked": "asked about it", "not_asked": "asked about something else"}
COLOURS = {"asked": style.COLOURS["scaledown"], "not_asked": style.COLOURS["no_documents"]}


class Needle(NamedTuple):
    """A document's token ids, and the first and last of those that spell the answer."""

    ids: list[int]
    first: int
    last: int

    def distance(self, place: int) -> int:
        """Return the number of tokens from the answer to ``place``: negative before it, 0 inside."""
        if place < self.first:
            return place - self.first
        return max(0, place - self.last)


def find_needle(tokenizer: Any, document: str, references: Sequence[str], limit: int) -> Needle | None:
    """Find one of the answers, whole and literally, in the document's first ``limit`` tokens; None if none is there."""
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"][:limit], encoded["offset_mapping"][:limit]
    for reference in references:
        start = document.lower().find(reference.lower())
        if start < 0:
            continue
        end = start + len(reference)

        # The tokens that share characters with the answer; at the limit the answer's end may be cut off.
        inside = [place for place, (left, right) in enumerate(offsets) if left < end and right > start]
        if inside and offsets[inside[-1]][1] >= end:
            return Needle(ids, inside[0], inside[-1])

    return None


def look_into_memory(model: ScaleDownModel, questions: Sequence[tuple[Record, str]]) -> dict[str, Any]:
    """Measure similarities around the answer over all questions, each with its document, and show one in full.

    Returns:
        ``around``: for each way of asking, distances from the answer in tokens and the mean, over documents, of the
        largest cosine that any memory embedding has with the token there; ``example``: query, tokens, the answer's
        first and last token, ``similarity`` (L, T), and the ``nearest`` vocabulary entries of each embedding with
        their cosines; ``n``.

    Raises:
        ValueError: if no answer stands literally in its document.
    """
    tokenizer, table = model.processor.tokenizer, token_embeddings(model.generator.base).float()  # table (V, D)
    usable, needles = [], []
    for record, document in questions:
        needle = find_needle(tokenizer, document, record.references, model.config.document_tokens)
        if needle is not None:
            usable.append((record, document))
            needles.append(needle)
    if not usable:
        raise ValueError("no answer stands literally in its document: there is no needle to look at")

    # Each document is compressed twice: for its own question, and for the next document's.
    documents = [[document] for _, document in usable]
    queries = [record.query for record, _ in usable]
    queries_by_way = {"asked": queries, "not_asked": queries[1:] + queries[:1]}

    around, example = {}, {}
    for way, way_queries in queries_by_way.items():
        memory = model.compress(way_queries, documents).embeddings[:, 0].float()  # (B, L, D), of one document each
        similarities = []
        for embeddings, needle in zip(memory, needles, strict=True):
            similarities.append(cosines(embeddings, table[needle.ids]))  # (L, T)
        around[way] = _mean_by_distance(similarities, needles)
        if way == "asked":
            example = _example(usable[0][0], needles[0], tokenizer, memory[0], similarities[0], table)

    return {"n": len(usable), "around": around, "example": example}


def memory_of_one(model: ScaleDownModel, records: Sequence[Record]) -> dict[str, Any] | None:
    """Return the ``example`` of :func:`look_into_memory` for the first document that holds its answer literally.

    None if no document does.
    """
    tokenizer, table = model.processor.tokenizer, token_embeddings(model.generator.base).float()  # table (V, D)
    for record in records:
        for document in record.documents:
            needle = find_needle(tokenizer, document, record.references, model.config.document_tokens)
            if needle is not None:
                memory = model.compress([record.query], [[document]]).embeddings[0, 0].float()  # (L, D)
                return _example(record, needle, tokenizer, memory, cosines(memory, table[needle.ids]), table)
    return None


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each vector of ``left`` (N, D) with each of ``right`` (M, D): (N, M)."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def _mean_by_distance(similarities: Sequence[Tensor], needles: Sequence[Needle]) -> dict[str, list[float]]:
    values: dict[int, list[float]] = {}
    for similarity, needle in zip(similarities, needles, strict=True):
        largest = similarity.amax(0).tolist()  # over the memory embeddings: (L, T) to (T)
        for place, value in enumerate(largest):
            distance = needle.distance(place)
            if abs(distance) <= WINDOW_TOKENS:
                values.setdefault(distance, []).append(value)

    distances = sorted(values)
    means = [statistics.fmean(values[distance]) for distance in distances]
    return {"distance_tokens": distances, "cosine": means}


def _example(record: Record, needle: Needle, tokenizer: Any, memory: Tensor, similarity: Tensor,
             table: Tensor) -> dict[str, Any]:
    values, ids = cosines(memory, table).topk(NUM_NEAREST, dim=-1)  # each (L, NUM_NEAREST)
    nearest = []
    for embedding_ids, embedding_values in zip(ids.tolist(), values.tolist(), strict=True):
        words = []
        for token, value in zip(embedding_ids, embedding_values, strict=True):
            words.append({"token": tokenizer.decode([token]), "cosine": value})
        nearest.append(words)

    return {"query": record.query, "answer": record.references[0],
            "tokens": [tokenizer.decode([token]) for token in needle.ids], "answer_tokens": [needle.first, needle.last],
            "similarity": similarity.tolist(), "nearest": nearest}


def plot_needle(path: Path, likeness: dict[str, Any]) -> None:
    """Draw one document as a heat map with the words nearest to its memory, and all documents as a curve."""
    figure = style.new_figure(13, 7.6)
    heat, curve = figure.subplots(2, 1, height_ratios=(1.15, 1))
    _heat_map(figure, heat, likeness["example"])
    _curve(curve, likeness["around"])

    inside = {}
    for way, line in likeness["around"].items():
        inside[way] = line["cosine"][line["distance_tokens"].index(0)]  # distance 0 is inside the answer
    style.head(figure, f"Likeness of the memory to the answer's tokens: {inside['asked']:.2f} when asked for it, "
               f"{inside['not_asked']:.2f} when not",
               "Cosine of memory embeddings with the generator's embeddings of the document's tokens. Curve: the "
               f"embeddings' largest, mean of n = {likeness['n']} documents.")
    style.save(figure, path)


def plot_memory(path: Path, example: dict[str, Any]) -> None:
    """Draw one document as a heat map: which of its tokens each embedding resembles, and which words it is near."""
    figure = style.new_figure(13, 4.6)
    _heat_map(figure, figure.subplots(), example)
    style.head(figure, "What the memory of one document resembles",
               "Cosine of each memory embedding with the generator's embeddings of the document's tokens, around the "
               "answer (marked).")
    style.save(figure, path)


def _heat_map(figure: Any, axes: Axes, example: dict[str, Any]) -> None:
    # The part of the document that is shown: the answer and a window around it.
    first, last = example["answer_tokens"]
    start, stop = max(0, first - WINDOW_TOKENS), last + WINDOW_TOKENS + 1
    shown = [cosines_of_one[start:stop] for cosines_of_one in example["similarity"]]
    tokens = [_token(text) for text in example["tokens"][start:stop]]

    shades = LinearSegmentedColormap.from_list("memory", ["white", style.COLOURS["scaledown"]])
    image = axes.imshow(shown, aspect="auto", cmap=shades, vmin=0, interpolation="nearest")
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=9, color=style.INK)

    # The answer's tokens, counted from the window's start; cells are centred on whole numbers.
    for place in range(first - start, last - start + 1):
        axes.get_xticklabels()[place].set(color=style.COLOURS["full_text"], fontweight="bold")
    for edge in (first - start - 0.5, last - start + 0.5):
        axes.axvline(edge, color=style.COLOURS["full_text"], linewidth=1.2)

    axes.set_yticks(range(len(shown)), [str(number + 1) for number in range(len(shown))], fontsize=9)
    axes.set_ylabel("memory embedding", fontsize=9, color=style.QUIET)
    axes.tick_params(length=0)
    question = style.label(example["query"], QUESTION_COLUMNS)
    answer = style.label(example["answer"], ANSWER_COLUMNS)
    axes.set_title(f'"{question}"  (answer: {answer})', loc="left", fontsize=11, color=style.INK)

    # On the right the words of the vocabulary that each embedding is nearest to.
    words = []
    for nearest in example["nearest"]:
        words.append("  ".join(_token(word["token"]) for word in nearest))
    near = axes.secondary_yaxis("right")
    near.set_yticks(range(len(shown)), words, fontsize=9, color=style.QUIET)
    near.tick_params(length=0)
    # Its heading stands below it: above, a long question would run into it.
    axes.text(1.008, -0.03, "nearest in the vocabulary", transform=axes.transAxes, va="top", fontsize=9,
              color=style.INK)

    for spine in [*axes.spines.values(), *near.spines.values()]:
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.015, pad=0.01, label="cosine").outline.set_visible(False)


def _token(text: str) -> str:
    return style.label(text, TOKEN_COLUMNS) or "\N{OPEN BOX}"  # a token of white space alone


def _curve(axes: Axes, around: dict[str, Any]) -> None:
    style.quiet(axes, grid="y")
    axes.axvspan(-0.5, 0.5, color=style.shade(style.COLOURS["full_text"], 0.18), zorder=0)  # the answer
    for number, (way, label) in enumerate(WAYS.items()):
        line = around[way]
        axes.plot(line["distance_tokens"], line["cosine"], color=COLOURS[way], linewidth=2, marker="o", markersize=3.5)
        axes.text(0.99, 0.93 - 0.11 * number, f"\N{BLACK CIRCLE} {label}", transform=axes.transAxes, ha="right",
                  fontsize=11, fontweight="bold", color=COLOURS[way])

    axes.set_xlabel("tokens before (-) and after (+) the answer; 0: inside it", fontsize=9, color=style.QUIET)
    axes.set_ylabel("cosine", fontsize=9, color=style.QUIET)
    axes.set_xlim(-WINDOW_TOKENS - 0.5, WINDOW_TOKENS + 0.5)
    axes.margins(y=0.15)

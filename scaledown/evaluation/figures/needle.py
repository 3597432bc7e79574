"""What memory embeddings hold: which document tokens they resemble around the answer, and what words they are near.

The memory lives among the generator's token embeddings, so the two can be compared by their cosine (paper, figure 7).
The answer is the needle. The same document is also compressed for a question about something else: what is higher
only where the question asks for it was kept because of the question.
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
from scaledown.evaluation.figures import shown_text, style
from scaledown.models.model import ScaleDownModel

WINDOW_TOKENS = 16
"""Tokens shown to each side of the answer."""
NUM_NEAREST = 3
TOKEN_COLUMNS, QUESTION_COLUMNS, ANSWER_COLUMNS = 16, 72, 24
"""Longest texts of the figures, in characters; what is longer is cut."""
WAYS = {"asked": "asked about it", "not_asked": "asked about something else"}
COLOURS = {"asked": style.COLOURS["scaledown"], "not_asked": style.COLOURS["no_documents"]}


class Needle(NamedTuple):
    """A document's token ids, and the first and last of those that spell the answer."""

    ids: list[int]
    first: int
    last: int

    def distance(self, place: int) -> int:
        """Tokens from the answer: negative before it, 0 inside."""
        return min(0, place - self.first) or max(0, place - self.last)


def find_needle(tokenizer: Any, document: str, references: Sequence[str], limit: int) -> Needle | None:
    """Where one of the answers stands, whole and literally, in the document's first ``limit`` tokens; or None."""
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"][:limit], encoded["offset_mapping"][:limit]
    for reference in references:
        start = document.lower().find(reference.lower())
        inside = [place for place, (left, right) in enumerate(offsets)
                  if start >= 0 and left < start + len(reference) and right > start]
        if inside and offsets[inside[-1]][1] >= start + len(reference):
            return Needle(ids, inside[0], inside[-1])
    return None


def look_into_memory(model: ScaleDownModel, questions: Sequence[tuple[Record, str]]) -> dict[str, Any]:
    """Similarities around the answer over all questions, each with its document, and one of them in full.

    Returns:
        ``around``: for each way of asking, distances from the answer in tokens and the mean, over documents, of the
        largest cosine that any memory embedding has with the token there; ``example``: query, tokens, the answer's
        first and last token, ``similarity`` (L, T), and the ``nearest`` vocabulary entries of each embedding with
        their cosines; ``n``.

    Raises:
        ValueError: where no answer stands literally in its document.
    """
    tokenizer, table = model.processor.tokenizer, model.generator.base.get_input_embeddings().weight.detach().float()
    needles = [find_needle(tokenizer, document, record.references, model.config.document_tokens)
               for record, document in questions]
    kept = [(record, document, needle) for (record, document), needle in zip(questions, needles, strict=True)
            if needle is not None]
    if not kept:
        raise ValueError("no answer stands literally in its document: there is no needle to look at")
    documents, queries = [[document] for _, document, _ in kept], [record.query for record, _, _ in kept]
    asked = {"asked": queries, "not_asked": queries[1:] + queries[:1]}
    around, example = {}, {}
    for way, way_queries in asked.items():
        memory = model.compress(way_queries, documents).embeddings[:, 0].float()
        similarities = [cosines(memory[row], table[needle.ids]) for row, (*_, needle) in enumerate(kept)]
        around[way] = _mean_by_distance(similarities, [needle for *_, needle in kept])
        if way == "asked":
            example = _example(kept[0][0], kept[0][2], tokenizer, memory[0], similarities[0], table)
    return {"n": len(kept), "around": around, "example": example}


def memory_of_one(model: ScaleDownModel, records: Sequence[Record]) -> dict[str, Any] | None:
    """The ``example`` of :func:`look_into_memory` for the first document that literally holds its question's answer.

    None where no document does.
    """
    tokenizer, table = model.processor.tokenizer, model.generator.base.get_input_embeddings().weight.detach().float()
    for record in records:
        for document in record.documents:
            needle = find_needle(tokenizer, document, record.references, model.config.document_tokens)
            if needle is not None:
                memory = model.compress([record.query], [[document]]).embeddings[0, 0].float()
                return _example(record, needle, tokenizer, memory, cosines(memory, table[needle.ids]), table)
    return None


def cosines(rows: Tensor, others: Tensor) -> Tensor:
    """Cosine of each of ``rows`` (N, D) with each of ``others`` (M, D): (N, M)."""
    return F.normalize(rows, dim=-1) @ F.normalize(others, dim=-1).T


def _mean_by_distance(similarities: Sequence[Tensor], needles: Sequence[Needle]) -> dict[str, list[float]]:
    values: dict[int, list[float]] = {}
    for similarity, needle in zip(similarities, needles, strict=True):
        for place, value in enumerate(similarity.amax(0).tolist()):
            if abs(distance := needle.distance(place)) <= WINDOW_TOKENS:
                values.setdefault(distance, []).append(value)
    distances = sorted(values)
    return {"distance_tokens": distances, "cosine": [statistics.fmean(values[each]) for each in distances]}


def _example(record: Record, needle: Needle, tokenizer: Any, memory: Tensor, similarity: Tensor,
             table: Tensor) -> dict[str, Any]:
    values, ids = cosines(memory, table).topk(NUM_NEAREST, dim=-1)
    nearest = [[{"token": tokenizer.decode([token]), "cosine": value} for token, value in zip(*row, strict=True)]
               for row in zip(ids.tolist(), values.tolist(), strict=True)]
    return {"query": record.query, "answer": record.references[0],
            "tokens": [tokenizer.decode([token]) for token in needle.ids], "answer_tokens": [needle.first, needle.last],
            "similarity": similarity.tolist(), "nearest": nearest}


def plot_needle(path: Path, found: dict[str, Any]) -> None:
    """One document as a heat map with the words that its embeddings are near, and all documents as a curve."""
    figure = style.new_figure(13, 7.6)
    heat, curve = figure.subplots(2, 1, height_ratios=(1.15, 1))
    _heat_map(figure, heat, found["example"])
    _curve(curve, found["around"])
    asked, other = (dict(zip(*found["around"][way].values(), strict=True))[0] for way in WAYS)
    style.head(figure, f"Likeness of the memory to the answer's tokens: {asked:.2f} when asked for it, "
               f"{other:.2f} when not",
               "Cosine of memory embeddings with the generator's embeddings of the document's tokens. Curve: the "
               f"embeddings' largest, mean of n = {found['n']} documents.")
    style.save(figure, path)


def plot_memory(path: Path, example: dict[str, Any]) -> None:
    """One document as a heat map: which of its tokens each embedding resembles, and which words it is near."""
    figure = style.new_figure(13, 4.6)
    _heat_map(figure, figure.subplots(), example)
    style.head(figure, "What the memory of one document resembles",
               "Cosine of each memory embedding with the generator's embeddings of the document's tokens, around the "
               "answer (marked).")
    style.save(figure, path)


def _heat_map(figure: Any, axes: Axes, example: dict[str, Any]) -> None:
    first, last = example["answer_tokens"]
    start, stop = max(0, first - WINDOW_TOKENS), last + WINDOW_TOKENS + 1
    shown = [row[start:stop] for row in example["similarity"]]
    tokens = [_token(text) for text in example["tokens"][start:stop]]
    shades = LinearSegmentedColormap.from_list("memory", ["white", style.COLOURS["scaledown"]])
    image = axes.imshow(shown, aspect="auto", cmap=shades, vmin=0, interpolation="nearest")
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=9, color=style.INK)
    for place in range(first - start, last - start + 1):
        axes.get_xticklabels()[place].set(color=style.COLOURS["full_text"], fontweight="bold")
    for edge in (first - start - 0.5, last - start + 0.5):
        axes.axvline(edge, color=style.COLOURS["full_text"], linewidth=1.2)
    axes.set_yticks(range(len(shown)), [str(number + 1) for number in range(len(shown))], fontsize=9)
    axes.set_ylabel("memory embedding", fontsize=9, color=style.QUIET)
    axes.tick_params(length=0)
    question = shown_text.label(example["query"], QUESTION_COLUMNS)
    answer = shown_text.label(example["answer"], ANSWER_COLUMNS)
    axes.set_title(f'"{question}"  (answer: {answer})', loc="left", fontsize=11, color=style.INK)
    near = axes.secondary_yaxis("right")
    near.set_yticks(range(len(shown)), ["  ".join(_token(each["token"]) for each in row)
                                        for row in example["nearest"]], fontsize=9, color=style.QUIET)
    near.tick_params(length=0)
    # Below its list: above it a long question would run into it.
    axes.text(1.008, -0.03, "nearest in the vocabulary", transform=axes.transAxes, va="top", fontsize=9,
              color=style.INK)
    for spine in [*axes.spines.values(), *near.spines.values()]:
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, fraction=0.015, pad=0.01, label="cosine").outline.set_visible(False)


def _token(text: str) -> str:
    return shown_text.label(text, TOKEN_COLUMNS) or "\N{OPEN BOX}"


def _curve(axes: Axes, around: dict[str, Any]) -> None:
    style.quiet(axes, grid="y")
    axes.axvspan(-0.5, 0.5, color=style.shade(style.COLOURS["full_text"], 0.18), zorder=0)
    for number, (way, label) in enumerate(WAYS.items()):
        line = around[way]
        axes.plot(line["distance_tokens"], line["cosine"], color=COLOURS[way], linewidth=2, marker="o", markersize=3.5)
        axes.text(0.99, 0.93 - 0.11 * number, f"\N{BLACK CIRCLE} {label}", transform=axes.transAxes, ha="right",
                  fontsize=11, fontweight="bold", color=COLOURS[way])
    axes.set_xlabel("tokens before (-) and after (+) the answer; 0: inside it", fontsize=9, color=style.QUIET)
    axes.set_ylabel("cosine", fontsize=9, color=style.QUIET)
    axes.set_xlim(-WINDOW_TOKENS - 0.5, WINDOW_TOKENS + 0.5)
    axes.margins(y=0.15)

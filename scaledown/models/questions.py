"""Questions with their documents, as users give them."""

from __future__ import annotations

from collections.abc import Sequence


def checked(questions: Sequence[str], documents: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """``documents``, where they go together with ``questions``.

    Raises:
        ValueError: for a string where a list of them belongs, or lists of different lengths.
    """
    if isinstance(questions, str) or any(isinstance(each, str) for each in documents):
        raise ValueError("questions is a list of strings, and documents has one list of strings for each of them")
    if len(questions) != len(documents):
        raise ValueError(f"{len(questions)} questions, but documents for {len(documents)}")
    return documents


def by_size(questions: Sequence[str], documents: Sequence[Sequence[str]]) -> list[int]:
    """Numbers of the questions, short texts first, so that what is answered together is of like length."""
    sizes = [len(question) + sum(map(len, each)) for question, each in zip(questions, documents, strict=True)]
    return sorted(range(len(questions)), key=sizes.__getitem__)

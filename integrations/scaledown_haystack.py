"""ScaleDown in Haystack: a component that answers a query from documents, which it compresses itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from haystack import Document, component

from scaledown import ScaleDownModel


@component
class ScaleDownReader:
    """Answer a query from memory of its documents.

    It takes the place of a ranker, a prompt builder and a generator: memory tokens cannot pass from one to the next.

    Args:
        checkpoint: a folder, a Hub id, or one that ships; a pipeline loads it in ``warm_up`` and saves its name.
        keep_documents: read this number of best documents, or "auto" those above the checkpoint's threshold [all].
        options: others of ``ScaleDownModel.answer_with_sources``.
    """

    def __init__(self, checkpoint: str, keep_documents: int | str | None = None,
                 options: dict[str, Any] | None = None) -> None:
        self.checkpoint, self.keep_documents, self.options = checkpoint, keep_documents, options
        self._model: ScaleDownModel | None = None

    def warm_up(self) -> None:
        """Load the model, once."""
        if self._model is None:
            self._model = ScaleDownModel.from_pretrained(self.checkpoint)

    @component.output_types(replies=list[str], documents=list[Document])
    def run(self, query: str, documents: list[Document]) -> dict[str, Any]:
        """Return one reply, and the documents that were read for it, in that order, with their scores."""
        self.warm_up()
        # Documents of images have no text to read.
        given = [document for document in documents if document.content is not None]
        texts = [{"id": each.id, "title": each.meta.get("title"), "text": each.content} for each in given]
        answer = self._model.answer_with_sources(query, texts, keep_documents=self.keep_documents,
                                                 **(self.options or {}))

        # A long document stands there once for each of its passages; its best one counts.
        scores: dict[int, float | None] = {}
        for place, number in enumerate(answer.documents):
            score = answer.scores[place] if answer.scores else given[number].score
            known = scores.get(number)
            scores[number] = score if known is None or score is None else max(known, score)
        read = [dataclasses.replace(given[number], score=score) for number, score in scores.items()]
        return {"replies": [answer.text], "documents": read}

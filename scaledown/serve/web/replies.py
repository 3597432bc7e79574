"""Replies in the forms that clients read: OpenAI's chat completions, and rankings as Cohere, Jina and TEI have them."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from scaledown.models.serving.question_answering import Answer
from scaledown.serve.web.forms import RerankForm
from scaledown.serve.work.jobs import Ending, Opening, Scores

DONE = "data: [DONE]\n\n"


class Completion:
    """A chat completion, whole or in chunks; all parts share an id and a time.

    Args:
        model: the name that the client knows.
    """

    def __init__(self, model: str) -> None:
        self._about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, opening: Opening, ending: Ending) -> dict[str, Any]:
        """Return the reply that is not streamed."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ending.reason}
        return {**self._about, "object": "chat.completion", "choices": [choice], "usage": usage(opening, ending),
                "scaledown": sources(opening.read)}

    def chunk(self, delta: dict[str, str], reason: str | None = None, **more: Any) -> dict[str, Any]:
        """Return one chunk of a stream: what is new, and in the last one the reason for the end."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._about, "object": "chat.completion.chunk", "choices": [choice], **more}

    def usage_chunk(self, opening: Opening, ending: Ending) -> dict[str, Any]:
        """Return the chunk behind the last one, if the client asked for the usage."""
        return {**self._about, "object": "chat.completion.chunk", "choices": [], "usage": usage(opening, ending)}


def event(body: dict[str, Any]) -> str:
    """Return a body as an event of a stream.

    Raises:
        ValueError: if it has a number that is no JSON, which whole replies refuse, too.
    """
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"


def usage(opening: Opening, ending: Ending) -> dict[str, int]:
    """Return the numbers of tokens; a prompt counts as the generator reads it, with memory in place of documents."""
    return {"prompt_tokens": opening.num_prompt_tokens, "completion_tokens": ending.num_tokens,
            "total_tokens": opening.num_prompt_tokens + ending.num_tokens,
            "full_text_prompt_tokens": opening.num_full_text_tokens}


def sources(read: Answer) -> dict[str, Any]:
    """Return what was read for an answer, in the order of the prompt: passages of documents, with their scores."""
    found = []
    for place, document in enumerate(read.documents):
        start, end = read.spans[place]
        score = None if read.scores is None else read.scores[place]
        found.append({"document": document, "id": read.document_ids[place], "passage": read.passages[place],
                      "start": start, "end": end, "score": score, "is_text": document in read.text_documents})
    return {"sources": found}


def ranking(form: RerankForm, found: Scores, model: str) -> dict[str, Any]:
    """Return the reply to ``/v1/rerank``: the best documents first."""
    results = []
    for number in found.order[:form.top_n]:
        result: dict[str, Any] = {"index": number, "relevance_score": found.scores[number]}
        if form.return_documents:
            result["document"] = form.documents[number].as_dict()
        results.append(result)
    return {"id": f"rerank-{uuid.uuid4().hex}", "object": "list", "model": model, "results": results,
            "usage": {"prompt_tokens": found.num_tokens, "total_tokens": found.num_tokens}}


def plain_ranking(form: RerankForm, found: Scores) -> list[dict[str, Any]]:
    """Return the reply to ``/rerank``, as text-embeddings-inference has it."""
    results = []
    for number in found.order[:form.top_n]:
        result: dict[str, Any] = {"index": number, "score": found.scores[number]}
        if form.return_documents:
            result |= form.documents[number].as_dict()
        results.append(result)
    return results

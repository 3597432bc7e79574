"""ScaleDown in FlashRAG: a refiner, which hands the best documents on as text, or answers by itself.

A refiner's result goes into the prompt of FlashRAG's own generator, so it is text: memory tokens cannot pass from one
model to another. This file imports nothing of FlashRAG, whose pipelines need only ``name``, ``input_prompt_flag`` and
``batch_run`` of a refiner.
"""

from __future__ import annotations

from typing import Any

from scaledown.models.serving.inputs.user_input import check_number


class ScaleDownRefiner:
    """Refine what was retrieved for each question of a FlashRAG dataset, as ``pipeline.refiner``.

    Attributes:
        name: under which FlashRAG knows it.
        input_prompt_flag: FlashRAG's question whether it refines whole prompts; it refines documents.
    """

    name = "scaledown"
    input_prompt_flag = False

    def __init__(self, model: Any, top_n: int = 3) -> None:
        """Keep the ``top_n`` best documents of a question; ``model`` was trained with ``--enable_reranking``.

        Raises:
            ValueError: if ``top_n`` is no whole number above 0.
        """
        # As a slice takes it, -1 would leave out the last document.
        check_number("top_n", top_n)
        self.model, self.top_n = model, top_n

    def batch_run(self, dataset: Any, batch_size: int = 8) -> list[str]:
        """Return the best documents of each question, best first, as FlashRAG's prompts have them."""
        questions, documents = _read(dataset)
        refined = []
        for of_question, (order, _) in zip(documents, self.model.rerank(questions, documents, batch_size),
                                           strict=True):
            lines = []
            for place, number in enumerate(order[:self.top_n], 1):
                document = of_question[number]
                lines.append(f"Doc {place}(Title: {document['title']}) {document['text']}\n")
            refined.append("".join(lines))
        return refined

    def run(self, item: Any) -> str:
        """Return the best documents of one question, as :meth:`batch_run`."""
        return self.batch_run([item])[0]

    def answer(self, dataset: Any, **options: Any) -> list[str]:
        """Return the answers of ScaleDown itself, for ``dataset.update_output("pred", ...)``: no other generator."""
        return self.model.answer(*_read(dataset), **options)


def _read(dataset: Any) -> tuple[list[str], list[list[dict[str, str]]]]:
    """Return the questions, and the documents of each: the first line of FlashRAG's ``contents`` is the title."""
    questions, documents = [], []
    for item in dataset:
        questions.append(item.question)
        of_item = []
        for each in item.retrieval_result:
            title, _, text = each["contents"].partition("\n")
            of_item.append({"id": each.get("id"), "title": title, "text": text})
        documents.append(of_item)
    return questions, documents

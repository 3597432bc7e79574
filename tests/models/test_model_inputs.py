"""What a user hands to a model: everything that cannot be read is refused, with its place."""

from __future__ import annotations

import pytest
import tiny

from scaledown.config import ScaleDownConfig
from scaledown.models.model import ScaleDownModel

HALF = "a\ud83d"
QUESTIONS, DOCUMENTS = ["who?", "where?"], [["Ada."], []]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny.generator_folder(tmp_path_factory.mktemp("generator"))
    return ScaleDownModel(ScaleDownConfig(generator_model=folder, num_memory_tokens=2, enable_reranking=True))


@pytest.mark.parametrize("questions, documents, message", [
    ("who?", DOCUMENTS, "questions is a list of strings"),
    (QUESTIONS, "Ada.", "questions is a list of strings"),
    (QUESTIONS, [["Ada."]], "2 questions, but documents for 1"),
    ([None, "where?"], DOCUMENTS, r"questions\[0\] must be a string, got NoneType None"),
    (QUESTIONS, [["Ada.", None], [7]], r"documents\[0\]\[1\] must be .*NoneType None; documents\[1\]\[0\] .* int 7"),
    (QUESTIONS, [{"title": "A", "text": "B"}, []], r"documents\[0\] must be a list of strings, got dict"),
    (QUESTIONS, [[("A", "B")], []], r"documents\[0\]\[0\] must be a string, got tuple"),
    (QUESTIONS, ["Ada.", []], r"documents\[0\] must be a list of strings, got str 'Ada.'"),
    (QUESTIONS, [None, []], r"documents\[0\] must be a list of strings, got NoneType"),
    ([HALF, "where?"], DOCUMENTS, r"questions\[0\] holds half a character \('\\ud83d', character 2\)"),
    (QUESTIONS, [[HALF], []], r"documents\[0\]\[0\] holds half a character"),
    (QUESTIONS, [[None] * 7, []], r"documents\[0\]\[4\] must .*; and 2 more"),
])
def test_what_is_no_text_is_refused_with_its_place(model, questions, documents, message):
    for read in (model.answer, model.answer_with_sources, model.compress, model.prefill_text, model.prompt_embeds,
                 lambda *given: model.answer(*given, stream=True)):
        with pytest.raises(ValueError, match=message):
            read(questions, documents)


def test_reranking_checks_its_documents(model):
    for documents, message in (("Ada.", r"documents\[0\] must be a list"), ([None], r"documents\[0\]\[0\] must be")):
        with pytest.raises(ValueError, match=message):
            model.rerank("who?", documents)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.0}, {"batch_size": True},
                                      {"max_new_tokens": 0}, {"max_new_tokens": 1.5}, {"max_new_tokens": None},
                                      {"keep_documents": 0}, {"keep_documents": 1.5}, {"keep_documents": [1]}])
def test_numbers_count_something(model, settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name} must be a whole number above 0"):
        model.answer(QUESTIONS, DOCUMENTS, **settings)

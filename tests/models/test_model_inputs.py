"""What a user hands to a model: questions and documents in every form, and all that cannot be read, with its place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch

from scaledown.config import ScaleDownConfig
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.inputs.documents import read_document
from scaledown.models.serving.inputs.user_input import read_input
from scaledown.prompt.passages import Paragraph, PassageSplitter

HALF = "a\ud83d"
QUESTIONS, DOCUMENTS = ["who?", "where?"], [["Ada."], []]
NO_DOCUMENT = "must be a string, a dict with a text, or an object with page_content, got"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny.generator_folder(tmp_path_factory.mktemp("generator"))
    torch.manual_seed(0)
    return ScaleDownModel(ScaleDownConfig(generator_model=folder, num_memory_tokens=2, enable_reranking=True))


def test_one_question_has_one_answer(model):
    """A string in the place of a list: everywhere the result is the only one of the list's."""
    question, documents = "Who was born in London?", ["Ada Lovelace was born in London.", "Oslo"]
    memory = model.compress([question], [documents])
    alone = model.compress(question, documents)
    assert torch.equal(alone.embeddings, memory.embeddings) and alone.origin == memory.origin

    settings = {"max_new_tokens": 5}
    answer, = model.answer([question], [documents], **settings)
    assert answer and isinstance(answer, str)
    for found in (model.answer(question, documents, **settings), model.answer(question, memory=memory, **settings),
                  model.answer_with_sources(question, documents, **settings).text,
                  "".join(piece.text for piece in model.answer(question, documents, stream=True, **settings)),
                  *model.decode(model.prefill(question, memory), 5)):
        assert found == answer
    assert model.answer(question, max_new_tokens=3) == model.answer([question], max_new_tokens=3)[0]
    assert model.rerank([question, "?"], [documents, []]) == [model.rerank(question, documents), ([], [])]
    assert model.decode(model.prefill_text(question, documents), 3) == model.decode(
        model.prefill_text([question], [documents]), 3)
    assert torch.equal(model.prompt_embeds(question, documents), model.prompt_embeds([question], [documents])[0])


@pytest.mark.parametrize("value, text, name", [
    ("Oslo", "Oslo", None),
    ({"text": "Oslo"}, "Oslo", None),
    ({"content": "Oslo", "title": "Norway", "score": 0.5}, "Norway. Oslo", None),
    ({"page_content": "Oslo", "id": 7}, "Oslo", "7"),
    ({"text": "Oslo", "metadata": {"title": " A  town ", "source": "a.txt"}}, "A town. Oslo", "a.txt"),
    ({"text": "", "title": "Norway"}, "Norway.", None),
    (SimpleNamespace(page_content="Oslo", metadata={"source": "b.txt"}, id=None), "Oslo", "b.txt"),
    (SimpleNamespace(page_content="Oslo", metadata={"source": "b.txt", "id": "m"}), "Oslo", "m"),
    (SimpleNamespace(page_content="Oslo", metadata={"id": "m", "title": "Norway"}, id="own"), "Norway. Oslo", "own"),
    (SimpleNamespace(page_content="Oslo", metadata=None), "Oslo", None),
])
def test_documents_in_every_form(value, text, name):
    document = read_document(value)
    assert document.text == text
    assert document.id == name if name else document.id.startswith("sha256:")
    assert document.id == read_document(value).id and (name or document.id != read_document(text + "!").id)


def test_titles_stand_before_texts_as_in_records():
    splitter = PassageSplitter(lambda texts: [len(text.split()) for text in texts], 16)
    (passage,), = splitter.split([Paragraph("a", " The  town", "Oslo is\na town.")], [[]])
    assert passage.document == read_document({"title": " The  town", "text": "Oslo is a town."}).text


def test_sources_carry_ids(model):
    documents = [{"text": "Oslo", "id": "a"}, "Paris", SimpleNamespace(page_content="Rome", metadata={"source": "c"})]
    memory = model.compress("where?", documents)
    order, _ = model.rerank("where?", documents)
    wanted = ["a", read_document("Paris").id, "c"]
    for given in ({"documents": documents}, {"memory": memory}):
        answer = model.answer_with_sources("where?", max_new_tokens=1, **given)
        assert answer.documents == (0, 1, 2) and answer.document_ids == tuple(wanted)
        best = model.answer_with_sources("where?", max_new_tokens=1, keep_documents=2, **given)
        assert best.documents == tuple(order[:2]) and best.document_ids == tuple(wanted[at] for at in order[:2])


@pytest.mark.parametrize("questions, documents, message", [
    ("who?", DOCUMENTS, rf"document 0: {NO_DOCUMENT} list \['Ada.'\]; the documents of one question are one list"),
    ("who?", "Ada.", "the documents must be a list, got str 'Ada.'"),
    (7, [], "questions must be a list, got int 7"),
    (QUESTIONS, "Ada.", "documents must be a list, got str"),
    (QUESTIONS, ["Ada.", "Oslo"], r"documents\[0\] is one document, str 'Ada.'.*documents=\[documents\] \* len\(ques"),
    (QUESTIONS, [["Ada."]], "2 questions, but documents for 1"),
    ([None, "where?"], DOCUMENTS, "question 0: must be a string, got NoneType None"),
    (QUESTIONS, [["Ada.", None], [7]], rf"document 1 of question 0: {NO_DOCUMENT} N.*; document 0 of q.* 1: .*int 7"),
    (QUESTIONS, [{"title": "A", "text": "B"}, []], r"documents\[0\] is one document, dict"),
    (QUESTIONS, [[("A", "B")], []], rf"document 0 of question 0: {NO_DOCUMENT} tuple"),
    (QUESTIONS, [["Ada."], "Oslo"], r"documents\[1\] is one document, str 'Oslo'"),
    (QUESTIONS, [None, []], "the documents of question 0 must be a list, got NoneType"),
    (QUESTIONS, [["Ada.", {"body": "B"}], []],
     "document 1 of question 0: must have its text under one of text, content, page_content; it has body"),
    (QUESTIONS, [[{"text": 7}], []], "document 0 of question 0: its text must be a string, got int 7"),
    (QUESTIONS, [[{"text": "B", "title": 7}], []], "document 0 of question 0: its title must be a string, got int 7"),
    ([HALF, "where?"], DOCUMENTS, r"question 0: holds half a character \('\\ud83d', character 2\)"),
    (QUESTIONS, [[HALF], []], r"document 0 of question 0: holds half a character"),
    (QUESTIONS, [[None] * 7, []], r"document 4 of question 0: must .*; and 2 more"),
])
def test_what_is_no_text_is_refused_with_its_place(model, questions, documents, message):
    for read in (model.answer, model.answer_with_sources, model.compress, model.prefill_text, model.prompt_embeds,
                 model.rerank, lambda *given: model.answer(*given, stream=True)):
        with pytest.raises(ValueError, match=message):
            read(questions, documents)


def test_documents_that_are_read_ahead_are_checked(model):
    with pytest.raises(ValueError, match=f"document 1: {NO_DOCUMENT} NoneType"):
        model.read_documents(["Oslo", None])


def test_what_was_given_stays_as_it_was():
    documents = [[{"text": "Oslo", "title": "Norway"}]]
    given = read_input(["where?"], documents)
    assert given.documents == [["Norway. Oslo"]] and documents == [[{"text": "Oslo", "title": "Norway"}]]
    assert not given.is_one and read_input("where?").documents == [[]]


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.0}, {"batch_size": True},
                                      {"max_new_tokens": 0}, {"max_new_tokens": 1.5}, {"max_new_tokens": None},
                                      {"keep_documents": 0}, {"keep_documents": 1.5}, {"keep_documents": [1]}])
def test_numbers_count_something(model, settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name} must be a whole number above 0"):
        model.answer(QUESTIONS, DOCUMENTS, **settings)


def test_bars_are_drawn_if_asked_for(model, capsys):
    model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=1)
    assert "answering" not in capsys.readouterr().err
    model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=1, show_progress_bar=True)
    assert "answering: 100%" in capsys.readouterr().err
    model.compress("who?", ["Ada", "Oslo"], show_progress_bar=True)
    assert "2/2" in capsys.readouterr().err

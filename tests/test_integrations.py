"""The adapters give other libraries what the model itself gives; each against the real library, if it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from types import SimpleNamespace

import guides
import pytest

from scaledown import ScaleDownModel

GUIDE = guides.ROOT / "docs" / "INTEGRATIONS.md"
STEPS = [step for step in guides.steps(GUIDE) if step.is_python]
LIBRARIES = ("langchain_core", "llama_index.core", "haystack")
TEXTS = ["Fenoni Works sells clocks. The firm is based in Kelhaven.", "Gartonby lies on the Pelara.",
         "Gartonby elected Sarik Ulmer as mayor.", "Kelhaven has 768 inhabitants.", "The Pelara is a river."]
QUESTION = "Who is the mayor of Gartonby?"


def need(library: str) -> None:
    if importlib.util.find_spec(library.split(".")[0]) is None:
        pytest.skip(f"{library} is not installed: pip install -r integrations/requirements.txt")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture(scope="module")
def model():
    return ScaleDownModel.from_pretrained("embedded")


@pytest.mark.parametrize("step", STEPS, ids=["langchain", "llama_index", "haystack", "flashrag"])
def test_the_guides_examples_run_and_show_what_it_says(step):
    for library in LIBRARIES:
        if f"from {library}" in step.text:
            need(library)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(step.text, step.file, "exec"), {"__name__": "guide"})
    assert step.output and shown.getvalue() == step.output
    assert len([line for line in step.text.splitlines() if line.strip()]) <= 20


def test_a_chat_model_of_langchain_answers_as_the_model_and_names_what_it_read(model):
    need("langchain_core")
    from langchain_core.documents import Document
    from langchain_core.messages import HumanMessage, SystemMessage

    from integrations.scaledown_langchain import ScaleDownChat

    chat = ScaleDownChat(model=model)
    documents = [Document(page_content=text, id=str(number)) for number, text in enumerate(TEXTS)]
    for question in (QUESTION, "Where is Fenoni Works based?"):
        assert chat.invoke(question, documents=documents).content == model.answer(question, TEXTS)
    messages = [SystemMessage("Be brief."), HumanMessage(QUESTION)]
    found = chat.bind(documents=documents, keep_documents=2).invoke(messages)
    assert found.response_metadata["document_ids"] == [
        *model.answer_with_sources(QUESTION, documents, keep_documents=2).document_ids]
    assert chat.invoke(QUESTION, documents=documents, stop=["Ul"]).content == "Sarik "
    # Without documents the generator is asked alone, as in answer().
    assert chat.invoke(QUESTION).content == model.answer(QUESTION, [])


def test_a_compressor_of_langchain_keeps_the_best_and_changes_nothing(model):
    need("langchain_core")
    from langchain_core.documents import Document

    from integrations.scaledown_langchain import ScaleDownCompressor

    documents = [Document(page_content=text, metadata={"source": str(number)}) for number, text in enumerate(TEXTS)]
    order, scores = model.rerank(QUESTION, TEXTS)
    kept = ScaleDownCompressor(model=model, top_n=2).compress_documents(documents, QUESTION)
    assert [document.metadata["source"] for document in kept] == [str(number) for number in order[:2]]
    assert [document.metadata["relevance_score"] for document in kept] == pytest.approx(
        [scores[number] for number in order[:2]])
    assert all("relevance_score" not in document.metadata for document in documents)
    assert list(ScaleDownCompressor(model=model).compress_documents([], QUESTION)) == []
    with pytest.raises(ValueError, match="top_n must be a whole number above 0, got -1"):
        ScaleDownCompressor(model=model, top_n=-1)


def test_the_steps_of_llama_index_order_and_answer_as_the_model(model):
    need("llama_index.core")
    from llama_index.core.schema import NodeWithScore, TextNode

    from integrations.scaledown_llama_index import ScaleDownPostprocessor, ScaleDownQueryEngine

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(number), metadata={"title": f"T{number}"}), score=0.5)
             for number, text in enumerate(TEXTS)]
    documents = [{"title": f"T{number}", "text": text} for number, text in enumerate(TEXTS)]
    order, scores = model.rerank(QUESTION, documents)
    kept = ScaleDownPostprocessor(model=model, top_n=2).postprocess_nodes(nodes, query_str=QUESTION)
    assert [(each.node.node_id, each.score) for each in kept] == [
        (str(number), pytest.approx(scores[number])) for number in order[:2]]
    with pytest.raises(ValueError, match="top_n must be a whole number above 0, got 0"):
        ScaleDownPostprocessor(model=model, top_n=0)
    with pytest.raises(ValueError, match="pass query_str"):
        ScaleDownPostprocessor(model=model).postprocess_nodes(nodes)

    retriever = SimpleNamespace(retrieve=lambda query: nodes)
    response = ScaleDownQueryEngine(retriever=retriever, model=model).query(QUESTION)
    assert str(response) == model.answer(QUESTION, documents)
    assert [each.node.node_id for each in response.source_nodes] == ["0", "1", "2", "3", "4"]


def test_a_reader_of_haystack_answers_as_the_model_and_comes_back_from_yaml(model):
    need("haystack")
    from haystack import Document, Pipeline

    from integrations.scaledown_haystack import ScaleDownReader

    documents = [Document(content=text) for text in TEXTS]
    pipeline = Pipeline()
    pipeline.add_component("reader", ScaleDownReader("embedded", keep_documents=2, options={"max_new_tokens": 8}))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["integrations.scaledown_haystack"])
    for each in (pipeline, again):
        found = each.run({"reader": {"query": QUESTION, "documents": [*documents, Document(content=None)]}})["reader"]
        wanted = model.answer_with_sources(QUESTION, TEXTS, keep_documents=2, max_new_tokens=8)
        assert found["replies"] == [wanted.text]
        assert [TEXTS.index(document.content) for document in found["documents"]] == list(wanted.documents)
        assert [document.score for document in found["documents"]] == pytest.approx(list(wanted.scores))
    assert all(document.score is None for document in documents)


def test_a_refiner_hands_on_the_best_and_answers_as_the_model(model):
    from integrations.scaledown_flashrag import ScaleDownRefiner

    results = [{"contents": f"T{number}\n{text}"} for number, text in enumerate(TEXTS)]
    dataset = [SimpleNamespace(question=question, retrieval_result=results)
               for question in (QUESTION, "Where is Fenoni Works based?")]
    documents = [{"title": f"T{number}", "text": text} for number, text in enumerate(TEXTS)]
    refiner = ScaleDownRefiner(model, top_n=2)
    for item, text in zip(dataset, refiner.batch_run(dataset), strict=True):
        best, second = model.rerank(item.question, documents)[0][:2]
        assert text == f"Doc 1(Title: T{best}) {TEXTS[best]}\nDoc 2(Title: T{second}) {TEXTS[second]}\n"
        assert refiner.run(item) == text
    with pytest.raises(ValueError, match="top_n must be a whole number above 0, got -1"):
        ScaleDownRefiner(model, top_n=-1)
    assert refiner.answer(dataset) == model.answer([item.question for item in dataset], [documents] * 2)

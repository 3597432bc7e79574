"""Documents of any length: split into passages that are read whole, chosen by their scores, and cited."""

from __future__ import annotations

import logging

import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.records import Record
from scaledown.models.loading.memory_origin import MemoryOrigin, MemoryPassage
from scaledown.models.memory import Memory
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.choosing import documents_to_keep, rankings
from scaledown.models.serving.inputs import long_documents
from scaledown.models.serving.inputs.documents import read_document
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import read_input
from scaledown.prompt.plain_text import plain_ids
from scaledown.training import run

QUESTION = "Who was born in London?"
SENTENCES = [f"Place {number} is a town in Norway, and Ada was born in {1800 + number}." for number in range(12)]
LONG = " ".join(SENTENCES)
SHORT = "Oslo is\na  town."
TITLED = {"title": "The capital", "text": "\n".join(SENTENCES), "id": "towns"}


def build(folder, **settings):
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(folder / "generator"), num_memory_tokens=3,
                                           **{"num_layers": 2, "enable_reranking": True} | settings))
    tiny.move_adapter(model)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("model"))


def parts(model, documents, way="split"):
    given, passages = split_input(model.processor, read_input(QUESTION, documents), way)
    return given.documents[0], passages[0]


def num_tokens(model, texts):
    return list(map(len, plain_ids(model.processor.compressor_tokenizer, texts)))


@pytest.mark.parametrize("document, title", [(LONG, ""), (TITLED, "The capital. ")])
def test_passages_fit_begin_with_the_title_and_lose_nothing(model, document, title):
    texts, passages = parts(model, [document])
    assert len(texts) > 3 and max(num_tokens(model, texts)) <= model.config.document_tokens == 48
    assert all(text.startswith(title) for text in texts)
    assert " ".join(text.removeprefix(title) for text in texts) == LONG
    assert [passage.number for passage in passages] == list(range(len(texts)))
    # Sentences stay whole, and spans point into the text as it was given.
    body = document if isinstance(document, str) else document["text"]
    for text, passage in zip(texts, passages, strict=True):
        assert " ".join(body[passage.start:passage.end].split()) == text.removeprefix(title)
        assert text.endswith(".")


def test_what_fits_stays_as_it_is(model):
    assert parts(model, [SHORT, {"title": "A", "text": SHORT}]) == (
        [SHORT, f"A. {SHORT}"], (MemoryPassage(0, 0, 0, 16), MemoryPassage(1, 0, 0, 16)))
    exactly = "a.\na" + " a" * 44
    assert num_tokens(model, [exactly]) == [48] and parts(model, [exactly])[0] == [exactly]
    # Two more, of which the line break that becomes a space saves one.
    longer, _ = parts(model, [exactly + " a a"])
    assert len(longer) == 2 and " ".join(longer) == "a. a" + " a" * 46


@pytest.mark.parametrize("text", ["x" * 900, "\N{GRINNING FACE}" * 90, "</s>" * 60, "東京は首都。" * 40])
def test_words_without_an_end_fit_too(model, text):
    texts, _ = parts(model, [{"title": "word " * 90, "text": text}])
    assert max(num_tokens(model, texts)) <= 48
    assert len(texts) > 1 and sum(found.count(text[0]) for found in texts) >= text.count(text[0])


def test_long_white_space_is_one_passage(model):
    assert parts(model, [" \n" * 300]) == ([""], (MemoryPassage(0, 0, 0, 600),))
    assert len(parts(model, [{"title": "word " * 90, "text": ""}])[0]) == 1


def test_a_document_and_its_passages_have_the_same_memory(model):
    whole = model.compress(QUESTION, [TITLED, SHORT, LONG])
    texts, _ = parts(model, [TITLED, SHORT, LONG])
    given = model.compress(QUESTION, texts)
    assert torch.equal(whole.embeddings, given.embeddings) and torch.equal(whole.scores, given.scores)
    assert whole.num_documents.tolist() == [len(texts)]


@pytest.mark.parametrize("settings", [{"input_order": "document_first"}, {}])
def test_stores_and_caches_know_passages(tmp_path, settings):
    model = build(tmp_path, **settings)
    wanted = model.compress(QUESTION, [TITLED, LONG])
    cache = MemoryCache()
    for _ in range(2):
        found = model.compress(QUESTION, [TITLED, LONG], cache=cache)
        assert torch.equal(found.embeddings, wanted.embeddings) and found.origin == wanted.origin
    assert cache.hits == cache.misses == wanted.num_documents.item()

    if settings:
        store = model.read_documents([TITLED, LONG])
        assert len(store) == wanted.num_documents.item()
        found = model.compress(QUESTION, [TITLED, LONG], store=store)
        assert len(store) == wanted.num_documents.item()
        torch.testing.assert_close(found.embeddings, wanted.embeddings)


def test_with_cut_only_the_start_is_read(model, caplog):
    memory = model.compress(QUESTION, [TITLED, SHORT], long_documents="cut")
    assert memory.embeddings.shape[1] == 2 and not memory.origin.has_split_documents
    read = memory.origin.passages[0][0]
    assert read[:3] == (0, 0, 0)
    start = {"title": "The capital", "text": TITLED["text"][:read.end]}
    assert torch.equal(model.compress(QUESTION, [start, SHORT]).embeddings, memory.embeddings)
    longer = {"title": "The capital", "text": TITLED["text"][:read.end + 8]}
    assert not torch.equal(model.compress(QUESTION, [longer, SHORT]).embeddings[:, :2], memory.embeddings)

    # A model may have another way than split.
    model.long_documents = "cut"
    try:
        assert torch.equal(model.compress(QUESTION, [TITLED, SHORT]).embeddings, memory.embeddings)
    finally:
        del model.long_documents


def test_it_is_told_once(tmp_path, caplog):
    model = build(tmp_path)
    caplog.set_level(logging.WARNING)
    model.compress(QUESTION, [SHORT])
    assert not caplog.messages
    for _ in range(2):
        model.compress(QUESTION, [LONG])
    assert caplog.messages == ["documents longer than 48 tokens are read as passages (the first such as "
                               f"{len(parts(model, [LONG])[0])}); long_documents cut reads their start alone; said "
                               "once"]
    caplog.clear()
    model.compress(QUESTION, [LONG], long_documents="cut")
    assert "long_documents split reads all of them" in caplog.text and len(caplog.messages) == 1


def scored(scores, passages, num_memory=3):
    """A memory with these scores, of one question, whose texts stand at (document, number)."""
    places = tuple(MemoryPassage(document, number, 0, 1) for document, number in passages)
    ids = tuple(str(document) for document, _ in passages)
    origin = MemoryOrigin("model", (QUESTION,), (ids,), 48, (places,))
    return Memory(torch.zeros(1, len(scores), num_memory, 4), torch.tensor([scores]), torch.tensor([len(scores)]),
                  origin)


def test_the_best_passages_are_kept_in_the_order_of_the_text():
    scores, places = [1.0, 5.0, 2.0, 7.0, 3.0], [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    split, whole = scored(scores, places), scored(scores, [(number, 0) for number in range(5)])
    assert documents_to_keep(split, 3, None) == [[1, 3, 4]]
    assert documents_to_keep(whole, 3, None) == [[3, 1, 4]]
    assert documents_to_keep(split, "auto", 2.5) == [[1, 3, 4]]
    assert documents_to_keep(split, "auto", 9.0) == [[3]]
    assert documents_to_keep(split, None, None) == [[0, 1, 2, 3, 4]]
    assert rankings(split) == [([1, 0, 2], [5.0, 7.0, 3.0])]


def test_a_budget_counts_memory_and_separators():
    memory = scored([1.0, 5.0, 2.0], [(0, 0), (0, 1), (1, 0)])
    for budget, wanted in ((3, [1]), (6, [1]), (7, [1, 2]), (10, [1, 2]), (11, [0, 1, 2]), (99, [0, 1, 2])):
        assert documents_to_keep(memory, None, None, budget) == [wanted]
        kept = len(wanted)
        assert kept * 3 + kept - 1 <= budget
    assert documents_to_keep(memory, 1, None, 99) == documents_to_keep(memory, 2, None, 3) == [[1]]
    # With up to 8 tokens of numbers behind each: 11 tokens and a separator.
    assert documents_to_keep(memory, None, None, 22, keep_numbers=8) == [[1]]
    assert documents_to_keep(memory, None, None, 23, keep_numbers=8) == [[1, 2]]


def test_prompts_keep_to_the_budget(model):
    documents = [TITLED, SHORT]
    alone = model.prefill(QUESTION, model.compress(QUESTION, [])).num_prompt_tokens[0]
    answer = model.answer_with_sources(QUESTION, documents, keep_tokens=15, max_new_tokens=1)
    assert len(answer.documents) == 4
    memory = model.compress(QUESTION, documents)
    kept = memory.keep(documents_to_keep(memory, None, None, 15))
    assert model.prefill(QUESTION, kept).num_prompt_tokens[0] == alone + 15
    assert answer == model.answer_with_sources(QUESTION, memory=memory, keep_tokens=15, max_new_tokens=1)


def test_answers_cite_documents_passages_and_spans(model):
    documents = [SHORT, TITLED, {"text": LONG, "id": "again"}]
    answer = model.answer_with_sources(QUESTION, documents, max_new_tokens=2)
    _, passages = parts(model, documents)
    assert answer.documents == tuple(passage.document for passage in passages)
    assert answer.passages == tuple(passage.number for passage in passages)
    assert answer.spans == tuple((passage.start, passage.end) for passage in passages)
    assert len(answer.scores) == len(answer.document_ids) == len(passages)
    assert {answer.document_ids[at] for at, document in enumerate(answer.documents) if document == 1} == {"towns"}

    best = model.answer_with_sources(QUESTION, documents, max_new_tokens=2, keep_documents=2)
    order = sorted(range(len(passages)), key=lambda number: -answer.scores[number])[:2]
    assert best.scores == tuple(answer.scores[number] for number in sorted(order))
    assert best.spans == tuple(answer.spans[number] for number in sorted(order))

    # The ranking is of documents: each as its best passage.
    order, scores = model.rerank(QUESTION, documents)
    for number, score in enumerate(scores):
        assert score == max(answer.scores[at] for at, document in enumerate(answer.documents) if document == number)
    assert sorted(order) == [0, 1, 2]


def test_memory_keeps_its_passages_on_disk_and_old_files_load(model, tmp_path, monkeypatch):
    memory = model.compress([QUESTION, "where"], [[TITLED, SHORT], [LONG]])
    memory.save(tmp_path)
    loaded = Memory.load(tmp_path)
    assert loaded.origin == memory.origin and "documents and passages (" in repr(loaded)
    kept = loaded.select([1]).keep([[2, 0]])
    assert kept.origin.passages == ((memory.origin.passages[1][2], memory.origin.passages[1][0]),)
    asked = {"max_new_tokens": 2, "keep_documents": 2}
    assert model.answer_with_sources([QUESTION, "where"], memory=loaded, **asked) == model.answer_with_sources(
        [QUESTION, "where"], [[TITLED, SHORT], [LONG]], **asked)

    # A file from before documents were split.
    old = model.compress(QUESTION, [SHORT, "Paris"])
    object.__setattr__(old.origin, "passages", None)
    old.save(tmp_path / "old")
    found = Memory.load(tmp_path / "old")
    assert found.origin.passages is None
    answer = model.answer_with_sources(QUESTION, memory=found, max_new_tokens=1)
    assert answer.documents == (0, 1) and answer.passages is None is answer.spans


def test_text_is_read_whole_or_cut(model):
    def length(documents, **settings):
        return model.prefill_text(QUESTION, documents, **settings).num_prompt_tokens[0]

    empty = length([""])
    body = num_tokens(model, [LONG])[0]
    assert abs(length([LONG]) - empty - body) <= 2
    assert abs(length([LONG], long_documents="cut") - empty - 48) <= 2
    # The same budget: as many tokens as the memory of the passages has.
    texts, _ = parts(model, [LONG])
    assert abs(length([LONG], document_tokens=3) - empty - 3 * len(texts)) <= 2
    assert length([SHORT], document_tokens=3) == length([SHORT], document_tokens=3, long_documents="cut")


def test_a_model_of_text_reads_whole_documents(tmp_path):
    model = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(tmp_path / "generator"), num_memory_tokens=3,
                                           compressor_type="none"))
    answer = model.answer_with_sources(QUESTION, [SHORT, LONG], max_new_tokens=1)
    assert answer.spans == ((0, len(SHORT)), (0, len(LONG))) and answer.passages == (0, 0)
    cut = model.answer_with_sources(QUESTION, [SHORT, LONG], max_new_tokens=1, long_documents="cut")
    assert cut.spans[0] == (0, len(SHORT)) and 0 < cut.spans[1][1] < 200


def test_documents_beyond_a_stretch_are_read_in_several(model, monkeypatch):
    monkeypatch.setattr(long_documents, "STRETCH_CHARACTERS", 300)
    spans = long_documents._spans(LONG)
    assert len(spans) > 2 and spans[0][0] == 0 and spans[-1][1] == len(LONG)
    assert all(first[1] == second[0] for first, second in zip(spans, spans[1:], strict=False))
    assert all(LONG[start:end].rstrip().endswith(".") and end - start <= 300 for start, end in spans)
    texts, passages = parts(model, [LONG])
    assert " ".join(texts) == LONG and [passage.number for passage in passages] == list(range(len(texts)))
    assert all(LONG[passage.start:passage.end] == text for text, passage in zip(texts, passages, strict=True))
    assert long_documents._spans("x" * 700) == [(0, 300), (300, 600), (600, 700)]


@pytest.mark.parametrize("settings, message", [
    ({"long_documents": "both"}, "long_documents must be one of 'split', 'cut', got 'both'"),
    ({"keep_tokens": 2}, "keep_tokens must be a whole number of at least 3, the memory tokens of one document, got 2"),
    ({"keep_tokens": True}, "keep_tokens must be a whole number"),
])
def test_what_cannot_be_asked_is_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model.answer(QUESTION, [SHORT], **settings)


def test_a_memory_is_split_already(model):
    memory = model.compress(QUESTION, [SHORT])
    with pytest.raises(ValueError, match="long_documents is chosen when documents are compressed: give it to compress"):
        model.answer(QUESTION, memory=memory, long_documents="split")


def test_records_to_train_on_are_split_if_asked_for(model):
    record = Record("r", QUESTION, (SHORT, f"The capital. {LONG}", "Oslo"), "1803", reranking_scores=(1.0, 5.0, 2.0),
                    document_ids=("a", "b", "c"), titles=("", "The capital", ""))
    short = Record("s", QUESTION, (SHORT,), "Oslo")
    assert run.with_long_documents(model, [record, short], None) == [record, short]
    assert run.with_long_documents(model, [record, short], "cut") == [record, short]

    found, same = run.with_long_documents(model, [record, short], "split")
    texts, _ = parts(model, [SHORT, {"title": "The capital", "text": LONG}, "Oslo"])
    assert same == short and list(found.documents) == texts and all(len(of) == len(texts) for of in (
        found.document_ids, found.titles, found.reranking_scores))
    assert found.document_ids == ("a", *["b"] * (len(texts) - 2), "c")
    # The score of a whole document is of none of its passages.
    batch = model.processor.collate([found])
    assert batch["has_score"].tolist() == [True, *[False] * (len(texts) - 2), True]
    assert batch["teacher_scores"][[0, -1]].tolist() == [1.0, 2.0]
    assert sum(map(bool, found.stated_answers)) == 1


def test_a_document_that_begins_with_its_title_has_it_apart():
    record = Record("r", "q", ("A town. Oslo.", "Paris", "Rome. It is.", "Bonn.", "  B. c"), "x",
                    titles=("A  town", "France", "Rome", "Bonn", "B"))
    assert record.documents_with_titles == [{"title": "A  town", "text": "Oslo."}, "Paris",
                                            {"title": "Rome", "text": "It is."}, "Bonn.", "  B. c"]
    assert Record("r", "q", ("A", "B"), "x").documents_with_titles == ["A", "B"]
    assert [read_document(document).text for document in record.documents_with_titles] == list(record.documents)

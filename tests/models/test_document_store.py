"""The document before the query: the naive computation's values, and the same from documents that were read ahead."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_compressor as reading
import tiny
import torch
from torch import nn

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine.packing import PackedTexts, TextLists
from scaledown.models.model import ScaleDownModel
from scaledown.models.processor import Processor
from scaledown.models.serving import compressing
from scaledown.models.serving.disk.disk_store import DiskStore

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?", "</s><s>?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo"], [], ["Paris " * 40, "", "The capital of Norway is Oslo.",
             "Oslo"], ["<|im_end|> is text"]]
KINDS = ("n_layers", "llm", "modernbert")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    made = {family: tiny.generator_folder(root / family, family) for family in ("llama", "qwen3")}
    return made | {"encoder": tiny.encoder_folder(root / "encoder")}


def build(folders: dict[str, str], kind: str = "n_layers", **settings: object) -> ScaleDownModel:
    own = {"llm": "qwen3", "modernbert": "encoder"}
    if kind in own:
        settings |= {"compressor_model": folders[own[kind]], "mlp_width": 32}
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(
        generator_model=folders["llama"], compressor_type=kind, num_memory_tokens=3,
        **{"enable_reranking": True, "input_order": "document_first"} | settings))
    tiny.move_adapter(model)
    # Long ones in several passages: test_long_documents.py.
    model.long_documents = "cut"
    return model


def pairs() -> TextLists:
    """Each document of the compressor's tests first, then its query; the last two queries share their document."""
    documents, queries = [], []
    for query, of_query in zip(reading.QUERIES, reading.DOCUMENTS, strict=True):
        documents += of_query
        queries += [query] * len(of_query)
    suffixes = [[*query, 0, 0, 0, 0] for query in [*queries, reading.QUERIES[0]]]
    reads = [range(0)] * len(documents) + [range(len(ids) - 4, len(ids)) for ids in suffixes]
    return TextLists(documents, suffixes, [*range(len(documents)), len(documents) - 1], reads)


def alone(documents: list[list[int]]) -> PackedTexts:
    return TextLists(documents, [], [], [range(0)] * len(documents)).packed()


@pytest.mark.parametrize("kind", reading.CAUSAL)
@pytest.mark.parametrize("layout", reading.LAYOUTS)
@torch.no_grad()
def test_documents_read_ahead_give_what_reading_all_gives(layout: str, kind: str) -> None:
    family = layout.split(",")[0]
    base = tiny.generator(family, **reading.LAYOUTS[layout])
    compressor, embed = reading.CAUSAL[kind](base, family, reading.LAYOUTS[layout]), base.get_input_embeddings()
    texts = pairs()
    whole = compressor(texts.packed(), embed)
    stored = compressor.read_prefixes(alone(texts.prefixes), embed)
    ahead = compressor(texts.packed().behind(stored), embed)
    torch.testing.assert_close(ahead.embeddings, whole.embeddings, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ahead.scores, whole.scores, rtol=1e-5, atol=1e-5)

    # One after the other and unpadded, by transformers' own attention.
    rows = torch.cat([compressor.memory_rows, compressor.rerank_row])
    tokens = compressor.body.get_input_embeddings() if kind == "llm" else embed
    compressor.body.set_attn_implementation("eager")
    for number, (suffix, prefix) in enumerate(zip(texts.suffixes, texts.prefix, strict=True)):
        ids = torch.tensor([*texts.prefixes[prefix], *suffix[:-4]])
        states = compressor.body(inputs_embeds=torch.cat([tokens(ids), rows])[None],
                                 use_cache=False).last_hidden_state[0, -4:]
        wanted = getattr(compressor, "mlp", nn.Identity())(states[:3])
        torch.testing.assert_close(whole.embeddings[number], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["n_layers", "llm"])
def test_a_store_serves_any_question(folders: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(folders, kind)
    wanted = model.compress(QUESTIONS, DOCUMENTS)
    store = model.read_documents(list(itertools.chain.from_iterable(DOCUMENTS)))
    assert len(store) == 6 and store.num_bytes > 0
    monkeypatch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))
    counted: list[int] = []
    model.compressor.body.register_forward_pre_hook(
        lambda module, given, settings: counted.append(settings["inputs_embeds"].shape[1]), with_kwargs=True)
    for batch_size in (1, 3, 8):
        found = model.compress(QUESTIONS, DOCUMENTS, batch_size, store=store)
        torch.testing.assert_close(found.embeddings, wanted.embeddings, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-4, atol=1e-5)
    assert model.answer(QUESTIONS, memory=found, max_new_tokens=6) == model.answer(QUESTIONS, memory=wanted,
                                                                                   max_new_tokens=6)
    # Nothing but queries and memory tokens went through the decoder.
    queries = [len(ids) for ids in model.processor._query_suffixes(QUESTIONS)]
    wanted_tokens = sum((length + 4) * len(each) for length, each in zip(queries, DOCUMENTS, strict=True))
    assert sum(counted) == 3 * wanted_tokens
    other = model.compress(["Another question?"], [DOCUMENTS[2]], store=store)
    assert (other.embeddings[0] - wanted.embeddings[2]).abs().max() > 1e-3


def test_documents_that_are_missing_are_read_and_kept(folders: dict[str, str]) -> None:
    model = build(folders)
    store = model.read_documents(["Oslo", "Oslo"])
    assert len(store) == 1
    found = model.compress(QUESTIONS, DOCUMENTS, store=store)
    assert len(store) == 6
    torch.testing.assert_close(found.embeddings, model.compress(QUESTIONS, DOCUMENTS).embeddings, rtol=1e-4, atol=1e-5)
    assert len(model.read_documents([], store)) == 6 and len(model.read_documents([])) == 0
    assert model.compress([], [], store=store).embeddings.shape[0] == 0


@pytest.mark.parametrize("kind", ["n_layers", "llm"])
def test_a_document_without_text_is_stored_like_any_other(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = build(folders, kind)
    for store in (None, DiskStore(tmp_path)):
        # By itself, and beside one with text.
        for documents in ([""], ["", "Oslo"]):
            store = model.read_documents(documents, store=store)
            wanted = model.compress(QUESTIONS[0], documents)
            found = model.compress(QUESTIONS[0], documents, store=store)
            assert (found.embeddings - wanted.embeddings).abs().max() < 5e-3
        assert len(store) == 2


def test_a_stored_document_takes_its_keys_and_values_alone(folders: dict[str, str]) -> None:
    model = build(folders, num_layers=2)
    store = model.read_documents(["Ada Lovelace was born in London."])
    num_tokens, = (len(ids) for ids in model.processor.document_keys(["Ada Lovelace was born in London."]))
    assert store.num_bytes == 2 * 2 * num_tokens * 2 * 8 * 4  # layers, keys and values, tokens, heads, width, bytes


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_depends_on_its_question_alone(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = build(folders, kind)
    together = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6)
    alone = [model.answer([each], [documents], max_new_tokens=6)[0]
             for each, documents in zip(QUESTIONS, DOCUMENTS, strict=True)]
    assert alone == together and len(set(together)) > 1
    model.save_pretrained(tmp_path)
    loaded = ScaleDownModel.from_pretrained(tmp_path)
    assert loaded.config.input_order == "document_first"
    loaded.long_documents = "cut"
    assert loaded.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6) == together


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_without_waiting_for_the_device(folders: dict[str, str], kind: str) -> None:
    model = build(folders, kind, enable_reranking=False).train()
    records = [SimpleNamespace(query=query, documents=documents, answer="no")
               for query, documents in zip(QUESTIONS, DOCUMENTS, strict=True)]
    batch = model.processor.collate(records)
    tiny.total(model(batch)).backward()
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)
    tiny.total(model.to("meta")(batch)).backward()


def test_the_query_follows_as_the_prompt_puts_it() -> None:
    config = ScaleDownConfig(num_memory_tokens=2, compression_rate=8, query_tokens=4, input_order="document_first")
    own = Processor(tiny.tokenizer(), config)
    texts = own.compressor_texts(["who is it?", "q" * 99], [["Paris.", "d" * 99], ["Oslo."]])
    first = own.tokenizer.batch_decode(texts.prefixes)
    second = own.tokenizer.batch_decode([ids[:-2] for ids in texts.suffixes])
    assert first == ["<s>Paris."[len("<s>") if not own._start else 0:], *first[1:]] and first[2].endswith("Oslo.")
    assert second[0] == second[1] and second[0].startswith("\n\nQuestion: who") and "q" * 2 in second[2]
    assert len(texts.prefixes[1]) == len(own._start) + config.document_tokens
    longest = max(map(len, texts.suffixes))
    assert len(texts.suffixes[2]) == longest <= 2 + 4 + len(own.tokenizer("\n\nQuestion: ").input_ids)
    assert list(texts.prefix) == [0, 1, 2]
    encoder = Processor(tiny.tokenizer(), config, tiny.tokenizer(None, cls_token="[CLS]", sep_token="[SEP]"))
    texts = encoder.compressor_texts(["who?"], [["Ada"]])
    assert encoder.compressor_tokenizer.decode([*texts.prefixes[0], *texts.suffixes[0][:-2]]) == "[CLS]Ada[SEP]who?"


def test_mistakes_are_told(folders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="--input_order must be one of query_first, document_first, got 'both'"):
        ScaleDownConfig(input_order="both")
    for model in (build(folders, input_order="query_first"), build(folders, "modernbert")):
        with pytest.raises(ValueError, match="--input_order document_first"):
            model.read_documents(["Oslo"])
    model = build(folders)
    store = model.read_documents(["Oslo"])
    with torch.no_grad():
        model.compressor.memory_rows.add_(1.0)
    with pytest.raises(ValueError, match="read them again"):
        model.compress(QUESTIONS, DOCUMENTS, store=store)
    with pytest.raises(ValueError, match="another model"):
        build(folders, "llm").read_documents(["Oslo"], store)
    store = build(folders).read_documents(["Oslo"])
    assert len(build(folders).read_documents(["Oslo"], store)) == 1, "the same model, loaded again"
    with pytest.raises(ValueError, match="in another dtype: read them again"):
        build(folders).to(torch.bfloat16).read_documents(["Oslo"], store)


def test_what_is_no_memory_no_cache_and_no_store_is_told(folders: dict[str, str]) -> None:
    model = build(folders)
    for wrong, message in (({"memory": "saved.safetensors"}, "memory must be a Memory, got str .*Memory.load reads"),
                           ({"documents": ["Oslo"], "cache": {}}, "cache must be a MemoryCache, got dict")):
        with pytest.raises(ValueError, match=message):
            model.answer(QUESTIONS[0], **wrong)
    with pytest.raises(ValueError, match="memory must be a Memory"):
        model.prefill(QUESTIONS[0], "saved.safetensors")
    for wrong in ({"store": "store"}, {"cache": "cache"}):
        name, = wrong
        with pytest.raises(ValueError, match=f"{name} must be a (Store|MemoryCache), got str"):
            model.compress(QUESTIONS[0], ["Oslo"], **wrong)
    with pytest.raises(ValueError, match="store must be a Store"):
        model.read_documents(["Oslo"], "store")


@pytest.mark.parametrize("kind", ["n_layers", "llm"])
def test_a_document_of_several_questions_is_read_once(folders: dict[str, str], kind: str) -> None:
    """With the values and gradients of reading it for each."""
    model = build(folders, kind)
    shared = model.processor.compressor_texts(QUESTIONS, DOCUMENTS)
    assert list(shared.prefix) == [0, 1, 2, 3, 4, 1, 5] and len(shared.prefixes) == 6
    apart = TextLists([shared.prefixes[number] for number in shared.prefix], shared.suffixes,
                      list(range(len(shared.suffixes))), [range(0), *shared.reads])
    torch.manual_seed(1)
    weight, found = torch.randn(7, 3, tiny.WIDTH), []
    for texts in (shared, apart):
        model.zero_grad()
        compressed = model.compressor(texts.packed(), model.generator.embed)
        ((compressed.embeddings * weight).sum() + compressed.scores.sum()).backward()
        gradients = [each.grad for each in model.compressor.parameters() if each.grad is not None]
        found.append([compressed.embeddings, compressed.scores, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "order"), [("n_layers", "document_first"), ("n_layers", "query_first"),
                                             ("llm", "document_first"), ("modernbert", "query_first")])
def test_documents_of_several_passes_are_those_of_one(folders: dict[str, str], kind: str, order: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(folders, kind, input_order=order)
    expected = model.compress(QUESTIONS, DOCUMENTS)
    passes: list[int] = []

    def count(*arguments: object) -> None:
        passes.append(1)

    model.compressor.register_forward_pre_hook(count)
    # 7 documents in passes of 2: a question's documents are in several, and one pass has those of two questions.
    monkeypatch.setattr(compressing, "DOCUMENTS_AT_ONCE", 2)
    memory = model.compress(QUESTIONS, DOCUMENTS)

    assert len(passes) == 4
    torch.testing.assert_close(memory.embeddings, expected.embeddings, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory.scores, expected.scores, rtol=1e-4, atol=1e-5)
    if order == "document_first":
        stored = model.compress(QUESTIONS, DOCUMENTS, store=model.read_documents(["Oslo"]))
        torch.testing.assert_close(stored.embeddings, expected.embeddings, rtol=1e-4, atol=1e-5)

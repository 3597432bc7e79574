"""Documents as text beside the memory of others: nothing as text is as before, all as text is full text."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

import train
from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.config import EMBEDDED, TrainingConfig
from scaledown.data.records import Record, write_records
from scaledown.models.engine.packing import NEVER
from scaledown.models.processor import MEMORY, SEPARATOR, Processor
from scaledown.prompt.plain_text import plain_ids
from scaledown.training import run
from scaledown.training.batches import StepCollator, draw_text_documents

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo", "Paris is a town", "1815"], [],
             ["The capital is Oslo.", "no"]]
RECORDS = [Record("r0", QUESTIONS[0], tuple(DOCUMENTS[0]), "Ada", reranking_scores=(0.0, 1.0, 2.0, 3.0)),
           Record("r1", QUESTIONS[1], (), "Ada", reranking_scores=()),
           Record("r2", QUESTIONS[2], tuple(DOCUMENTS[2]), "Ada", reranking_scores=(0.0, 1.0))]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


def config(generator: str, **settings) -> ScaleDownConfig:
    values = {"num_layers": 2, "num_memory_tokens": 3, "enable_reranking": True, "lora_dropout": 0.0}
    return ScaleDownConfig(generator, **(values | settings))


def made(wanted: ScaleDownConfig) -> ScaleDownModel:
    torch.manual_seed(0)
    model = ScaleDownModel(wanted)
    tiny.move_adapter(model)
    return model


@pytest.fixture(scope="module")
def model(generator):
    return made(config(generator))


def test_none_as_text_is_as_before(model):
    plain = model.answer_with_sources(QUESTIONS, DOCUMENTS, max_new_tokens=5)
    assert model.answer_with_sources(QUESTIONS, DOCUMENTS, max_new_tokens=5, text_documents=0) == plain
    assert model.answer_with_sources(QUESTIONS, DOCUMENTS, max_new_tokens=5, text_documents=[[], [], []]) == [
        dataclasses.replace(answer, scores=None) for answer in plain]
    memory = model.compress(QUESTIONS, DOCUMENTS)
    texts = [[None] * len(documents) for documents in DOCUMENTS]
    assert model.prompts(QUESTIONS, memory, texts).embeddings.equal(model.prompts(QUESTIONS, memory).embeddings)
    assert all(answer.text_documents == () for answer in plain)


@pytest.mark.parametrize("name", ["tiny", EMBEDDED])
def test_all_as_text_is_full_text(name, generator):
    """The ids are those of a model without a compressor, whether its prompt is one chat text or tokenised in parts."""
    text_model = Processor(tiny.tokenizer(), ScaleDownConfig(EMBEDDED if name == EMBEDDED else generator,
                                                             compressor_type="none"))
    own = Processor(tiny.tokenizer(), config(EMBEDDED if name == EMBEDDED else generator, num_memory_tokens=8))
    # In a chat text an empty document's line break is of one token with those before the question.
    long = [["Ada " * 200, *DOCUMENTS[0], ""], DOCUMENTS[2]]
    asked = [QUESTIONS[0], QUESTIONS[2]]
    found = own.memory_prompts(asked, [0, 0], texts=long)
    assert found == text_model.text_prompts(asked, long)
    cut = [ids[:own.config.document_tokens] for ids in plain_ids(own.tokenizer, long[0])]
    apart = own.prompt.of_texts(asked[0], cut)
    assert (found[0] == apart) == (name == EMBEDDED)


def test_all_as_text_answers_like_full_text(model):
    asked, documents = [QUESTIONS[0], QUESTIONS[2]], [DOCUMENTS[0], DOCUMENTS[2]]
    full = model.prefill_text(asked, documents, with_adapter=True)
    wanted = model.decode(full, 5)
    assert wanted != model.answer(asked, documents, max_new_tokens=5)
    for texts in (4, 9, [[0, 1, 2, 3], [0, 1]]):
        assert model.answer(asked, documents, max_new_tokens=5, text_documents=texts) == wanted
    found = model.prompt_embeds(asked, documents, text_documents=4)
    assert [len(each) for each in found] == full.num_prompt_tokens
    assert found[0].equal(full.embeddings[0]) and found[1].equal(full.embeddings[1, -len(found[1]):])


def test_a_model_without_scores_may_read_everything_as_text(generator):
    silent = made(config(generator, enable_reranking=False))
    wanted = silent.decode(silent.prefill_text(QUESTIONS[0], DOCUMENTS[0], with_adapter=True), 5)
    assert [silent.answer(QUESTIONS[0], DOCUMENTS[0], text_documents=4, max_new_tokens=5)] == wanted
    assert silent.answer(QUESTIONS[0], DOCUMENTS[0], text_documents=[1], max_new_tokens=5)
    with pytest.raises(ValueError, match=r"--enable_reranking, or name the documents: text_documents=\[0, 2\]"):
        silent.answer(QUESTIONS[0], DOCUMENTS[0], text_documents=3)


def test_texts_stand_in_their_places(model):
    """Memory, text, text, memory: the trained separator everywhere but between two texts, which a line break parts."""
    ids, = model.processor.memory_prompts(["who?"], [2], texts=[[None, "Oslo", "1815", None]])
    tokenizer, prompt = model.processor.tokenizer, model.processor.prompt
    oslo, line_break, year = plain_ids(tokenizer, ["Oslo", "\n", "1815"])
    memory = [MEMORY] * 3
    documents = [*memory, SEPARATOR, *oslo, *line_break, *year, SEPARATOR, *memory]
    assert ids == [*prompt.start, *documents, *prompt.branch("who?")]


def test_embeddings_are_those_of_tokens_and_memory(model):
    memory = model.compress("who?", ["Ada", "Paris"])
    found = model.prompts("who?", memory, [[None, "Oslo", None]]).embeddings[0]
    ids, = model.processor.memory_prompts(["who?"], [2], texts=[[None, "Oslo", None]])
    rows = iter(memory.embeddings[0].flatten(0, 1))
    for place, token in enumerate(ids):
        expected = next(rows) if token == MEMORY else model.generator.separator_row[0]
        if token >= 0:
            expected = model.generator.embed(torch.tensor(token))
        assert found[place].allclose(expected)
    assert next(rows, None) is None


def test_the_best_are_read_as_text_in_the_order_given(model):
    scores = [model.rerank(question, each)[0] for question, each in zip(QUESTIONS, DOCUMENTS, strict=True)]
    answers = model.answer_with_sources(QUESTIONS, DOCUMENTS, text_documents=3, max_new_tokens=5, batch_size=2)
    best = [sorted(ranking[:3]) for ranking in scores]
    assert best[0] != scores[0][:3], "else the order would not show"
    for number, answer in enumerate(answers):
        assert answer.documents == tuple(range(len(DOCUMENTS[number]))) and len(answer.scores) == len(DOCUMENTS[number])
        assert answer.text_documents == tuple(best[number])
    texts = [answer.text for answer in answers]
    assert model.answer(QUESTIONS, DOCUMENTS, text_documents=best, max_new_tokens=5) == texts
    assert texts != model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=5)
    pieces = list(model.answer(QUESTIONS[0], DOCUMENTS[0], text_documents=3, max_new_tokens=5, stream=True))
    assert "".join(piece.text for piece in pieces).strip() == texts[0]


def test_of_those_kept_the_best_are_read_as_text_best_first(model):
    ranking, scores = model.rerank(QUESTIONS[0], DOCUMENTS[0])
    answer = model.answer_with_sources(QUESTIONS[0], DOCUMENTS[0], keep_documents=3, text_documents=1, max_new_tokens=5)
    assert answer.documents == tuple(ranking[:3]) and answer.text_documents == (ranking[0],)
    assert answer.scores == pytest.approx([scores[number] for number in ranking[:3]], abs=1e-5)
    kept = [DOCUMENTS[0][number] for number in ranking[:3]]
    assert answer.text == model.answer(QUESTIONS[0], kept, text_documents=[0], max_new_tokens=5)


def test_named_texts_are_not_compressed(model, monkeypatch):
    compressed = []
    original = model.processor.compressor_texts

    def noted(questions, documents, *rest):
        compressed.extend(documents)
        return original(questions, documents, *rest)

    monkeypatch.setattr(model.processor, "compressor_texts", noted)
    answers = model.answer_with_sources(QUESTIONS, DOCUMENTS, text_documents=[[3, 1], [], [0]], max_new_tokens=2,
                                        batch_size=1)
    assert sorted(compressed) == sorted([[DOCUMENTS[0][0], DOCUMENTS[0][2]], [], ["no"]])
    assert [answer.text_documents for answer in answers] == [(1, 3), (), (0,)] and answers[0].scores is None
    assert answers[0].documents == (0, 1, 2, 3) and len(answers[0].document_ids) == 4


def test_memory_serves_beside_its_documents(model):
    memory = model.compress(QUESTIONS, DOCUMENTS)
    for texts in (1, [[2], [], [0, 1]]):
        wanted = model.answer_with_sources(QUESTIONS, DOCUMENTS, text_documents=texts, max_new_tokens=5)
        assert model.answer_with_sources(QUESTIONS, DOCUMENTS, memory, text_documents=texts, max_new_tokens=5) == wanted
    same = model.answer(QUESTIONS, memory=memory, max_new_tokens=5)
    assert model.answer(QUESTIONS, memory=memory, text_documents=0, max_new_tokens=5) == same


@pytest.mark.parametrize(("texts", "message"), [
    (-1, "at least 0, got -1"), (True, "a number of documents"), ("1", "a number of documents"),
    ([[0], []], "3 questions, but text_documents for 2"), ([0, 1, 1], "a list of such lists"),
    ([[4], [0], [1]], r"question 0 has no documents \[4\].*question 1 has no documents \[0\], only 0")])
def test_what_cannot_be_text_is_refused(model, texts, message):
    with pytest.raises(ValueError, match=message):
        model.answer(QUESTIONS, DOCUMENTS, text_documents=texts)


def test_contradictions_are_refused(model):
    memory = model.compress(QUESTIONS, DOCUMENTS)
    with pytest.raises(ValueError, match="not both, unless text_documents"):
        model.answer(QUESTIONS, DOCUMENTS, memory)
    with pytest.raises(ValueError, match="needs the documents, also beside their memory"):
        model.answer(QUESTIONS, memory=memory, text_documents=1)
    with pytest.raises(ValueError, match="names some: give text_documents as a number"):
        model.answer(QUESTIONS, DOCUMENTS, keep_documents=1, text_documents=[[0], [], []])
    with pytest.raises(ValueError, match=r"there are \[3, 0, 2\] for the questions, and memory of \[4, 0, 2\]"):
        model.answer(QUESTIONS, [DOCUMENTS[0][:3], *DOCUMENTS[1:]], memory, text_documents=1)
    with pytest.raises(ValueError, match="the documents of question 2 are not those of its memory"):
        model.answer(QUESTIONS, [*DOCUMENTS[:2], ["The capital is Oslo.", "yes"]], memory, text_documents=1)
    with pytest.raises(ValueError, match=r"texts leave \[1\] places for memory, and there is memory of \[2\]"):
        model.prompts("who?", model.compress("who?", ["Ada", "Oslo"]), [[None, "Rome"]])


# Training


@torch.no_grad()
def test_the_loss_is_that_of_the_mixed_prompt(model):
    """All documents are compressed and scored; the answer is predicted from texts in the places that were drawn."""
    chosen = [[1, 3], [], [0]]
    batch, plain = (model.processor.collate(RECORDS, text_documents=texts) for texts in (chosen, None))
    assert batch["in_prompts"].tolist() == [0, 2, 5]
    found, before = model(batch), model(plain)
    assert found.reranking_loss.equal(before.reranking_loss) and not found.answer_loss.equal(before.answer_loss)

    losses = []
    memory = model.compress(QUESTIONS, DOCUMENTS)
    for number, texts in enumerate(([None, "Oslo", None, "1815"], [], [DOCUMENTS[2][0], None])):
        answer = model.processor.answer_ids("Ada")
        from_memory = memory.select([number]).keep([[place for place, text in enumerate(texts) if text is None]])
        prompt = model.prompts([QUESTIONS[number]], from_memory, [texts]).embeddings
        embeddings = torch.cat([prompt, model.generator.embed(torch.tensor([answer[:-1]]))], dim=1)
        logits = model.generator.base(inputs_embeds=embeddings).logits[0, prompt.shape[1] - 1:]
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none").tolist()
    assert found.answer_loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_memory_of_a_text_learns_from_its_score_alone(model):
    record = Record("a", "who?", ("Ada", "Oslo"), "Ada")
    for texts, is_read in (([[0, 1]], False), ([[0]], True)):
        model.zero_grad()
        model(model.processor.collate([record], text_documents=texts)).answer_loss.backward()
        gradient = model.compressor.memory_rows.grad
        assert (gradient is not None and gradient.abs().sum() > 0) == is_read


def test_readout_is_trained_whatever_is_text(model):
    plain, mixed = (model.processor.collate(RECORDS, with_readout=True, text_documents=texts)
                    for texts in (None, [[0], [], [1]]))
    assert mixed["readout_targets"].equal(plain["readout_targets"])
    assert model(mixed).readout_loss.equal(model(plain).readout_loss)


def steps(number: int) -> list[list[Record]]:
    """Records for steps that differ in their queries alone."""
    found = []
    for step in range(number):
        found.append([dataclasses.replace(record, query=f"{record.query} {step}") for record in RECORDS])
    return found


def test_draws_are_of_all_documents_and_the_same_again():
    drawn = [draw_text_documents(records, (0, 1, 3)) for records in steps(60)]
    assert drawn == [draw_text_documents(records, (0, 1, 3)) for records in steps(60)]
    assert all(texts[1] == [] and texts[0] == sorted(set(texts[0])) for texts in drawn)
    numbers = [len(texts[0]) for texts in drawn]
    assert set(numbers) == {0, 1, 3} and min(map(numbers.count, (0, 1, 3))) >= 10
    assert [len(texts[2]) for texts in drawn] == [min(number, 2) for number in numbers]
    ones = [texts[0][0] for texts in drawn if len(texts[0]) == 1]
    assert set(ones) == {0, 1, 2, 3}
    assert draw_text_documents(RECORDS, None) is None


def test_all_processes_and_micro_batches_draw_alike(model):
    settings = TrainingConfig(batch_size=4, train_text_documents=(1, 2))
    parts = dataclasses.replace(settings, gradient_accumulation_steps=2)
    for records in steps(5):
        records = [*records, Record("more", "who came?", ("Ada came", "Bob", "Oslo"), "Ada")]
        whole, = StepCollator(model.processor, settings)(records)
        expected = texts_of(whole)
        shared = [None] * 4
        for rank in (0, 1):
            for number, part in enumerate(StepCollator(model.processor, parts, None, rank, 2)(records)):
                shared[2 * number + rank], = texts_of(part)
        assert shared == expected


def texts_of(parcel) -> list[list[int]]:
    """The prompts with answers of a batch, as lists of ids."""
    batch = parcel.unpacked("cpu")
    lengths = (batch["prompts"].packing.prefixes.positions != NEVER).sum(1).tolist()
    return [part.tolist() for part in batch["prompts"].ids.split(lengths)]


def test_a_run_with_texts_trains_and_is_refused_where_it_means_nothing(generator, tmp_path, capsys):
    write_records(tmp_path / "data.json", RECORDS)
    flags = ["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--batch_size", "2",
             "--num_memory_tokens", "2", "--max_steps", "2", "--output_dir", str(tmp_path / "run"),
             "--train_text_documents"]
    assert train.main([*flags, "0", "1", "-1"]) == 2
    assert "--train_text_documents 0 1 -1: expected numbers of at least 0" in capsys.readouterr().err
    assert train.main([*flags, "1", "--compressor_type", "none"]) == 2
    assert "--train_text_documents belongs to a compressor" in capsys.readouterr().err
    assert train.main([*flags, "1", "--compile"]) == 2
    assert "--train_text_documents 1 would give batches of many shapes" in capsys.readouterr().err
    assert train.main([*flags, "0", "2"]) == 0
    assert "train_text_documents" not in dataclasses.asdict(ScaleDownConfig.load(tmp_path / "run" / "final"))


def test_training_with_texts_teaches_to_read_them(generator):
    """One question and two documents: after a few steps the answer is read from the text, which memory cannot give."""
    model = made(config(generator, enable_reranking=False))
    records = [Record(f"r{number}", "who?", (name, "and no more"), name) for number, name in enumerate(("Ada", "Oslo"))]
    batch = model.processor.collate(records, text_documents=[[0], [0]])
    optimizer = torch.optim.AdamW(model.train().parameter_groups(1e-2, 0.0, 0.0))
    for _ in range(40):
        optimizer.zero_grad()
        model(batch).answer_loss.backward()
        optimizer.step()
    model.eval()
    questions, documents = ["who?"] * 2, [list(record.documents) for record in records]
    assert model.answer(questions, documents, text_documents=[[0], [0]], max_new_tokens=4) == ["Ada", "Oslo"]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="--train_text_documents"):
        TrainingConfig(train_text_documents=())
    assert run.THRESHOLDS.keys() == {"keep_threshold", "expand_threshold"}

"""What is computed: answers as they grow, their costs, what was kept, and the look into memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scaledown import ScaleDownModel
from scaledown.demo import timed_answer
from scaledown.demo.answer_flops import answer_flops
from scaledown.demo.asking import MOST_DOCUMENTS, MOST_LOOKS, ReadPassage, ask, looked_into
from scaledown.demo.box_text import documents_in
from scaledown.demo.memory_look import look_into, segments_of
from scaledown.demo.samples import LONG_ANSWER, LONG_QUESTION, samples_for
from scaledown.demo.timed_answer import GrowingText

QUESTION = "Who is the mayor of Gartonby?"
DOCUMENTS = ["Fenoni Works sells clocks. The firm is based in Kelhaven.",
             "Gartonby lies on the Pelara. It has 768 inhabitants. Gartonby elected Sarik Ulmer as mayor."]


@pytest.fixture(scope="module")
def model() -> ScaleDownModel:
    return ScaleDownModel.from_pretrained("embedded", device="cpu")


@pytest.fixture(scope="module")
def states(model):
    return list(ask(model, QUESTION, DOCUMENTS))


@pytest.mark.parametrize("keep", [None, 1, "auto"])
def test_all_systems_answer_as_the_model_does(model, keep):
    *_, last = ask(model, f"  {QUESTION}\n", DOCUMENTS, keep)
    texts = {name: answer.text for name, answer in last.answers.items()}
    full_text = model.prefill_text(QUESTION, DOCUMENTS)
    nothing = model.prefill_text(QUESTION, [])
    assert texts == {"scaledown": model.answer(QUESTION, DOCUMENTS, keep_documents=keep),
                     "full_text": model.decode(full_text, 32)[0], "no_documents": model.decode(nothing, 32)[0]}
    assert texts["scaledown"] == "Sarik Ulmer"

    # The generator reads what was kept, and the numbers are those of its prompts.
    kept = [passage.name for passage in last.passages if passage.is_kept]
    assert kept == (["Document 1", "Document 2"] if keep is None else ["Document 2"])
    memory = model.compress(QUESTION, DOCUMENTS).keep([[0, 1] if keep is None else [1]])
    prompts = model.prompts(QUESTION, memory)
    counted = {name: answer.num_prompt_tokens for name, answer in last.answers.items()}
    assert counted == {"scaledown": prompts.num_prompt_tokens[0], "full_text": full_text.num_prompt_tokens[0],
                       "no_documents": nothing.num_prompt_tokens[0]}
    assert last.answers["full_text"].num_new_tokens == full_text.num_new_tokens[0]


def test_answers_grow_one_after_another_and_end_with_their_costs(states):
    assert states[0].answers == {} and len(states[0].passages) == 2
    grown: dict[str, list[str]] = {}
    for state in states:
        for name, answer in state.answers.items():
            if answer.text not in grown.setdefault(name, []):
                grown[name].append(answer.text)
    assert list(grown) == ["scaledown", "full_text", "no_documents"]
    assert grown["scaledown"][0] == "" and len(grown["scaledown"]) > 3
    for texts in grown.values():
        assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))

    for name, answer in states[-1].answers.items():
        seconds = answer.seconds
        assert answer.has_ended and answer.flops is not None
        assert seconds.compress + seconds.prompt < seconds.first_token <= seconds.whole
        assert (seconds.compress > 0) is (answer.flops.compress > 0) is (name == "scaledown")


def test_seconds_are_those_of_the_clock(model, monkeypatch):
    """A clock that moves one second whenever it is read: prompt, first token and end are read one after another."""
    times = iter(range(100))
    monkeypatch.setattr(timed_answer, "now", lambda model: float(next(times)))
    memory = model.compress(QUESTION, DOCUMENTS)
    *_, last = timed_answer.growing_answer(model, timed_answer.System("x", lambda model, questions, documents, memory:
                                           model.prefill(questions, memory)), QUESTION, DOCUMENTS, memory, 10.0)
    assert last.seconds == timed_answer.AnswerSeconds(compress=10.0, prompt=1.0, first_token=12.0, whole=13.0)


def test_flops_are_worked_out_by_hand(model):
    """The demo's generator: 9 layers of width 128 and 4 * 128^2 + 3 * 128 * 256 weights, 2,048 entries."""
    layer, pairs = 4 * 128**2 + 3 * 128 * 256, 6 * 57 + 6 * 7 / 2
    answer = GrowingText("no_documents", num_prompt_tokens=58, num_new_tokens=6)
    flops = answer_flops(model, answer, 10, [20, 30])
    assert flops.compress == 0
    assert flops.decode == 2 * (9 * layer + 128 * 2048) * 6 + 4 * 9 * 128 * pairs

    # From memory it costs more a token, for the adapter, and compressing grows with what is compressed.
    memory = dataclasses.replace(answer, system="scaledown")
    fewer, more = (answer_flops(model, memory, 10, tokens) for tokens in ([20, 30], [20, 30, 25]))
    assert more.decode == fewer.decode > flops.decode
    assert more.compress > 1.3 * fewer.compress > 0


def test_a_long_document_is_read_in_passages_of_which_the_right_one_is_kept(model):
    [document] = documents_in(samples_for("embedded")[-1].box)
    *_, last = ask(model, LONG_QUESTION, [document], "auto")
    assert last.answers["scaledown"].text == LONG_ANSWER
    [kept] = [passage for passage in last.passages if passage.is_kept]
    assert LONG_ANSWER in kept.text and kept.name.startswith("Document 1, passage ")
    assert document["text"][slice(*kept.place)].split() == kept.text.split()
    assert len([passage for passage in last.passages if passage.look]) == MOST_LOOKS < len(last.passages)
    assert kept.look is not None


def test_a_prompt_beyond_what_the_generator_was_made_for_is_said(model):
    station = "Station lies on the line to Kelhaven. Trains stop there twice a day."
    long = [" ".join([station] * 70) for _ in range(3)]
    *_, last = ask(model, QUESTION, [*DOCUMENTS, *long], 1)
    assert last.answers["scaledown"].text == "Sarik Ulmer" and not last.answers["scaledown"].fault
    assert "made for 4,096" in last.answers["full_text"].note and last.answers["full_text"].has_ended
    assert not last.answers["no_documents"].note


def test_a_system_that_cannot_answer_says_why_and_the_others_answer(model, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("too long")

    monkeypatch.setattr(type(model), "prefill_text", refuse)
    *_, last = ask(model, QUESTION, DOCUMENTS)
    assert last.answers["scaledown"].text == "Sarik Ulmer" and not last.answers["scaledown"].fault
    assert [last.answers[name].fault for name in ("full_text", "no_documents")] == ["too long"] * 2
    assert last.answers["full_text"].has_ended


def test_a_checkpoint_without_scores_keeps_all():
    model = ScaleDownModel.from_pretrained("embedded_modernbert", device="cpu")
    *_, last = ask(model, QUESTION, DOCUMENTS)
    assert [(passage.score, passage.is_kept) for passage in last.passages] == [(None, True)] * 2
    assert last.threshold is None and last.passages[0].look is not None
    with pytest.raises(ValueError, match="no reranking head"):
        list(ask(model, QUESTION, DOCUMENTS, 1))


@pytest.mark.parametrize(("question", "documents", "keep", "message"), [
    (" \n", DOCUMENTS, None, "Question: type one"),
    (QUESTION, [], None, "Documents: paste at least one"),
    (QUESTION, ["a"] * (MOST_DOCUMENTS + 1), None, "101 are too many"),
    (QUESTION, ["word " * 30_000], None, "this page takes 20,000"),
    ("word " * 30_000, DOCUMENTS, None, "this page takes 20,000"),
    (QUESTION, DOCUMENTS, 0, "keep_documents must be"),
])
def test_what_cannot_be_asked_is_told_before_anything_is_computed(model, monkeypatch, question, documents, keep,
                                                                  message):
    monkeypatch.setattr(type(model), "compress", lambda *_, **__: pytest.fail("compressed"))
    with pytest.raises(ValueError, match=message):
        next(ask(model, question, documents, keep))


def test_kept_passages_are_looked_into_first_then_the_best():
    passages = [ReadPassage(str(number), "", None, score=float(number), is_kept=number in (0, 3))
                for number in range(20)]
    assert looked_into(passages) == [3, 0, *range(19, 9, -1)]
    unscored = [dataclasses.replace(passage, score=None, is_kept=True) for passage in passages]
    assert looked_into(unscored) == list(range(MOST_LOOKS))


def test_a_memory_that_is_a_tokens_embedding_is_nearest_to_it_and_hot_there(model):
    """Its first embedding is that of "Ulmer"'s first token, its second the opposite of another one."""
    text, tokenizer = "Gartonby elected Sarik Ulmer as mayor.", model.processor.tokenizer
    table = model.generator.base.get_input_embeddings().weight.detach()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    hot = next(place for place, token in enumerate(ids) if "Ul" in tokenizer.decode([token]))
    look = look_into(torch.stack([3 * table[ids[hot]], -table[ids[0]]]), text, tokenizer, table)

    assert "".join(segment.text for segment in look.segments) == text
    tokens = [segment for segment in look.segments if segment.cosines]
    assert len(tokens) == len(ids)
    assert tokens[hot].cosines[0] == pytest.approx(1) and tokens[0].cosines[1] == pytest.approx(-1)
    assert max(range(len(ids)), key=lambda place: tokens[place].cosines[0]) == hot
    assert look.highest == pytest.approx(1)
    assert look.nearest[0][0].text == tokenizer.decode([ids[hot]])
    assert look.nearest[0][0].cosine == pytest.approx(1)
    assert look.nearest[0][1].cosine < 0.99


def test_segments_are_the_whole_text_whatever_tokens_cover():
    """Two tokens for one character, a gap before the first and behind the last."""
    segments = segments_of(" a\u20acb!", [(1, 2), (2, 3), (2, 3), (3, 4)], [[.1, .5], [.2, .3], [.4, .1], [.6, .7]])
    assert segments == [(" ", ()), ("a", (.1, .5)), ("\u20ac", (.4, .3)), ("b", (.6, .7)), ("!", ())]
    assert segments_of("ab", [(0, 0)], [[.1]]) == [("ab", ())]
    assert segments_of("", [], []) == []

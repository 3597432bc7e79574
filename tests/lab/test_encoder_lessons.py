"""The lessons of a new encoder: the generator's vocabulary, and pointing at the answer."""

from __future__ import annotations

import dataclasses
import re

import pytest
import tiny
import torch

from lab.smollm2 import pointing
from lab.smollm2.imitation import with_encoder
from lab.smollm2.lesson_plan import model_config
from lab.smollm2.pointing import UNSTATED_PLACE, Pointer, learn_to_point, pointing_inputs
from lab.smollm2.two_vocabularies import TwoVocabularies
from lab.smollm2.vocabulary import learn_vocabulary
from scaledown import ScaleDownModel
from scaledown.data.records import Record
from scaledown.models.losses import IGNORED
from scaledown.prompt.plain_text import plain_ids

OLD = Record("old", "When was Ada born?", ("Ada was born in Rome in 1815.", "Bob was born in Oslo."), "in Rome in 1815")
RECORDS = [OLD, Record("town", "Where was Bob born?", ("Bob was born in Oslo.", "Ada was born in Rome."), "Oslo")]


@pytest.fixture
def model(tmp_path) -> ScaleDownModel:
    torch.manual_seed(0)
    generator = tiny.generator_folder(tmp_path / "generator", tie_word_embeddings=True)
    larger = ScaleDownModel(model_config(generator))
    return with_encoder(larger, tiny.encoder_folder(tmp_path / "encoder"), seed=1)


@pytest.fixture
def words(model) -> TwoVocabularies:
    return TwoVocabularies(model.processor.compressor_tokenizer, model.processor.tokenizer)


def test_each_piece_of_a_word_stands_for_a_token_of_that_word(model, words):
    text = OLD.documents[0]
    spans = words.piece_spans(text)
    [ids] = plain_ids(model.processor.compressor_tokenizer, [text])
    assert len(spans) == len(ids)

    tokens = words.tokens_of(text, spans)
    num_said = 0
    for word in re.finditer(r"\S+", text):
        own = [token for (start, end), token in zip(spans, tokens, strict=True)
               if start < word.end() and end > word.start()]
        [of_word] = plain_ids(model.processor.tokenizer, [f" {word[0]}"])
        # The k-th piece says the k-th token, and pieces beyond the tokens say none.
        expected = of_word[:len(own)]
        assert own == expected + [IGNORED] * (len(own) - len(expected))
        num_said += len(expected)
    assert num_said >= len(text.split())


def test_the_pieces_of_an_answer_are_where_it_stands(words):
    text = OLD.documents[0]
    spans = words.piece_spans(text)
    pieces = words.pieces_of("rome  in", text, spans)
    assert text[spans[pieces[0]][0]:spans[pieces[-1]][1]].strip() == "Rome in"
    assert words.pieces_of("Paris", text, spans) == words.pieces_of("", text, spans) == []
    # Cut before the answer's end.
    assert words.pieces_of("1815.", text, spans[:len(spans) // 2]) == []


def test_memory_tokens_point_into_their_document_or_before_the_text(model, words):
    inputs = pointing_inputs(model, words, RECORDS)
    num_memory = model.config.num_memory_tokens
    assert inputs.places.shape == (4, num_memory) and inputs.special.shape == (4, num_memory + 1)

    # The documents that do not state the answer.
    assert inputs.places[1].tolist() == inputs.places[3].tolist() == [UNSTATED_PLACE] + [IGNORED] * (num_memory - 1)

    # The others point at the answer's pieces, then at the separator before the document, all of them places.
    for pair, answer in ((0, "in Rome in 1815"), (2, "Oslo")):
        aimed = [place for place in inputs.places[pair].tolist() if place != IGNORED]
        assert inputs.is_place[pair, aimed].all()
        read = model.processor.compressor_tokenizer.decode(inputs.ids[pair, aimed[0]])
        assert read.strip() and answer.startswith(read.strip())
    separator = model.processor.compressor_tokenizer.sep_token_id
    assert inputs.ids[2, inputs.places[2][inputs.places[2] != IGNORED][-1]] == separator

    # Neither the query, the special tokens nor padding can be pointed at.
    for pair in range(4):
        places = inputs.is_place[pair].nonzero().flatten()
        assert places[0] == UNSTATED_PLACE and inputs.ids[pair, places[1]] == separator
        assert places[1:].tolist() == list(range(places[1], inputs.special[pair, 0]))


def test_the_lesson_reads_as_the_compressor_does(model, words):
    """States of the lesson's own pass are those from which memory and scores come."""
    model.eval()
    inputs = pointing_inputs(model, words, RECORDS)
    with torch.no_grad():
        _, of_special = pointing._states(model, inputs)
        batch = model.processor.collate(RECORDS)
        expected = model.compressor(batch["documents"], model.generator.embed)
        said = model.compressor.mlp(of_special[:, :model.config.num_memory_tokens])
    torch.testing.assert_close(said, expected.states)
    torch.testing.assert_close(model.compressor.scores_of(of_special[:, -1]), expected.scores)


def test_a_pointer_chooses_among_places_alone():
    pointer, states = Pointer(4), torch.eye(4)[None]                          # T = 4
    is_place = torch.tensor([[True, False, True, True]])
    chosen = pointer(states[:, [2, 1]] * 10, states, is_place).softmax(-1)    # (1, 2, 4)
    assert chosen[0, 0].argmax() == 2 and chosen[0, 0, 2] > 0.9
    assert chosen[0, 1, 1] == 0 and torch.allclose(chosen[0, 1, [0, 2, 3]], torch.tensor(1 / 3))


def scored(record: Record) -> Record:
    return dataclasses.replace(record, reranking_scores=(3.0, -3.0))


@pytest.mark.parametrize("lesson", ["vocabulary", "pointing"])
def test_a_lesson_lowers_its_loss_and_leaves_the_generator_as_it_is(lesson, model, tmp_path):
    before = {name: weight.clone() for name, weight in model.generator.state_dict().items()}
    if lesson == "vocabulary":
        losses = learn_vocabulary(model, RECORDS, 12, 2e-3, seed=0, folder=tmp_path / "lesson")
    else:
        losses = learn_to_point(model, [scored(record) for record in RECORDS] * 12, 2, 2e-3)
        assert model.progress.num_steps == 12 and model.progress.num_scores == 48
    assert len(losses) == 12 and sum(losses[-3:]) < 0.9 * sum(losses[:3])
    for name, weight in model.generator.state_dict().items():
        assert torch.equal(weight, before[name])

"""What makes targets and rankings: in float32 on a CPU, however it is stored, and no longer texts than it can read."""

from __future__ import annotations

import shutil

import pytest
import tiny
import tiny_encoders
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaModel,
)

from scaledown.data.pipeline.retrieval import RetrievalConfig
from scaledown.data.pipeline.retrieval.vectors import load_encoder
from scaledown.data.pipeline.teacher import TeacherConfig
from scaledown.data.pipeline.teacher.local import LocalTeacher
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig, num_positions

PAIRS = [("What is the capital of France?", f"Document {i} about the {word} of France.")
         for i, word in enumerate(("river", "capital", "king", "war", "song"))]
LONG = "Ada was born in London. " * 40
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def rerank(folder):
    return [score for _, score in sorted(Reranker(RerankerConfig(folder)).scores(PAIRS))]


def encode(folder, retriever):
    # index_url: the libraries that search on one machine are not needed here.
    encoder = load_encoder(RetrievalConfig(retriever, folder, index_url="unused"))
    vectors = encoder.documents([text for _, text in PAIRS])
    return (vectors if retriever == "dense" else vectors.toarray()).tolist()


def teacher_dtype(folder):
    return LocalTeacher(TeacherConfig(teacher_model=folder))._model.dtype


MAKERS = {"cross-encoder": (tiny_encoders.cross_encoder, rerank),
          "dense": (tiny_encoders.dense, lambda folder: encode(folder, "dense")),
          "splade": (tiny_encoders.splade, lambda folder: encode(folder, "splade")),
          "teacher": (tiny.generator_folder, teacher_dtype)}


def stored_as(folder, dtype):
    """Have all weights in ``folder`` rounded to bfloat16 and stored as ``dtype``, and its configs say so."""
    for path in folder.rglob("*.safetensors"):
        save_file({name: value.bfloat16().to(dtype) for name, value in load_file(path).items()}, path,
                  metadata={"format": "pt"})
    for path in folder.rglob("config.json"):
        path.write_text(path.read_text().replace('"dtype": "float32"', f'"dtype": "{str(dtype).partition(".")[2]}"'))
    return folder


@pytest.mark.parametrize(("make", "compute"), MAKERS.values(), ids=MAKERS)
def test_a_model_stored_in_half_precision_computes_in_float32_on_a_cpu(make, compute, tmp_path):
    folder = tmp_path / "made"
    place = make(folder)
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    for copy, dtype in ((halves, torch.bfloat16), (whole, torch.float32)):
        shutil.copytree(folder, copy)
        stored_as(copy, dtype)
    found, wanted = (compute(place.replace(str(folder), str(copy))) for copy in (halves, whole))
    if isinstance(found, torch.dtype):
        assert found == wanted
    else:
        # Sums may come in another order; computed in bfloat16 they would differ by 1e-3.
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def saved(network, folder):
    network.save_pretrained(folder)
    own = tiny.tokenizer(None, cls_token="[CLS]", sep_token="[SEP]", mask_token="[SEP]")
    own.model_max_length = 512
    own.save_pretrained(folder)
    return str(folder)


def settings(**more):
    return SIZES | {"vocab_size": len(tiny.tokenizer()), "pad_token_id": 1} | more


@pytest.mark.parametrize(("config", "network"), [
    (BertConfig, BertForSequenceClassification), (RobertaConfig, RobertaForSequenceClassification),
    (MPNetConfig, MPNetForSequenceClassification)], ids=["bert", "roberta", "mpnet"])
def test_a_cross_encoder_of_few_positions_reads_what_it_can(config, network, tmp_path, caplog):
    rows = 64 if config is BertConfig else 66
    folder = saved(network(config(**settings(max_position_embeddings=rows, num_labels=1))), tmp_path)
    reranker = Reranker(RerankerConfig(folder))
    assert reranker.cross_encoder.max_seq_length == 64
    (_, cut), (_, other) = reranker.scores([("Who?", LONG), ("Who?", LONG + "Paris. " * 9)])
    assert cut == pytest.approx(other, abs=1e-6) and len(caplog.records) == 1
    assert f"--reranker_model {folder} reads 64 tokens at most" in caplog.text


@pytest.mark.parametrize("retriever", ["dense", "splade"])
def test_a_retriever_of_few_positions_reads_what_it_can(retriever, tmp_path, caplog):
    network = (RobertaModel if retriever == "dense" else RobertaForMaskedLM)(
        RobertaConfig(**settings(max_position_embeddings=66)))
    place = MAKERS[retriever][0](tmp_path, saved(network, tmp_path / "words"))
    encoder = load_encoder(RetrievalConfig(retriever, place, index_url="unused"))
    assert encoder.documents([LONG, "short"]).shape[0] == encoder.queries([LONG, "Who?"]).shape[0] == 2
    assert "reads 64 tokens at most" in caplog.text and "--retriever_model" in caplog.text


def test_positions_that_are_no_table_do_not_end():
    assert num_positions(tiny.generator()) is None
    assert num_positions(RobertaModel(RobertaConfig(**settings(max_position_embeddings=20)))) == 18


def test_weights_that_give_no_number_are_told(tmp_path):
    folder = tiny_encoders.cross_encoder(tmp_path / "cross")
    dense = tiny_encoders.dense(tmp_path / "dense")
    for path in tmp_path.rglob("*.safetensors"):
        save_file({name: value * float("nan") for name, value in load_file(path).items()}, path,
                  metadata={"format": "pt"})
    with pytest.raises(ValueError, match="--reranker_model .* as nan; expected a finite number"):
        rerank(folder)
    with pytest.raises(ValueError, match="--retriever_model .*NaN or infinity"):
        encode(dense, "dense")

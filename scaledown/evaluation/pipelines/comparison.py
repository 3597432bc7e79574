"""The pipelines that are compared: how each chooses documents and answers from them, what that costs, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from scaledown.config import AUTO
from scaledown.data.pipeline.trec import Run
from scaledown.data.records import Record
from scaledown.data.reranking.cross_encoder import Reranker
from scaledown.evaluation.cost.flops import TokenCounts, encoder_flops, full_flops, naive_flops
from scaledown.evaluation.cost.question_cost import compressor_shape, mean_text_tokens
from scaledown.evaluation.cost.shapes import DecoderShape, EncoderShape, decoder_shape, linear_weights
from scaledown.evaluation.evaluator import SystemResult, token_counter
from scaledown.evaluation.figures.text_tables import console_table, score, short
from scaledown.evaluation.metrics import interval_text
from scaledown.evaluation.ranking.ranking_task import RankingTask, document_ids
from scaledown.evaluation.ranking.rankings import bm25, cross_encoder
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, System, keeping
from scaledown.models.loading.pretrained import CAUSAL_LMS, MASKED_LMS
from scaledown.models.serving.choosing import by_score

PAIR_TOKENS = 3.0
"""Special tokens that a cross-encoder reads beside query and document: BERT's [CLS], and a [SEP] behind each."""


@dataclass(frozen=True)
class Pipeline:
    """One way from candidates to an answer.

    Attributes:
        chosen_by: the reranker that chose the documents before the system saw them; None if it sees all of them.
        records: the questions with the documents that the system gets.
    """

    name: str
    chosen_by: str | None
    records: Sequence[Record]
    system: System


def pipelines(records: Sequence[Record], runs: Mapping[str, Run], num_kept: int, has_threshold: bool) -> list[Pipeline]:
    """Return the pipelines to compare; those of the cross-encoder only if ``runs`` has its scores."""
    compared = []
    if "cross-encoder" in runs:
        best = _best(records, runs["cross-encoder"], num_kept)
        compared += [Pipeline("cross-encoder, full text", "cross-encoder", best, FULL_TEXT),
                     Pipeline("cross-encoder, ScaleDown", "cross-encoder", best, SCALEDOWN)]

    # In one pass ScaleDown gets all candidates, and chooses among them itself.
    compared.append(Pipeline("ScaleDown in one pass", None, records, keeping(num_kept)))
    if has_threshold:
        compared.append(Pipeline("the same, auto", None, records, keeping(AUTO)))

    best = _best(records, runs["BM25"], num_kept)
    return [*compared, Pipeline("BM25, ScaleDown", "BM25", best, SCALEDOWN),
            Pipeline("ScaleDown, all", None, records, SCALEDOWN), Pipeline("full text, all", None, records, FULL_TEXT)]


def _best(records: Sequence[Record], run: Run, num_kept: int) -> list[Record]:
    """Return the records with their ``num_kept`` best documents, best first."""
    chosen = []
    for record in records:
        scores = [run[record.id][name] for name in document_ids(record)]
        documents = tuple(record.documents[number] for number in by_score(scores)[:num_kept])
        # A new record, since ids and scores of the old one belong to all of its documents.
        chosen.append(Record(record.id, record.query, documents, record.answer, record.answers))
    return chosen


def rankings(task: RankingTask, reranker: Reranker | None) -> dict[str, Run]:
    """Return BM25's scores and, given a reranker, the cross-encoder's."""
    runs = {"BM25": bm25(task)}
    if reranker:
        runs["cross-encoder"] = cross_encoder(task, reranker)
    return runs


@dataclass(frozen=True)
class PipelineFlops:
    """Floating-point operations of one question (a multiplication and an addition are two)."""

    rerank: float
    compress: float
    generate: float

    @property
    def total(self) -> float:
        """Return the sum of all three."""
        return self.rerank + self.compress + self.generate


def reranker_shape(cross_encoder: Any) -> DecoderShape | EncoderShape:
    """Return the shape of a cross-encoder of sentence-transformers, a decoder with a score head or an encoder."""
    config = cross_encoder.config
    # Many encoders, BERT for one, can be built as causal LMs as well.
    if config.model_type in CAUSAL_LMS and config.model_type not in MASKED_LMS:
        model = next(module for module in cross_encoder.modules() if isinstance(module, PreTrainedModel))
        return decoder_shape(model)
    # It gives a score alone, so there is no map to a generator.
    return EncoderShape(linear_weights(cross_encoder), config.num_hidden_layers, config.hidden_size, 0, 0)


def reranking_flops(shape: DecoderShape | EncoderShape, tokens: TokenCounts) -> float:
    """Return a cross-encoder's FLOPs: it reads the query again with each document."""
    # Its special tokens take the place of ours.
    tokens = replace(tokens, memory_tokens=0.0, rerank_tokens=PAIR_TOKENS)
    return naive_flops(shape, tokens) if isinstance(shape, DecoderShape) else encoder_flops(shape, tokens)


def pipeline_flops(model: Any, result: SystemResult, candidates: Sequence[Record], given: Sequence[Record],
                   reranker: DecoderShape | EncoderShape | None) -> PipelineFlops:
    """Return the mean cost of a question.

    Args:
        model: a ScaleDownModel.
        result: of its system; prompts and answers are as long as they were there.
        candidates: the questions with all their documents, which the cross-encoder read.
        given: the questions with the documents that the system got.
        reranker: the cross-encoder's shape; None if none was used.
    """

    def counts(records: Sequence[Record]) -> TokenCounts:
        return TokenCounts(**mean_text_tokens(records, token_counter(model), model.config, model.long_documents),
                           memory_tokens=model.config.num_memory_tokens,
                           rerank_tokens=float(model.config.enable_reranking),
                           prompt_tokens=result.mean_prompt_tokens, new_tokens=result.mean_new_tokens)

    # Text is read by the generator without its adapter.
    is_text = result.system == FULL_TEXT.name
    flops = full_flops(decoder_shape(model.generator.base), None if is_text else compressor_shape(model),
                       counts(given), 0 if is_text else model.config.lora_rank, model.config.input_order)
    rerank = reranking_flops(reranker, counts(candidates)) if reranker else 0.0
    return PipelineFlops(rerank, flops.compress, flops.prefill + flops.decode)


def table(results: Mapping[str, tuple[SystemResult, PipelineFlops]]) -> str:
    """Return quality and cost, one row per pipeline."""
    num_questions = max(len(result.questions) for result, _ in results.values())  # the same of all
    header = [f"n = {num_questions}", "exact match\n[95%]", "token F1", "prompt\ntokens"]
    header += [f"GFLOPs:\n{part}" for part in ("rerank", "compress", "generate", "total")]

    rows = []
    for name, (result, flops) in results.items():
        averages = result.averages
        parts = [short(part / 1e9) for part in (flops.rerank, flops.compress, flops.generate, flops.total)]
        # A terminal has no room for a second interval, which is in the JSON file.
        rows.append([name, f"{score(averages['exact_match_avg'])}\n{interval_text(averages['exact_match_ci95'])}",
                     score(averages["token_f1_avg"]), f"{result.mean_prompt_tokens:.1f}", *parts])
    return console_table(header, rows)

"""The pipelines that are compared: how each chooses documents and answers from them, and the table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaledown.config import AUTO
from scaledown.data.pipeline.trec import Run
from scaledown.data.records import Record
from scaledown.data.reranking.cross_encoder import Reranker
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.pipelines.pipeline_cost import PipelineFlops
from scaledown.evaluation.ranking.ranking_task import RankingTask, document_ids
from scaledown.evaluation.ranking.scorers import bm25, cross_encoder
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, System, keeping
from scaledown.models.memory import by_score


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


def table(results: Mapping[str, tuple[SystemResult, PipelineFlops]]) -> str:
    """Return quality and cost, one line per pipeline."""
    lines = [f"{'':<26}{'exact match':>22}{'token F1':>10}{'prompt':>9}  | GFLOPs: {'rerank':>8}{'compress':>10}"
             f"{'generate':>10}{'total':>9}"]
    for name, (result, flops) in results.items():
        averages = result.averages
        low, high = averages["exact_match_ci95"]
        # The columns are as wide as in the heading.
        lines.append(f"{name:<26}{averages['exact_match_avg']:>8.3f} [{low:.3f}, {high:.3f}]"
                     f"{averages['token_f1_avg']:>10.3f}{result.mean_prompt_tokens:>9.1f}  | {'':<7} "
                     f"{flops.rerank / 1e9:>8.3f}{flops.compress / 1e9:>10.3f}{flops.generate / 1e9:>10.3f}"
                     f"{flops.total / 1e9:>9.3f}")

    return "\n".join(lines)

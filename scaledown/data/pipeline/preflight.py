"""Checks before a run starts, so that a missing teacher does not show only after days."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from scaledown import hub
from scaledown.data.pipeline.corpus import corpus_files
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.retrieval.vectors import ENCODER_ADVICE
from scaledown.data.records import eval_path
from scaledown.data.reranking.cross_encoder import RERANKER_ADVICE

TEACHER_ADVICE = "What works without it: a local folder, --teacher_url URL, or --teacher_model embedded."


def check_needs(config: PipelineConfig) -> None:
    """Check within seconds that files and models are there; a server is asked when its stage begins.

    Raises:
        ValueError: if something is missing; all of it is named.
    """
    faults = []
    for check in _checks(config):
        try:
            check()
        except ValueError as fault:
            faults.append(str(fault))

    # Two stages may miss the same model: each fault is told once.
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))


def _checks(config: PipelineConfig) -> Iterator[Callable[[], object]]:
    """Yield the checks of the stages that the run reaches, in their order."""
    queries, retrieval, reranker, teacher = config.queries, config.retrieval, config.reranker, config.teacher
    if queries.queries_file is not None:
        yield partial(_require_file, "--queries_file", queries.queries_file)
    if config.reaches("records") and not config.records.eval_share:
        yield partial(require_no_half, Path(config.records.output_file))

    # Without passages no stage reads anything but the queries.
    if not config.reaches("passages"):
        return
    if config.corpus.corpus_path is not None:
        yield partial(corpus_files.require_corpus, config.corpus.corpus_path)
    yield partial(hub.locate, config.generator, config.corpus.generator_revision)

    # A run file stands in for the index.
    if config.reaches("retrieval") and retrieval.run_file is not None:
        yield partial(_require_file, "--run_file", retrieval.run_file)
    if config.reaches("index") and retrieval.model is not None:
        yield partial(hub.locate, retrieval.model, retrieval.retriever_revision, what_works=ENCODER_ADVICE)

    if config.reaches("reranking"):
        yield partial(hub.locate, reranker.reranker_model, reranker.reranker_revision,
                      what_works=RERANKER_ADVICE)
    if config.reaches("teacher") and teacher.teacher_url is None:
        yield partial(hub.locate, teacher.teacher_model, teacher.teacher_revision, what_works=TEACHER_ADVICE)


def require_no_half(output_file: Path) -> None:
    """Refuse to write records without an evaluation half beside the evaluation half of other records.

    Raises:
        ValueError: if there is one: training on the new records would be evaluated with questions that may be in them.
    """
    if (path := eval_path(output_file)).exists():
        raise ValueError(f"{path}: would be taken for the evaluation half of {output_file}, which gets none this time; "
                         "move it away, give another --output_file, or a larger --eval_share")


def _require_file(flag: str, path: str) -> None:
    if not Path(path).is_file():
        raise ValueError(f"{flag} {path}: no such file")

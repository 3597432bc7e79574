"""The teacher's answers, kept one by one, and the records that are put together from everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tqdm.auto import tqdm

from scaledown import prompt
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.found import Found, Questions
from scaledown.data.pipeline.teacher import TeacherConfig, load_teacher
from scaledown.data.records import Record
from scaledown.data.storage import fingerprints
from scaledown.data.storage.append_log import AppendLog
from scaledown.data.storage.values import HALF_A_PAIR, is_text
from scaledown.data.storage.work_folder import Stage

TEACHER_CHUNK = 512
"""Queries that the teacher is given at a time; each answer is kept as it comes."""
NO_PASSAGE = "no passage was found for them"
NO_ANSWER = "the teacher had nothing to say"
NO_TEXT = f"the teacher's answer holds {HALF_A_PAIR}"


def ask_teacher(context: Context, queries: Sequence[Query], found: Found) -> AppendLog:
    """Get the answers that are missing. Kept under the query and its documents, none is asked for twice.

    A value is ``[answer, prompt tokens, answer tokens]``; the tokens are those since the answer before, so that
    their sums are right however the teacher puts questions together.

    Raises:
        ValueError: where the teacher cannot be had, or cannot go on; what it answered is kept.
    """
    stage = context.stage("teacher", _settings(context.config.teacher))
    log = context.open_log(stage)
    asked = [query for query in queries if found.retrieved(query)]
    keys = {query.id: found.key(query, found.chosen(query).numbers) for query in asked}
    missing = [query for query in asked if keys[query.id] not in log]
    context.say(f"teacher: {len(asked):,} questions, {len(asked) - len(missing):,} of them answered before")
    context.processes.wait()
    chunks = [asked[first:first + TEACHER_CHUNK] for first in range(0, len(asked), TEACHER_CHUNK)]
    chunks = [[query for query in chunk if keys[query.id] not in log] for chunk in chunks]
    if share := context.processes.share([chunk for chunk in chunks if chunk]):
        _ask(context, stage, log, share, keys, found)
    context.work.finish(stage, {})
    log.refresh()
    return log


def records(queries: Sequence[Query], found: Found, answers: AppendLog, left_out: Counter[str],
            tokens: Counter[str]) -> Iterator[Record]:
    """The records of the queries that have passages and an answer.

    The others are counted in ``left_out``, by reason; what the teacher ``read`` and ``said`` for all, in ``tokens``.
    """
    store = found.documents.store
    for query in queries:
        chosen = found.chosen(query)
        if not chosen.numbers:
            left_out[NO_PASSAGE] += 1
            continue
        answer, read, said = answers[found.key(query, chosen.numbers)]
        tokens.update(read=read, said=said)
        if not answer:
            left_out[NO_ANSWER] += 1
            continue
        if not is_text(answer):
            left_out[NO_TEXT] += 1
            continue
        yield Record(
            id=query.id, query=query.text, answer=answer, answers=query.answers, reranking_scores=chosen.scores,
            documents=tuple(found.documents.texts(chosen.numbers)),
            document_ids=tuple(store.id(number) for number in chosen.numbers),
            titles=tuple(store.title(number) for number in chosen.numbers))


def _ask(context: Context, stage: Stage, log: AppendLog, chunks: Sequence[Sequence[Query]], keys: Mapping[str, str],
         found: Found) -> None:
    with context.spending(stage):
        teacher = load_teacher(context.config.teacher)
    tokens = (0, 0)
    with tqdm(total=sum(map(len, chunks)), desc="teacher", unit=" questions",
              disable=not context.processes.is_main) as progress:
        for chunk in chunks:
            with context.spending(stage):
                for number, answer in teacher.answers(Questions(chunk, found)):
                    now = (teacher.num_prompt_tokens, teacher.num_answer_tokens)
                    log.append([(keys[chunk[number].id], [answer, now[0] - tokens[0], now[1] - tokens[1]])])
                    tokens = now
                    progress.update()


def _settings(config: TeacherConfig) -> dict[str, object]:
    """What an answer depends on beside the question; where a server stands, and how it is asked, is not part of it."""
    wording = fingerprints.of_values([prompt.SYSTEM, prompt.BACKGROUND, prompt.QUESTION])
    settings = {"max_new_tokens": config.teacher_max_new_tokens, "prompt": wording}
    if config.teacher_url is not None:
        return settings | {"served_model": config.teacher_model}
    return settings | {"model": fingerprints.of_model(config.teacher_model, config.teacher_revision),
                       "8bit": config.teacher_8bit}

"""The teacher's answers to the queries of a run, each from its documents, stored one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scaledown import prompt
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.search_results import SearchResults
from scaledown.data.pipeline.teacher import TeacherConfig, load_teacher
from scaledown.data.storage import fingerprints
from scaledown.data.storage.append_log import AppendLog
from scaledown.data.storage.work_folder import StageFolder
from scaledown.progress import Bar

TEACHER_CHUNK = 512
"""Queries given to the teacher at a time; each answer is stored as soon as it is ready."""


class TeacherQuestions(Sequence[tuple[str, list[str]]]):
    """The teacher's questions, (query, documents), each assembled when it is read."""

    def __init__(self, queries: Sequence[Query], results: SearchResults) -> None:
        self._queries, self._results = queries, results

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]

        # The documents in the order of the record, so that the teacher reads what the student will.
        query = self._queries[place]
        return query.text, self._results.documents.texts(self._results.chosen(query).numbers)


def ask_teacher(context: Context, queries: Sequence[Query], results: SearchResults) -> AppendLog:
    """Ask the teacher for the missing answers, and return the log of all answers.

    Answers are stored under the query and its documents, so that none is asked for twice. A log value is
    ``[answer, prompt tokens, answer tokens]``; the tokens are those since the previous answer, so that their sums are
    right however the teacher batches its questions.

    Raises:
        ValueError: if the teacher cannot be loaded, or cannot go on; its answers so far are stored.
    """
    stage = context.stage("teacher", _settings(context.config.teacher))
    log = context.open_log(stage)

    # Queries without passages are left out of the records, so they are not asked.
    answerable = [query for query in queries if results.retrieved(query)]
    keys = {query.id: results.key(query, results.chosen(query).numbers) for query in answerable}
    num_missing = sum(keys[query.id] not in log for query in answerable)
    context.say(f"teacher: {len(answerable):,} questions, {len(answerable) - num_missing:,} of them answered before")

    # Nobody writes before all processes have read the log: they must agree on what is missing to share it out.
    context.processes.wait()
    chunks = []
    for start in range(0, len(answerable), TEACHER_CHUNK):
        missing = [query for query in answerable[start:start + TEACHER_CHUNK] if keys[query.id] not in log]
        if missing:
            chunks.append(missing)

    # A process with no work left does not load the teacher.
    if own_chunks := context.processes.share(chunks):
        _ask(context, stage, log, own_chunks, keys, results)
    context.work.finish(stage, {})

    log.refresh()  # the answers of the other processes
    return log


def _ask(context: Context, stage: StageFolder, log: AppendLog, chunks: Sequence[Sequence[Query]],
         keys: Mapping[str, str], results: SearchResults) -> None:
    with context.spending(stage):
        teacher = load_teacher(context.config.teacher)

    num_read, num_said = 0, 0  # the teacher's totals at the previous answer
    num_questions = sum(len(chunk) for chunk in chunks)
    with Bar(total=num_questions, desc="teacher", unit=" questions", disable=not context.processes.is_main) as bar:
        for chunk in chunks:
            # Answers arrive in any order; ``place`` says which query of the chunk each belongs to.
            with context.spending(stage):
                for place, answer in teacher.answers(TeacherQuestions(chunk, results)):
                    new_read, new_said = teacher.num_prompt_tokens - num_read, teacher.num_answer_tokens - num_said
                    log.append([(keys[chunk[place].id], [answer, new_read, new_said])])

                    num_read, num_said = num_read + new_read, num_said + new_said
                    bar.update()


def _settings(config: TeacherConfig) -> dict[str, object]:
    """Return what an answer depends on beyond its question; a server's address and limits are not part of it."""
    wording = fingerprints.of_values([prompt.SYSTEM, prompt.BACKGROUND, prompt.QUESTION])
    settings = {"max_new_tokens": config.teacher_max_new_tokens, "prompt": wording}

    # A server's weights cannot be read, so its model's name must do; a local model is known by its files.
    if config.teacher_url is not None:
        return settings | {"served_model": config.teacher_model}
    return settings | {"model": fingerprints.of_model(config.teacher_model, config.teacher_revision),
                       "8bit": config.teacher_8bit}

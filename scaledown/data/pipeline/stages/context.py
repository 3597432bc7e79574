"""What all stages of a run share: settings, work folder, processes, and how they speak and count time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from tqdm.auto import tqdm

from scaledown import hub
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.queries import Query
from scaledown.data.storage.append_log import AppendLog
from scaledown.data.storage.work_folder import Stage, WorkFolder
from scaledown.processes import Processes


class Context:
    """One run of the pipeline."""

    def __init__(self, config: PipelineConfig, work: WorkFolder, processes: Processes) -> None:
        self.config, self.work, self.processes = config, work, processes
        self._stages: list[Stage] = []

    @cached_property
    def tokenizer(self) -> Any:
        """The student's."""
        return hub.load_tokenizer(self.config.generator, self.config.corpus.generator_revision)

    def say(self, text: str) -> None:
        """Print what happens, once, whatever the number of processes."""
        if self.processes.is_main:
            tqdm.write(text)

    def stage(self, name: str, settings: dict[str, Any], inputs: Sequence[Stage] = ()) -> Stage:
        """The stage of that name; says so where it is made anew because something has changed."""
        stage = self.work.stage(name, settings, inputs)
        if stage.reason:
            self.say(f"{name}: made anew: {stage.reason}")
        self._stages.append(stage)
        return stage

    def times(self) -> dict[str, float]:
        """The seconds that each stage of this run has taken, over all runs."""
        return {stage.name: self.work.seconds(stage) for stage in self._stages}

    @contextmanager
    def spending(self, stage: Stage) -> Iterator[None]:
        """Note the time that is spent inside as the stage's."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.work.spend(stage, time.monotonic() - start)

    def open_log(self, stage: Stage) -> AppendLog:
        """What is kept of a stage's results."""
        return AppendLog(stage.folder, self.processes.rank)

    def in_chunks(self, stage: Stage, log: AppendLog, queries: Sequence[Query], key: Callable[[Query], str],
                  size: int, compute: Callable[[Sequence[Query]], Sequence[Any]]) -> int:
        """Compute and keep what is missing, a chunk of queries at a time, shared among the processes.

        Returns how many queries that were.

        The chunks do not depend on what is kept already or on the processes, so that each text is always computed
        beside the same others, and the last digits of its result never change.
        """
        chunks = [queries[first:first + size] for first in range(0, len(queries), size)]
        missing = [chunk for chunk in chunks if any(key(query) not in log for query in chunk)]
        to_do = sum(map(len, missing))
        self.say(f"{stage.name}: {len(queries):,} queries, {len(queries) - to_do:,} of them done before")
        self.processes.wait()
        with tqdm(total=len(queries), initial=len(queries) - to_do, desc=stage.name, unit=" queries",
                  disable=not (missing and self.processes.is_main)) as progress:
            for chunk in self.processes.share(missing):
                with self.spending(stage):
                    values = dict(zip(map(key, chunk), compute(chunk), strict=True))
                    log.append((each, value) for each, value in values.items() if each not in log)
                progress.update(min(len(chunk) * self.processes.count, to_do))
        self.processes.wait()
        log.refresh()
        return to_do

"""The context that all stages of a run share: settings, work folder, processes, messages and timing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from scaledown import hub
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.queries import Query
from scaledown.data.storage.append_log import AppendLog
from scaledown.data.storage.work_folder import StageFolder, WorkFolder
from scaledown.processes import Processes
from scaledown.progress import Bar


class Context:
    """One run of the pipeline."""

    def __init__(self, config: PipelineConfig, work: WorkFolder, processes: Processes) -> None:
        self.config, self.work, self.processes = config, work, processes
        self._stages: list[StageFolder] = []

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer, which measures passages."""
        return hub.load_tokenizer(self.config.generator, self.config.corpus.generator_revision)

    def say(self, text: str) -> None:
        """Print ``text`` once, whatever the number of processes."""
        if self.processes.is_main:
            Bar.write(text)

    def stage(self, name: str, settings: dict[str, Any], inputs: Sequence[StageFolder] = ()) -> StageFolder:
        """Return the stage of that name, and say why if it is made again because something has changed."""
        stage = self.work.stage(name, settings, inputs)
        # The second index of a hybrid run differs from the first, which it does not replace.
        is_another = any(other.name == name for other in self._stages)
        if stage.reason and not is_another:
            self.say(f"{name}: made again: {stage.reason}")

        self._stages.append(stage)
        return stage

    def times(self) -> dict[str, float]:
        """Return the seconds that each stage of this run has taken, over all runs."""
        times: dict[str, float] = {}
        for stage in self._stages:
            times[stage.name] = times.get(stage.name, 0.0) + self.work.seconds(stage)
        return times

    @contextmanager
    def spending(self, stage: StageFolder) -> Iterator[None]:
        """Add the time spent inside to the stage's."""
        start = time.monotonic()
        try:
            yield
        finally:
            # Also if the work fails: those seconds were spent, too.
            self.work.spend(stage, time.monotonic() - start)

    def open_log(self, stage: StageFolder) -> AppendLog:
        """Open the log of a stage's results."""
        return AppendLog(stage.folder, self.processes.rank)

    def in_chunks(self, stage: StageFolder, log: AppendLog, queries: Sequence[Query], key: Callable[[Query], str],
                  size: int, compute: Callable[[Sequence[Query]], Sequence[Any]]) -> None:
        """Compute and store the missing results, a chunk of queries at a time, shared among the processes.

        The chunks depend neither on what is stored already nor on the number of processes: each text is always
        computed in a batch with the same others, so that not even the last digits of its result ever change.

        Args:
            stage: the stage that the time is counted for.
            log: the stage's results by key.
            queries: all queries of the run.
            key: the key that a query's result is stored under.
            size: queries of a chunk.
            compute: gives the results of a chunk's queries, in their order.
        """
        # A chunk is computed again if any of its results is missing.
        missing_chunks = []
        for start in range(0, len(queries), size):
            chunk = queries[start:start + size]
            if any(key(query) not in log for query in chunk):
                missing_chunks.append(chunk)

        num_missing = sum(len(chunk) for chunk in missing_chunks)
        num_done = len(queries) - num_missing
        self.say(f"{stage.name}: {len(queries):,} queries, {num_done:,} of them done before")

        # Nobody writes before all processes have read the log: they must agree on what is missing to share it out.
        self.processes.wait()
        is_shown = bool(missing_chunks) and self.processes.is_main
        with Bar(total=len(queries), initial=num_done, desc=stage.name, unit=" queries", disable=not is_shown) as bar:
            for chunk in self.processes.share(missing_chunks):
                with self.spending(stage):
                    # Queries of equal text share a key, and a chunk that is partly done computes some results again:
                    # of each key the log gets one value.
                    values = dict(zip(map(key, chunk), compute(chunk), strict=True))
                    log.append((result_key, value) for result_key, value in values.items() if result_key not in log)
                # Assume that the other processes advance as fast as this one.
                bar.update(min(len(chunk) * self.processes.count, num_missing))

        self.processes.wait()
        log.refresh()  # the results of the other processes

"""Requests of several clients, computed together: those that come within a few milliseconds, or wait anyway.

One batch is computed at a time, in a thread of its own, since a model answers in one thread at a time. While it runs,
the next requests gather. There is no bound here: the gate admits only so many requests at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from scaledown.serve.work.jobs import Job

logger = logging.getLogger(__name__)


class Batcher:
    """A queue of jobs that ends in a function which computes several of them.

    Args:
        compute: called with some jobs in the model's thread; it sends the results back through the jobs.
        batch_size: the most jobs of a batch.
        wait_seconds: the time that a first job waits for others.
        observe: called with the number of jobs of each batch.
    """

    def __init__(self, compute: Callable[[Sequence[Job]], None], batch_size: int, wait_seconds: float,
                 observe: Callable[[int], None]) -> None:
        self._compute, self._batch_size, self._wait_seconds, self._observe = compute, batch_size, wait_seconds, observe
        self._waiting: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """True while jobs are being computed."""
        return self._task is not None and not self._task.done()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._waiting.append(job)
        self._arrived.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute jobs within this context; at its end what runs is ended, and nothing else is begun."""
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            self._task = asyncio.create_task(self._run(thread))
            try:
                yield
            finally:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task

    async def _run(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._batch_size:
                await asyncio.sleep(self._wait_seconds)
            batch = self._next_batch()
            if not batch:
                continue

            self._observe(len(batch))
            try:
                await loop.run_in_executor(thread, self._compute, batch)
            except Exception as fault:  # noqa: BLE001 - told to the clients; whatever it was, the next batch is computed
                logger.exception("a batch of %d requests failed", len(batch))
                for job in batch:
                    job.put(fault)

    def _next_batch(self) -> list[Job]:
        """Take the first jobs out of the queue; those whose clients have gone are dropped."""
        batch: list[Job] = []
        while self._waiting and len(batch) < self._batch_size:
            job = self._waiting.popleft()
            if not job.is_cancelled:
                batch.append(job)

        if not self._waiting:
            self._arrived.clear()
        return batch

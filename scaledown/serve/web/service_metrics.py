"""Counters for Prometheus: requests, their times, tokens, batches, and those at hand."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """The counters of one service, apart from those of others in the same process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("scaledown_requests", "Requests by path and status; 499: the client hung up",
                                ["path", "status"], registry=self.registry)
        self.seconds = Histogram("scaledown_request_seconds", "Seconds from a request to the end of its reply",
                                 ["path"], buckets=SECONDS, registry=self.registry)
        self.open_requests = Gauge("scaledown_open_requests", "Requests that are read, waiting or computed",
                                   registry=self.registry)
        self.batch_size = Histogram("scaledown_batch_requests", "Requests computed together", buckets=BATCH_SIZES,
                                    registry=self.registry)
        self.tokens = Counter("scaledown_tokens", "Tokens of prompts as read, of the same prompts in full text, and of "
                                                  "answers", ["kind"], registry=self.registry)
        # Memory, CPU seconds and open files of the process.
        ProcessCollector(registry=self.registry)

    def count_answer(self, num_prompt_tokens: int, num_full_text_tokens: int, num_answer_tokens: int) -> None:
        """Count the tokens of a whole answer."""
        self.tokens.labels("prompt").inc(num_prompt_tokens)
        self.tokens.labels("full_text").inc(num_full_text_tokens)
        self.tokens.labels("answer").inc(num_answer_tokens)

    def page(self) -> bytes:
        """Return all counters in Prometheus's text format."""
        return generate_latest(self.registry)

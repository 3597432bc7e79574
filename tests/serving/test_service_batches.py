"""What the service computes: jobs together, each with its own end and its own fault, and none without a client."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
import tiny
import torch

from scaledown import ScaleDownModel
from scaledown.config import ScaleDownConfig
from scaledown.models.memory import Memory
from scaledown.models.serving.disk.disk_store import DiskStore
from scaledown.serve.refusals import Refusal
from scaledown.serve.work.batch_worker import BatchWorker
from scaledown.serve.work.batching import Batcher
from scaledown.serve.work.jobs import AnswerJob, Choice, Ending, Job, Opening, RankingJob, Scores, TextPart

DOCUMENTS = [{"id": "a", "text": "Ada sings in the choir."}, {"text": "Bob is old."}]
LONG = 30
"""Tokens of an answer: a generator with random weights says as many as it may, or nearly so."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScaleDownModel:
    generator = tiny.generator_folder(tmp_path_factory.mktemp("model"))
    return ScaleDownModel(ScaleDownConfig(generator_model=str(generator), num_layers=2, num_memory_tokens=2,
                                          enable_reranking=True, input_order="document_first"))


class KeptJob(AnswerJob):
    """A job that keeps its parts, and whose client may go after some of them."""

    def __init__(self, question: str, max_tokens: int = LONG, keep_tokens: int | None = None,
                 goes_after: int = 0) -> None:
        super().__init__(question, DOCUMENTS, max_tokens, Choice(keep_tokens=keep_tokens), is_streamed=True)
        self.sent, self.goes_after = [], goes_after

    def send(self, part: object) -> None:
        self.sent.append(part)
        if len(self.sent) == self.goes_after:
            self.cancel()


def computed(model: ScaleDownModel, *make: object, **settings: object) -> list:
    """The jobs that functions make, computed together."""
    async def run() -> list:
        jobs = [each() for each in make]
        BatchWorker(model, 1_000, **settings).compute(jobs)
        return jobs
    return asyncio.run(run())


def text_of(job: KeptJob) -> str:
    return "".join(part.text for part in job.sent if isinstance(part, TextPart))


def test_each_answer_has_its_own_length_and_ends_when_it_is_there(model: ScaleDownModel) -> None:
    lengths = {"Who sings?": 3, "Who is old?": LONG, "Who is it?": 1}
    jobs = computed(model, *(lambda pair=pair: KeptJob(*pair) for pair in lengths.items()))
    for job in jobs:
        assert text_of(job) == model.answer(job.question, DOCUMENTS, max_new_tokens=job.max_tokens)
        assert isinstance(job.sent[0], Opening) and isinstance(job.sent[-1], Ending)
        assert job.sent[-1].num_tokens <= job.max_tokens
    assert [job.sent[-1] for job in jobs if job.max_tokens == 1] == [Ending("length", 1)]


def test_an_answer_whose_client_has_gone_is_not_written_on(model: ScaleDownModel) -> None:
    passes: list[int] = []
    watching = model.generator.base.register_forward_hook(lambda *_: passes.append(1))
    [gone] = computed(model, lambda: KeptJob("Who sings?", goes_after=4))
    watching.remove()
    # Some tokens end no character, so they send nothing.
    assert len(gone.sent) == 4 and len(passes) < LONG // 2

    [gone, other] = computed(model, lambda: KeptJob("Who sings?", goes_after=4), lambda: KeptJob("Who is old?"))
    assert text_of(other) == model.answer("Who is old?", DOCUMENTS, max_new_tokens=LONG)


def test_a_request_fails_by_its_own_fault_alone(model: ScaleDownModel) -> None:
    def too_long() -> KeptJob:
        job = KeptJob("Who sings?")
        job.documents = [{"text": "word " * 2_000}]
        return job

    good, wrong, long = computed(model, lambda: KeptJob("Who is old?"),
                                 lambda: KeptJob("Who?", keep_tokens=1), too_long)
    assert text_of(good) == model.answer("Who is old?", DOCUMENTS, max_new_tokens=LONG)
    for job, words in ((wrong, "keep_tokens"), (long, "takes 1,000")):
        [refusal] = job.sent
        assert isinstance(refusal, Refusal) and refusal.status == 422 and words in refusal.message


def test_what_breaks_inside_is_told_without_its_inside(model: ScaleDownModel, monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")
    monkeypatch.setattr(model, "compress", broken)
    for job in computed(model, lambda: KeptJob("Who?"), lambda: KeptJob("What?")):
        [refusal] = job.sent
        assert refusal.status == 500 and "secret" not in refusal.message
    assert "secret" in caplog.text


def test_documents_of_a_store_give_the_same_answers_and_new_ones_are_added(model: ScaleDownModel,
                                                                           tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "store")
    model.read_documents([DOCUMENTS[0]], store)
    [job] = computed(model, lambda: KeptJob("Who sings?"), store=store)
    assert text_of(job) == model.answer("Who sings?", memory=model.compress("Who sings?", DOCUMENTS, store=store),
                                        max_new_tokens=LONG)
    assert len(store) == 2
    store.close()


@pytest.mark.parametrize("fault", ["damaged", "of another checkpoint"])
def test_a_store_that_fails_is_our_fault_and_only_the_log_names_it(model: ScaleDownModel, fault: str, tmp_path: Path,
                                                                  caplog: pytest.LogCaptureFixture) -> None:
    reader = model if fault == "damaged" else ScaleDownModel(model.config)
    store = DiskStore(tmp_path / "store")
    reader.read_documents([DOCUMENTS[0]], store)
    store.close()
    if fault == "damaged":
        [shard] = store.folder.glob("*.safetensors")
        shard.write_bytes(shard.read_bytes()[:-8] + b"\xff" * 8)

    store = DiskStore(store.folder)
    [job] = computed(model, lambda: KeptJob("Who sings?"), store=store)
    store.close()
    [refusal] = job.sent
    assert refusal.status == 500 and str(tmp_path) not in refusal.message
    assert str(tmp_path) in caplog.text


def test_scores_that_are_no_numbers_are_our_fault(model: ScaleDownModel, monkeypatch: pytest.MonkeyPatch,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    def fewer() -> KeptJob:
        job = KeptJob("Who is old?")
        job.documents = DOCUMENTS[:1]
        return job

    # A job with fewer documents than another has places without a score.
    assert all(isinstance(job.sent[-1], Ending) for job in computed(model, lambda: KeptJob("Who?"), fewer))

    real = model.compress

    def spoilt(*given: object, **options: object) -> Memory:
        memory = real(*given, **options)
        return dataclasses.replace(memory, scores=memory.scores * torch.nan)
    monkeypatch.setattr(model, "compress", spoilt)
    for job in computed(model, lambda: KeptJob("Who sings?"), fewer):
        [refusal] = job.sent
        assert refusal.status == 500 and "no finite number" in caplog.text


def test_jobs_that_come_together_are_computed_together_and_none_without_a_client() -> None:
    batches: list[list[Job]] = []

    def compute(jobs: list[Job]) -> None:
        batches.append(jobs)
        for job in jobs:
            job.put(Scores([0], [1.0], 1))

    async def run() -> None:
        batcher = Batcher(compute, batch_size=3, wait_seconds=0.2, observe=lambda number: None)
        async with batcher.running():
            jobs = [RankingJob("Who?", DOCUMENTS) for _ in range(6)]
            for job in jobs:
                batcher.submit(job)
            jobs[1].cancel()
            for job in jobs[:1] + jobs[2:]:
                async for part in job.parts():
                    assert part == Scores([0], [1.0], 1)
                    break
            assert batcher.is_running and [len(batch) for batch in batches] == [3, 2]
            assert jobs[1] not in batches[0]
        assert not batcher.is_running

    asyncio.run(run())


def test_a_batch_that_breaks_stops_no_other() -> None:
    def compute(jobs: list[Job]) -> None:
        raise RuntimeError("broken")

    async def run() -> None:
        batcher = Batcher(compute, batch_size=1, wait_seconds=0.0, observe=lambda number: None)
        async with batcher.running():
            for _ in range(2):
                job = RankingJob("Who?", DOCUMENTS)
                batcher.submit(job)
                with pytest.raises(RuntimeError, match="broken"):
                    await anext(job.parts())

    asyncio.run(run())

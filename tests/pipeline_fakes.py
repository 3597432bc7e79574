"""A teacher and a reranker of a few lines, and the pipeline with them in a process of its own.

    python pipeline_fakes.py '{"asked": "FILE", "pause_seconds": 0.01, "chunk": null}' [FLAGS ...]

Such a process is started anew: a fork of the tests' process would have its locks, and one that is killed while it holds
one that forks share, as tqdm's, would keep it for ever.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from scaledown.data.pipeline.corpus import corpus_files
from scaledown.data.pipeline.retrieval import vectors
from scaledown.data.pipeline.stages import finding, teacher_answers
from scaledown.data.prepare_dataset.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
STARTED = "started"


class FakeTeacher:
    """Answers out of order, a little later, and writes down what it was asked."""

    def __init__(self, asked: Path, pause_seconds: float = 0.0) -> None:
        self.num_prompt_tokens = self.num_answer_tokens = 0
        self._asked, self._pause = asked, pause_seconds

    def answers(self, questions):
        for number in sorted(range(len(questions)), key=lambda number: -len(questions[number][1][0])):
            query, documents = questions[number]
            time.sleep(self._pause)
            with self._asked.open("a") as file:
                file.write(f"{query}\t{len(documents)}\n")
            self.num_prompt_tokens += 10
            self.num_answer_tokens += 2
            yield number, f"{query[::-1]} {len(documents)}"


class FakeReranker:
    """Scores by the letters that a query and a document share."""

    def __init__(self, config) -> None:
        pass

    def scores(self, pairs):
        for number in reversed(range(len(pairs))):
            query, document = pairs[number]
            yield number, len(set(query) & set(document)) + len(document) / 997


def use_small_chunks(chunk: int) -> None:
    """Let the pipeline hand out ``chunk`` items at a time, so that several processes have something to do."""
    finding.RETRIEVAL_CHUNK = finding.RERANKING_CHUNK = teacher_answers.TEACHER_CHUNK = vectors.PASSAGES_A_FILE = chunk
    corpus_files.PART_ROWS = 10


def start(flags: list[str], asked: Path, pause_seconds: float = 0.0, chunk: int | None = None,
          **environment: str) -> subprocess.Popen:
    """Start the pipeline in a process of its own; returns it when it has imported what it needs."""
    fakes = json.dumps({"asked": str(asked), "pause_seconds": pause_seconds, "chunk": chunk})
    process = subprocess.Popen([sys.executable, __file__, fakes, *flags], stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)
    assert process.stdout.readline().strip() == STARTED, "it did not start: see its error output"
    return process


def run(fakes: dict, flags: list[str]) -> int:
    import torch  # noqa: F401  which stages need in any case: imported here, it isn't part of the time until a kill
    import transformers  # noqa: F401

    teacher_answers.load_teacher = lambda config: FakeTeacher(Path(fakes["asked"]), fakes["pause_seconds"])
    finding.Reranker = FakeReranker
    if fakes["chunk"]:
        use_small_chunks(fakes["chunk"])
    print(STARTED, flush=True)
    return main(flags)


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.argv[1]), sys.argv[2:]))

"""Measure time and memory of BM25 over a large corpus.

The corpus is generated: words of a made-up language whose frequencies fall as those of a natural one do (Zipf), in
sentences, in pages of a few passages. The pipeline's own command cuts it into passages, indexes and searches it, with a
process for each stage.

    python -m lab.benchmark_retrieval
    python -m lab.benchmark_retrieval --num_passages 1000000 --output_dir benchmark_retrieval
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaledown import cli
from scaledown.config import EMBEDDED
from scaledown.data.storage.work_folder import MANIFEST
from scaledown.files import disk_faults, parse_json, whole_file, write_json
from scaledown.progress import Bar

VOCABULARY = 500_000
COMMON_WORDS = 100
"""The most frequent words, which queries leave out: in a natural language these are stop words."""
WORDS_A_PAGE, WORDS_A_SENTENCE, WORDS_A_QUERY = 400, 18, 6
SAMPLE_WORDS = 10_000
FEWEST_PASSAGE_TOKENS = 16
STAGES = ("passages", "index", "retrieval")
CONSONANTS, VOWELS = "b d f g k l m n p r s t v z".split(), "aeiou"
SYLLABLES = [CONSONANTS[number // len(VOWELS)] + VOWELS[number % len(VOWELS)]
             for number in range(len(CONSONANTS) * len(VOWELS))]
CORPUS_FILE, QUERIES_FILE, RESULTS_FILE = "corpus.jsonl", "queries.txt", "benchmark.json"
SETTINGS_FILE = "settings.json"
"""What the corpus and the queries were made with."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.benchmark_retrieval")
    parser.add_argument("--num_passages", type=int, default=100_000, metavar="N", help="passages, about [100000]")
    parser.add_argument("--num_queries", type=int, default=1_000, metavar="N", help="queries [1000]")
    parser.add_argument("--passage_words", type=int, default=90, metavar="N", help="words of a passage, about [90]")
    parser.add_argument("--output_dir", default="benchmark_retrieval", metavar="FOLDER",
                        help=f"folder of the corpus, the work folder and {RESULTS_FILE} [benchmark_retrieval]")
    cli.add_seed(parser, "seed of the language")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Generate a corpus, run the stages one by one, and print their times and memory."""
    args = build_parser().parse_args(argv)
    faults = [f"--{name} must be above 0, got {getattr(args, name)}"
              for name in ("num_passages", "num_queries", "passage_words") if getattr(args, name) < 1]
    if faults:
        raise ValueError("; ".join(faults))

    folder = Path(args.output_dir)
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    language = Language(args.seed)
    passage_tokens = language.passage_tokens(args.passage_words)

    # A corpus that an earlier start wrote is used again, if it is the same one.
    _check_same_corpus(folder, {"num_passages": args.num_passages, "num_queries": args.num_queries,
                                "passage_words": args.passage_words, "seed": args.seed})
    num_pages = max(1, args.num_passages * args.passage_words // WORDS_A_PAGE)
    _write_lines(folder / CORPUS_FILE, (json.dumps(page) for page in language.pages(num_pages)), num_pages)
    _write_lines(folder / QUERIES_FILE, (language.query() for _ in range(args.num_queries)), args.num_queries)

    results = [_run(stage, folder, passage_tokens) for stage in STAGES]
    write_json(folder / RESULTS_FILE, results)
    for result in results:
        print(f"{result['stage']:<11}{result['seconds']:>9.1f} s ({result['process_cpu_seconds']:.1f} s of CPU for the "
              f"whole process){result['peak_bytes'] / 1e9:>8.2f} GB at most")
    print(f"results: {folder / RESULTS_FILE}")
    return 0


class Language:
    """A made-up language, which draws words, sentences, pages and queries."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        # Zipf's law: the word of rank r is drawn in proportion to 1 / r.
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self._cumulative = np.cumsum(weights / weights.sum())
        self._words = np.array([_word(rank) for rank in range(VOCABULARY)], dtype=object)

    def pages(self, count: int) -> Iterator[dict[str, str]]:
        """Yield pages of ``WORDS_A_PAGE`` words on average."""
        for number in range(count):
            words = self._draw(int(self._rng.integers(WORDS_A_PAGE // 2, WORDS_A_PAGE * 3 // 2)))
            # The last word of each sentence.
            words[WORDS_A_SENTENCE - 1::WORDS_A_SENTENCE] += "."
            yield {"id": str(number), "title": " ".join(self._draw(2)), "text": " ".join(words)}

    def query(self) -> str:
        """Return a few words, none of the most frequent ones."""
        ranks = np.searchsorted(self._cumulative, self._rng.uniform(self._cumulative[COMMON_WORDS], 1, WORDS_A_QUERY))
        return " ".join(self._words[ranks])

    def passage_tokens(self, num_words: int) -> int:
        """Return the number of tokens of the demo's tokenizer that ``num_words`` words take on average."""
        # Only now, so that --help and mistakes need not wait for them.
        from scaledown import hub
        from scaledown.prompt.passages import token_counter

        sample = " ".join(self._draw(SAMPLE_WORDS))
        sample_tokens = token_counter(hub.load_tokenizer(EMBEDDED))([sample])[0]
        return max(FEWEST_PASSAGE_TOKENS, sample_tokens * num_words // SAMPLE_WORDS)

    def _draw(self, count: int) -> np.ndarray:
        return self._words[np.searchsorted(self._cumulative, self._rng.random(count))]


def _word(rank: int) -> str:
    """Return the word of that rank: its number, one syllable a digit, so the most frequent words are the shortest."""
    # From len(SYLLABLES) on, so that each word has two syllables or more.
    number, syllables = rank + len(SYLLABLES), []
    while number:
        number, syllable = divmod(number, len(SYLLABLES))
        syllables.append(SYLLABLES[syllable])
    return "".join(syllables)


def _check_same_corpus(folder: Path, settings: dict[str, int]) -> None:
    """Note the settings of a new folder; refuse a folder whose corpus has others.

    Raises:
        ValueError: with what to do.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        write_json(path, settings)
        return

    found = parse_json(path.read_bytes())
    if found != settings:
        differing = ", ".join(f"--{name} {found.get(name)}" for name in settings if found.get(name) != settings[name])
        raise ValueError(f"--output_dir {folder}: its corpus was made with {differing}; give these, or another folder")


def _write_lines(path: Path, lines: Iterator[str], total: int) -> None:
    """Write a file of lines, unless it exists."""
    if path.exists():
        return
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in Bar(lines, total=total, desc=f"generating {path.name}"))


def _run(stage: str, folder: Path, passage_tokens: int) -> dict[str, Any]:
    """Run the pipeline up to ``stage`` in a process of its own; return its peak memory, and the stage's seconds."""
    process = subprocess.Popen([
        sys.executable, "-m", "scaledown.data.prepare_dataset", "--queries_file", str(folder / QUERIES_FILE),
        "--corpus_path", str(folder / CORPUS_FILE), "--generator_model", EMBEDDED, "--passage_tokens",
        str(passage_tokens), "--last_stage", stage, "--output_file", str(folder / "unwritten.json"),
        "--work_dir", str(folder / "work")])

    # wait4 tells the memory of this process alone.
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ValueError(f"the stage {stage} failed (exit {os.waitstatus_to_exitcode(status)}); see above")

    # Stages that an earlier process finished are not run again, and have their own entries.
    manifest = json.loads((folder / "work" / MANIFEST).read_text(encoding="utf-8"))
    seconds = sum(entry["seconds"] for entry in manifest["stages"].values() if entry["stage"] == stage)
    # Linux gives ru_maxrss in KiB.
    return {"stage": stage, "seconds": seconds, "process_cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * 1024, "passage_tokens": passage_tokens}


if __name__ == "__main__":
    sys.exit(main())

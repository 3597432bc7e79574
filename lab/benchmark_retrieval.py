"""How fast a large corpus is cut, indexed by BM25 and searched, and in how much memory.

    python -m lab.benchmark_retrieval --num_passages 1000000 --output_dir benchmark_retrieval

The corpus is generated: words of a made-up language whose frequencies fall as those of a natural one do (Zipf), in
sentences, in pages of a few passages. The pipeline's own command runs over it, a process for each stage.
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
from tqdm.auto import tqdm

from scaledown.cli import command
from scaledown.data.storage.work_folder import MANIFEST
from scaledown.files import disk_faults, whole_file

VOCABULARY = 500_000
COMMON_WORDS = 100
"""The commonest words, which queries leave out: a natural language's are stop words."""
WORDS_A_PAGE, WORDS_A_SENTENCE, WORDS_A_QUERY = 400, 18, 6
STAGES = ("passages", "index", "retrieval")
SYLLABLES = [onset + vowel for onset in "b d f g k l m n p r s t v z".split() for vowel in "aeiou"]
CORPUS_FILE, QUERIES_FILE, RESULTS_FILE = "corpus.jsonl", "queries.txt", "benchmark.json"


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_passages", type=int, default=100_000, help="passages, about [100000]")
    parser.add_argument("--num_queries", type=int, default=1_000, help="queries [1000]")
    parser.add_argument("--passage_words", type=int, default=90, help="words of a passage, about [90]")
    parser.add_argument("--output_dir", default="benchmark_retrieval", help="gets corpus, work folder and "
                                                                            f"{RESULTS_FILE} [benchmark_retrieval]")
    parser.add_argument("--seed", type=int, default=42, help="seed of the language [42]")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Generate, run the stages one by one, and say what each took."""
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
    num_pages = max(1, args.num_passages * args.passage_words // WORDS_A_PAGE)
    _write(folder / CORPUS_FILE, (json.dumps(page) for page in language.pages(num_pages)), num_pages)
    _write(folder / QUERIES_FILE, (language.query() for _ in range(args.num_queries)), args.num_queries)
    results = [_run(stage, folder, passage_tokens) for stage in STAGES]
    with whole_file(folder / RESULTS_FILE) as draft:
        draft.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for result in results:
        print(f"{result['stage']:<11}{result['seconds']:>9.1f} s ({result['process_cpu_seconds']:.1f} s of CPU for the "
              f"whole process){result['peak_bytes'] / 1e9:>8.2f} GB at most")
    print(f"results: {folder / RESULTS_FILE}")
    return 0


class Language:
    """Draws words, sentences, pages and queries."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self._cumulative = np.cumsum(weights / weights.sum())
        self._words = np.array([_word(rank) for rank in range(VOCABULARY)], dtype=object)

    def pages(self, count: int) -> Iterator[dict[str, str]]:
        """Pages of ``WORDS_A_PAGE`` words on average."""
        for number in range(count):
            words = self._draw(int(self._rng.integers(WORDS_A_PAGE // 2, WORDS_A_PAGE * 3 // 2)))
            words[WORDS_A_SENTENCE - 1::WORDS_A_SENTENCE] += "."
            yield {"id": str(number), "title": " ".join(self._draw(2)), "text": " ".join(words)}

    def query(self) -> str:
        """A few words, none of the commonest."""
        ranks = np.searchsorted(self._cumulative, self._rng.uniform(self._cumulative[COMMON_WORDS], 1, WORDS_A_QUERY))
        return " ".join(self._words[ranks])

    def passage_tokens(self, num_words: int) -> int:
        """The tokens of the embedded tokenizer that so many words take on average."""
        from scaledown import hub
        from scaledown.config import EMBEDDED
        from scaledown.data.passages import token_counter

        sample = " ".join(self._draw(10_000))
        return max(16, token_counter(hub.load_tokenizer(EMBEDDED))([sample])[0] * num_words // 10_000)

    def _draw(self, count: int) -> np.ndarray:
        return self._words[np.searchsorted(self._cumulative, self._rng.random(count))]


def _word(rank: int) -> str:
    """The word of that rank: the commoner, the shorter."""
    number, syllables = rank + len(SYLLABLES), []
    while number:
        number, syllable = divmod(number, len(SYLLABLES))
        syllables.append(SYLLABLES[syllable])
    return "".join(syllables)


def _write(path: Path, lines: Iterator[str], total: int) -> None:
    if path.exists():
        return
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in tqdm(lines, total=total, desc=f"generating {path.name}"))


def _run(stage: str, folder: Path, passage_tokens: int) -> dict[str, Any]:
    """Run the pipeline up to ``stage`` in a process of its own; its peak memory, and the stage's seconds."""
    process = subprocess.Popen([
        sys.executable, "-m", "scaledown.data.prepare_dataset", "--queries_file", str(folder / QUERIES_FILE),
        "--corpus_path", str(folder / CORPUS_FILE), "--generator_model", "embedded", "--passage_tokens",
        str(passage_tokens), "--last_stage", stage, "--output_file", str(folder / "unwritten.json"),
        "--work_dir", str(folder / "work")])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ValueError(f"the stage {stage} failed (exit {os.waitstatus_to_exitcode(status)}); see above")
    manifest = json.loads((folder / "work" / MANIFEST).read_text(encoding="utf-8"))
    seconds = sum(entry["seconds"] for entry in manifest["stages"].values() if entry["stage"] == stage)
    return {"stage": stage, "seconds": seconds, "process_cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * 1024, "passage_tokens": passage_tokens}


if __name__ == "__main__":
    sys.exit(main())

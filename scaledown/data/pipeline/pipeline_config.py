"""The settings of the pipeline that are not queries', retrieval's, the reranker's or the teacher's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scaledown.config import DEFAULT_GENERATOR, EMBEDDED, positive, require, setting
from scaledown.data.passages import SMALLEST_PASSAGE_TOKENS
from scaledown.data.pipeline.queries import QueriesConfig
from scaledown.data.pipeline.retrieval import RetrievalConfig
from scaledown.data.pipeline.teacher import TeacherConfig
from scaledown.data.reranking.reranker import RerankerConfig

STAGES = ("queries", "passages", "index", "retrieval", "reranking", "teacher", "records")
MOST_EVAL_QUERIES = 2000


@dataclass(frozen=True)
class CorpusConfig:
    """The corpus, and how its pages are cut into passages."""

    corpus_path: str | None = setting(None, "kilt_knowledgesource.json, JSONL of {id, title, text}, a BEIR folder, a "
                                            "folder of .jsonl, .parquet or .txt files, or a dataset on the Hub")
    corpus_config: str | None = setting(None, "the config of a corpus on the Hub")
    corpus_split: str = setting("train", "the split of a corpus on the Hub")
    max_corpus_size: int | None = setting(None, "only the first so many pages (lines, files or rows) of the corpus")
    passage_tokens: int = setting(128, "longest document that the student reads, in tokens of --generator_model, its "
                                       "title counted; passages are cut to it")
    passage_words: int | None = setting(None, "cut passages of so many words instead (BERGEN: 100); the student and "
                                              "the teacher then read their first --passage_tokens tokens")
    generator_model: str | None = setting(
        None, f"the student's generator, whose tokenizer counts [{DEFAULT_GENERATOR}, or {EMBEDDED!r} with "
              "--num_synthetic_queries]")
    generator_revision: str | None = setting(None, "commit, branch or tag of the generator on the Hub")
    strict: bool = setting(False, "stop where a line of the corpus is damaged, instead of leaving it out")

    def __post_init__(self) -> None:
        faults = positive(self, "max_corpus_size", "passage_words")
        if self.passage_tokens < SMALLEST_PASSAGE_TOKENS:
            faults.append(f"--passage_tokens must be at least {SMALLEST_PASSAGE_TOKENS}, got {self.passage_tokens}")
        require(faults)


@dataclass(frozen=True)
class RecordsConfig:
    """What is made of it all, and where."""

    enable_reranking: bool = setting(False, "rank the passages found with a cross-encoder; its scores go into the "
                                            "records")
    top_k_reranking: int = setting(5, "documents of a record: the best for the reranker, or without one the first "
                                      "found")
    output_file: str = setting("train_data.json", "the records: a JSON list, or JSONL where it ends in .jsonl")
    eval_share: float = setting(0.05, f"share of the queries, {MOST_EVAL_QUERIES} at most, whose records go to "
                                      "X_eval.json beside X.json and are not trained on; 0 for none")
    work_dir: str | None = setting(None, "what every stage made, for later runs to go on from [X_work beside X.json]")
    last_stage: str = setting("records", "stop after this stage; a later run goes on from there", STAGES)

    def __post_init__(self) -> None:
        faults = positive(self, "top_k_reranking")
        if not 0 <= self.eval_share < 1:
            faults.append(f"--eval_share must be at least 0 and below 1, got {self.eval_share}")
        if self.last_stage not in STAGES:
            faults.append(f"--last_stage must be one of {', '.join(STAGES)}, got {self.last_stage!r}")
        require(faults)

    @property
    def work_folder(self) -> Path:
        """The work folder, given or beside the records."""
        output = Path(self.output_file)
        return Path(self.work_dir) if self.work_dir else output.with_name(f"{output.stem}_work")


@dataclass(frozen=True)
class PipelineConfig:
    """All settings of a run; what they must agree on is checked here."""

    queries: QueriesConfig
    corpus: CorpusConfig
    retrieval: RetrievalConfig
    reranker: RerankerConfig
    teacher: TeacherConfig
    records: RecordsConfig

    def __post_init__(self) -> None:
        faults = []
        is_synthetic, has_corpus = self.queries.num_synthetic_queries is not None, self.corpus.corpus_path is not None
        if is_synthetic and has_corpus:
            faults.append("--num_synthetic_queries has a corpus of its own: leave out --corpus_path")
        if not is_synthetic and not has_corpus:
            faults.append("--corpus_path is missing: give the file, folder or Hub dataset that passages come from")
        if self.records.last_stage == "reranking" and not self.records.enable_reranking:
            faults.append("--last_stage reranking needs --enable_reranking")
        require(faults)

    @property
    def generator(self) -> str:
        """The student's generator by name."""
        default = DEFAULT_GENERATOR if self.queries.num_synthetic_queries is None else EMBEDDED
        return self.corpus.generator_model or default

    def reaches(self, stage: str) -> bool:
        """Whether ``stage`` is run at all."""
        return STAGES.index(stage) <= STAGES.index(self.records.last_stage) and (
            stage != "reranking" or self.records.enable_reranking)

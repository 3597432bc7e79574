"""The pipeline's own settings: the corpus, the records, and what the settings of all stages must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scaledown.config import DEFAULT_GENERATOR, EMBEDDED
from scaledown.data.pipeline.queries import QueriesConfig
from scaledown.data.pipeline.retrieval import RetrievalConfig
from scaledown.data.pipeline.teacher import TeacherConfig
from scaledown.data.reranking.cross_encoder import RerankerConfig
from scaledown.prompt.passages import SMALLEST_PASSAGE_TOKENS
from scaledown.settings import positive, require, setting

PIPELINE_STAGES = ("queries", "passages", "index", "retrieval", "reranking", "teacher", "records")
MOST_EVAL_QUERIES = 2000


@dataclass(frozen=True)
class CorpusConfig:
    """The corpus, and the size of the passages that it is cut into."""

    corpus_path: str | None = setting(None, "kilt_knowledgesource.json, JSONL of {id, title, text}, a BEIR "
                                            "folder, files, or a Hub dataset")
    corpus_config: str | None = setting(None, "the config of a corpus on the Hub", is_advanced=True)
    corpus_split: str = setting("train", "the split of a corpus on the Hub", is_advanced=True)
    max_corpus_size: int | None = setting(None, "read only this number of pages of the corpus")
    passage_tokens: int = setting(128, "longest passage, in the generator's tokens")
    passage_words: int | None = setting(
        None, "cut passages of this number of words instead (BERGEN: 100); the student and the teacher then read their "
        "first --passage_tokens tokens", is_advanced=True)
    generator_model: str | None = setting(
        None, f"the student's generator, whose tokenizer counts [{DEFAULT_GENERATOR}; for synthetic queries "
        f"{EMBEDDED}]", is_advanced=True)
    generator_revision: str | None = setting(
        None, "commit, branch or tag of the generator on the Hub", is_advanced=True)
    strict: bool = setting(False, "stop at a damaged line of the corpus, instead of leaving it out", is_advanced=True)

    def __post_init__(self) -> None:
        faults = positive(self, "max_corpus_size", "passage_words")
        if self.passage_tokens < SMALLEST_PASSAGE_TOKENS:
            faults.append(f"--passage_tokens must be at least {SMALLEST_PASSAGE_TOKENS}, got {self.passage_tokens}")
        require(faults)


@dataclass(frozen=True)
class RecordsConfig:
    """The records that a run makes, and the places of all its files."""

    enable_reranking: bool = setting(False, "rank the passages with a cross-encoder")
    top_k_reranking: int = setting(5, "documents of a record, the best ones")
    output_file: str = setting("train_data.json", "the records, JSON or .jsonl")
    eval_share: float = setting(0.05, f"share of the queries, {MOST_EVAL_QUERIES} at most, whose records go to "
                                      "X_eval.json beside X.json and are not trained on; 0 for none", is_advanced=True)
    work_dir: str | None = setting(None, "folder of each stage's results [X_work beside X.json]")
    last_stage: str = setting(
        "records", "stop after this stage; a later run resumes there", PIPELINE_STAGES, is_advanced=True)

    def __post_init__(self) -> None:
        faults = positive(self, "top_k_reranking")
        # 0 makes no evaluation half; 1 would leave nothing to train on.
        if not 0 <= self.eval_share < 1:
            faults.append(f"--eval_share must be at least 0 and below 1, got {self.eval_share}")
        if self.last_stage not in PIPELINE_STAGES:
            faults.append(f"--last_stage must be one of {', '.join(PIPELINE_STAGES)}, got {self.last_stage!r}")
        require(faults)

    @property
    def work_folder(self) -> Path:
        """The work folder: ``work_dir``, or a folder beside the records."""
        output = Path(self.output_file)
        return Path(self.work_dir) if self.work_dir else output.with_name(f"{output.stem}_work")


@dataclass(frozen=True)
class PipelineConfig:
    """All settings of a run, checked to agree with one another."""

    queries: QueriesConfig
    corpus: CorpusConfig
    retrieval: RetrievalConfig
    reranker: RerankerConfig
    teacher: TeacherConfig
    records: RecordsConfig

    def __post_init__(self) -> None:
        faults = []

        # Synthetic queries come with the pages that answer them; all others need a corpus.
        is_synthetic = self.queries.num_synthetic_queries is not None
        has_corpus = self.corpus.corpus_path is not None
        if is_synthetic and has_corpus:
            faults.append("--num_synthetic_queries has a corpus of its own: leave out --corpus_path")
        if not is_synthetic and not has_corpus:
            faults.append("--corpus_path is missing: give the file, folder or Hub dataset that passages come from")

        if self.records.last_stage == "reranking" and not self.records.enable_reranking:
            faults.append("--last_stage reranking needs --enable_reranking")
        require(faults)

    @property
    def generator(self) -> str:
        """The name of the student's generator."""
        default = DEFAULT_GENERATOR if self.queries.num_synthetic_queries is None else EMBEDDED
        return self.corpus.generator_model or default

    def reaches(self, stage: str) -> bool:
        """Return whether the run includes ``stage``: it is not after the last one, and reranking is only on demand."""
        if stage == "reranking" and not self.records.enable_reranking:
            return False
        return PIPELINE_STAGES.index(stage) <= PIPELINE_STAGES.index(self.records.last_stage)

"""``report.md``: the figures, the tables and some answers on one page, with what they do and do not show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.figures.shown_text import one_line, printable
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.timing import PHASES

NUM_SAMPLES = 8
SAMPLE_CHARACTERS = 160
NAMES = {"no_documents": "No documents", "truncated_text": "Truncated text, same token budget",
         "before_training": "ScaleDown, before training", "scaledown": "ScaleDown, after training",
         "full_text": "Full text"}
METRIC_NAMES = {"exact_match": "exact match", "token_f1": "token F1", "rouge_l": "ROUGE-L", "accuracy": "accuracy"}

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~$&-])")


def escape(text: str) -> str:
    """Text that stands in one table cell as it is: markdown's signs escaped, one line."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def sample(text: str) -> str:
    """As :func:`escape`, cut if it is long."""
    line = one_line(text)
    return escape(line if len(line) <= SAMPLE_CHARACTERS else line[:SAMPLE_CHARACTERS].rstrip() + "…")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; cells are used as they are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _interval(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _summaries(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    baselines = report["baselines"]
    return {"no_documents": baselines["no_documents"], "truncated_text": baselines["truncated_text"],
            "before_training": report["before_training"], "scaledown": report["after_training"],
            "full_text": baselines["full_text"]}


def _quality_table(report: Mapping[str, Any]) -> str:
    rows = [[NAMES[name], *(f"{summary[f'{metric}_avg']:.3f} {_interval(summary[f'{metric}_ci95'])}"
                            for metric in METRICS), f"{summary['mean_prompt_tokens']:.1f}"]
            for name, summary in _summaries(report).items()]
    return table(["", *(METRIC_NAMES[metric] for metric in METRICS), "prompt tokens"], rows)


def _verdict(difference: float, ends: Sequence[float]) -> str:
    if ends[0] > 0:
        return "a gain"
    if ends[1] < 0:
        return "a loss"
    return "no gain is claimed: the interval holds 0" if difference else "no change"


def _change_table(report: Mapping[str, Any]) -> str:
    changes, rows = report["improvements"], []
    for metric in METRICS:
        key = f"{metric}_avg"
        difference, ends, relative = (changes[part][key] for part in ("absolute", "absolute_ci95", "relative"))
        rows.append([METRIC_NAMES[metric], f"{difference:+.3f} {_interval(ends)}",
                     "from 0" if relative is None else f"{relative:+.1%}", _verdict(difference, ends)])
    return table(["after training − before", "absolute", "relative", "so"], rows)


def _against_baselines(report: Mapping[str, Any]) -> list[str]:
    """One line for each baseline: above, below, or not told apart."""
    after = report["after_training"]
    low, high = after["exact_match_ci95"]
    lines = []
    for name, baseline in report["baselines"].items():
        other_low, other_high = baseline["exact_match_ci95"]
        place = "is above" if low > other_high else "is below" if high < other_low else None
        told = (f"ScaleDown's interval {place} it." if place
                else "the intervals overlap, so this run does not tell the two apart.")
        lines.append(f"- {NAMES[name]}: {baseline['exact_match_avg']:.3f} against ScaleDown's "
                     f"{after['exact_match_avg']:.3f} exact match; {told}")
    return lines


def _quality_notes(report: Mapping[str, Any]) -> list[str]:
    num_questions = report["run"]["n"]
    lines = ["Brackets are 95% bootstrap intervals: how far the mean would move with other questions of the same kind. "
             "They hold neither another training seed nor another kind of question."]
    averages = [summary[f"{metric}_avg"] for summary in _summaries(report).values() for metric in METRICS]
    if any(average in (0.0, 1.0) for average in averages):
        lines.append(f"An average of exactly 0 or 1 has an interval of no width, which is not certainty: with "
                     f"{num_questions} questions a true rate {min(1.0, 3 / num_questions):.1%} away is still "
                     "plausible (rule of three).")
    return lines


def _speed_table(report: Mapping[str, Any]) -> str:
    times = {"scaledown": report["speed_statistics"]}
    times |= {name: report["baselines"][name]["times"] for name in ("full_text", "truncated_text", "no_documents")}
    rows = [[NAMES[name], *(f"{part['median_ms']:.1f} ({part['p10_ms']:.1f} to {part['p90_ms']:.1f})"
                            for part in (system[phase] for phase in (*PHASES, "total"))),
             f"{system['mean_prompt_tokens']:.1f}", f"{system['mean_new_tokens']:.1f}"]
            for name, system in times.items()]
    return table(["ms a query: median (p10 to p90)", *PHASES, "total", "prompt tokens", "new tokens"], rows)


def _speed_notes(report: Mapping[str, Any]) -> str:
    speed = report["speed_statistics"]
    speedup = speed["speedup_over_full_text"]
    ratio = "" if speedup is None else f"The median query is {speedup:.2f} times as fast as with full text. "
    return (f"{ratio}{speed['num_queries']} questions, one at a time, systems in turn after a warm-up, on "
            f"{escape(report['run']['device'])}. Decoding time follows the answer's length (new tokens), so a system "
            "that says less looks faster.")


def _cost_table(report: Mapping[str, Any]) -> str:
    cost, rows = report["cost"], []
    for name in ("scaledown", "full_text", "truncated_text", "no_documents"):
        system = cost[name]
        rows.append([NAMES[name], *(f"{system['flops'][phase] / 1e9:.4g}" for phase in (*PHASES, "total")),
                     f"{system['flops_paper_convention']['total'] / 1e9:.4g}",
                     f"{system['key_value_bytes'] / 2**20:.3g}"])
    return table(["GFLOPs a query", *PHASES, "total", "total by the paper's convention", "key-value cache, MiB"], rows)


def _cost_notes(report: Mapping[str, Any]) -> str:
    parameters = report["cost"]["parameters"]
    return (f"Worked out from shapes and mean token counts, not measured. Parameters: generator "
            f"{parameters['generator']:,}, compressor {parameters['compressor']:,}, trained {parameters['trained']:,}. "
            "The paper's convention (arXiv:2504.07109, table 1) leaves out attention, adapters and the query that the "
            "compressor reads; the other columns count them.")


def _sample_table(before: SystemResult, after: SystemResult, full_text: SystemResult) -> str:
    """Evenly spaced questions: chosen by place, not by how well they were answered."""
    step = max(1, len(after.questions) // NUM_SAMPLES)
    triples = list(zip(before.questions, after.questions, full_text.questions, strict=True))[::step][:NUM_SAMPLES]
    rows = [[sample(new.query), sample("; ".join(new.references)),
             *(_answer(question) for question in (old, new, full))] for old, new, full in triples]
    return table(["question", "accepted answers", "before training", "after training", "full text"], rows)


def _answer(question: Any) -> str:
    return f"{'✓' if question.scores.exact_match else '✗'} {sample(question.prediction) or '(nothing)'}"


def _run_list(report: Mapping[str, Any]) -> list[str]:
    run = report["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version)
    command = printable(run["command_line"])
    # A fence that is longer than all in the command is not ended by one of them.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return [f"- {run['n']} evaluation questions, seed {run['seed']}", f"- {escape(run['device'])}",
            f"- commit {run['commit'] or 'unknown'}", f"- {versions}", "", fence, command, fence]


def _figure(name: str, alternative: str, left_out: Mapping[str, str]) -> str:
    """A figure's place on the page, or why it is not there."""
    if name in left_out:
        return f"The figure {escape(name)} is left out: {escape(left_out[name])}"
    return f"![{alternative}]({name})"


def _memory_blocks(memory: Mapping[str, Any] | None, left_out: Mapping[str, str]) -> list[str]:
    """One document's memory, as figure and table; nothing if there was none to look at."""
    if memory is None and "memory.png" not in left_out:
        return []
    blocks = ["## Inside the memory", _figure("memory.png", "Heat map of one document's memory", left_out)]
    if memory is None:
        return blocks
    rows = [[str(number), *(f"{escape(near['token']) or '(space)'} {near['cosine']:.2f}" for near in nearest)]
            for number, nearest in enumerate(memory["nearest"], 1)]
    return [*blocks, f"- Question: {sample(memory['query'])}\n- Accepted: {sample(memory['answer'])}",
            "The document is the first one that holds its answer word for word, whether it was answered or not.",
            table(["embedding", "nearest word, cosine", "second", "third"], rows)]


def report_page(report: Mapping[str, Any], before: SystemResult, after: SystemResult,
                full_text: SystemResult, memory: Mapping[str, Any] | None = None,
                left_out: Mapping[str, str] = MappingProxyType({})) -> str:
    """The page, from the content of ``metrics_report.json``, the answers behind it and one document's memory.

    ``left_out`` says why figures are not there, by their files' names.
    """
    blocks = ["# ScaleDown: before and after training", "\n".join(f"- {escape(note)}" for note in report["notes"]),
              "## Answers", _figure("before_after_comparison.png", "The four metrics of every system", left_out),
              _quality_table(report), _change_table(report), "\n".join(_against_baselines(report)),
              " ".join(_quality_notes(report)), "## Some answers",
              "Evenly spaced over the evaluation questions, not chosen. ✓ is an exact match.",
              _sample_table(before, after, full_text), *_memory_blocks(memory, left_out),
              "## Speed", _figure("speed_comparison.png", "Time and arithmetic of a query", left_out),
              _speed_table(report), _speed_notes(report), "## Cost", _cost_table(report), _cost_notes(report),
              "## Training", _figure("training_curves.png", "Losses and learning rates", left_out),
              "## Run", "\n".join(_run_list(report))]
    return "\n\n".join(block for block in blocks if block) + "\n"

"""The report's first lines: the result in sentences, and what was trained on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaledown.evaluation.figures.text_tables import score
from scaledown.evaluation.metrics import interval_text
from scaledown.evaluation.report.markdown_text import escape
from scaledown.progress import duration

SMALLEST_P = 0.001


def signed(value: float) -> str:
    """Return a difference with its sign, as tables have it."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def difference_text(test: Mapping[str, Any]) -> str:
    """Return a paired difference and its interval, such as "+0.120 [0.080, 0.160]"."""
    return f"{signed(test['difference'])} {interval_text(test['ci95'])}"


def p_text(test: Mapping[str, Any]) -> str:
    """Return the p-value of the sign test in a paired difference."""
    p_value = test["p_value"]
    return f"below {SMALLEST_P}" if p_value < SMALLEST_P else f"{p_value:.3f}"


def headline(report: Mapping[str, Any]) -> str:
    """Return the result: exact match before and after, against full text, and the compression rate in this data."""
    tests, num_questions = report["paired_tests"], report["run"]["n"]
    change, against_text = tests["before_training"]["exact_match"], tests["full_text"]["exact_match"]
    before, after = report["before_training"]["exact_match_avg"], report["after_training"]["exact_match_avg"]
    full_text = report["baselines"]["full_text"]["exact_match_avg"]

    return (f"Exact match is {score(before)} before training and {score(after)} after it, on {num_questions} "
            f"questions: {verdict_text(change)}. Full text reaches {score(full_text)}; against it ScaleDown: "
            f"{verdict_text(against_text)}. {compression_text(report)}")


def verdict_text(test: Mapping[str, Any]) -> str:
    """Return the verdict with its difference: "better (+0.120 [0.080, 0.160])"."""
    return f"{test['verdict']} ({difference_text(test)})"


def compression_text(report: Mapping[str, Any]) -> str:
    """Return the compression rate in the tokens of this data, and the prompt's length that follows."""
    cost = report["cost"]
    document_tokens, memory_tokens = cost["mean_text_tokens"]["document_tokens"], cost["num_memory_tokens"]
    prompt, text_prompt = cost["scaledown"]["prompt_tokens"], cost["full_text"]["prompt_tokens"]
    return (f"A document of {document_tokens:.1f} tokens on average becomes {memory_tokens} memory tokens "
            f"(compression rate {document_tokens / memory_tokens:.1f}), and the generator reads {prompt:.0f} tokens a "
            f"question instead of {text_prompt:.0f}.")


def facts(report: Mapping[str, Any]) -> list[str]:
    """Return what was trained on what, by what and when, as list items."""
    run, cost, training = report["run"], report["cost"], report["training"]
    settings, parameters, layers = run["settings"], cost["parameters"], cost["layers"]

    # The two models.
    generator = (f"{escape(settings['generator_model'])}, {layers['generator']} layers, "
                 f"{parameters['generator']:,} weights with its adapter")
    compressor = (f"{escape(settings['compressor_type'])}, {layers['compressor']} layers, "
                  f"{parameters['compressor']:,} weights")
    # The training: its length, its time and its records.
    steps, seconds, batch_size = training["steps"], training["seconds"], settings["batch_size"]
    resumed = " (since it was resumed)" if settings["resume"] else ""
    took = "" if seconds is None else f" in {duration(seconds)}{resumed}"
    length = "no step was logged" if steps is None else f"{steps:,} steps of {batch_size} records{took}"

    num_records = run["records"]["training"]
    epochs = "" if steps is None else f" (epochs: {steps * batch_size / num_records:.2g})"
    data = escape(settings["train_data"]) if settings["train_data"] else "the demo's made-up world"

    return [f"- Generator: {generator}", f"- Compressor: {compressor}",
            f"- Training: {parameters['trained']:,} weights, {length}",
            f"- Data: {num_records:,} records of {data}{epochs}",
            f"- Machine: {escape(run['device'])}; started {escape(run['started'])}"]

"""Tokens, FLOPs and seconds of all systems as a table, with a bar in each cell that compares the systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from scaledown.demo.asking import SYSTEMS
from scaledown.demo.timed_answer import GrowingText
from scaledown.evaluation.cost.question_cost import UNITS
from scaledown.evaluation.systems import LABELS


class Measure(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the row.
        is_part: it is a part of a row above it.
        value: of an answer that has ended.
        shown: a value as a text.
    """

    name: str
    is_part: bool
    value: Callable[[GrowingText], float]
    shown: Callable[[float], str]


def seconds_text(seconds: float) -> str:
    """Return a time as it is read: 35 ms, 1.24 s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def gflops_text(flops: float) -> str:
    """Return FLOPs in billions, the unit of all rows, with three digits or whole: 0.00881, 1.05, 1,234."""
    billions = flops / UNITS["G"]
    return f"{billions:,.0f}" if billions >= 100 else f"{billions:.3g}"


def _count(number: float) -> str:
    return f"{number:,.0f}"


MEASURES = (
    Measure("Prompt tokens", False, lambda answer: answer.num_prompt_tokens, _count),
    Measure("Answer tokens", False, lambda answer: answer.num_new_tokens, _count),
    Measure("GFLOPs", False, lambda answer: answer.flops.total, gflops_text),
    Measure("compress", True, lambda answer: answer.flops.compress, gflops_text),
    Measure("read the prompt", True, lambda answer: answer.flops.prefill, gflops_text),
    Measure("write the answer", True, lambda answer: answer.flops.decode, gflops_text),
    Measure("First token after", False, lambda answer: answer.seconds.first_token, seconds_text),
    Measure("compress", True, lambda answer: answer.seconds.compress, seconds_text),
    Measure("read the prompt", True, lambda answer: answer.seconds.prompt, seconds_text),
    Measure("Whole answer after", False, lambda answer: answer.seconds.whole, seconds_text),
)
NOTE = ("A GFLOP is a billion floating-point operations, computed from the shapes of the models and the numbers "
        "of tokens. Times are of this one question, on this machine, one system after another.")
NOTHING = "\N{EN DASH}"


def costs_html(answers: dict[str, GrowingText]) -> str:
    """Return the table of what is known so far; an answer that has not ended has no costs yet."""
    ended = {name: answer for name, answer in answers.items() if answer.seconds is not None}
    heads = [f'<th scope="col">{LABELS[system.name]}</th>' for system in SYSTEMS]

    rows = []
    for measure in MEASURES:
        values = {name: measure.value(answer) for name, answer in ended.items()}
        highest = max(values.values(), default=0.0)
        cells = [_cell(measure, system.name, values.get(system.name), highest) for system in SYSTEMS]
        kind = ' class="sd-part"' if measure.is_part else ""
        rows.append(f'<tr{kind}><th scope="row">{measure.name}</th>{"".join(cells)}</tr>')
    return (f'<div class="sd sd-costs"><h2>What it costs</h2><table><thead><tr><td></td>{"".join(heads)}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table><p class="sd-quiet">{NOTE}</p></div>')


def _cell(measure: Measure, system: str, value: float | None, highest: float) -> str:
    """Return a value with its bar; a dash for one that is not known, or is nothing at all."""
    if not value:
        return f'<td class="sd-quiet">{NOTHING}</td>'
    bar = ""
    if not measure.is_part:
        bar = f'<span class="sd-bar sd-{system}" style="width:{100 * value / highest:.1f}%"></span>'
    return f"<td>{measure.shown(value)}{bar}</td>"

"""The parts of the memory that is asked for, and the flags with which a card of each size suffices."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.evaluation.cost.empty_model import EmptyModel
from scaledown.evaluation.cost.flops import TokenCounts
from scaledown.evaluation.cost.needed_memory import Need, answering_need, training_need
from scaledown.evaluation.cost.question_cost import token_counts
from scaledown.evaluation.figures.text_tables import console_table

CARDS = (16, 24, 40, 48, 80)
"""GB that cards have."""
USABLE = 0.9
"""The share of a card that an estimate may fill: the rest is CUDA's own, and gaps between blocks of memory."""
GIGA = 1e9
ANSWERED_TOGETHER = 8
"""Questions, as :meth:`ScaleDownModel.answer` takes them by default."""

LORA_RANK = 16
"""Of a compressor that is a small change: the generator's own."""

FOR_ANSWERING = "for_answering"
"""Not a setting, but a call: the model's adapters are folded in on the CPU, before it is moved to the GPU."""

Settings = dict[str, Any]
Way = tuple[Settings, Need]
"""Settings that differ from those asked for, and what is needed with them."""

CHANGES: tuple[Settings, ...] = (
    {}, {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "optimizer": "adamw_8bit"},
    {"gradient_checkpointing": True, "optimizer": "adamw_8bit", "load_in_4bit": True},
    {"gradient_checkpointing": True, "load_in_4bit": True, "compressor_lora_rank": LORA_RANK})
"""Ways to need less memory, those first that change least of what is trained: time, rounding, then the model."""


def settings_of_flags(args: argparse.Namespace) -> tuple[ScaleDownConfig, TrainingConfig, TokenCounts]:
    """Return the model, its training and the tokens of a question that the command's flags describe."""
    model = ScaleDownConfig(
        generator_model=args.generator_model, compressor_type=args.compressor_type, num_layers=args.num_layers,
        compressor_model=args.compressor_model, num_memory_tokens=args.num_memory_tokens,
        compressor_lora_rank=args.compressor_lora_rank, lora_rank=args.lora_rank or ScaleDownConfig.lora_rank,
        load_in_4bit=args.load_in_4bit)
    training = TrainingConfig(
        batch_size=args.batch_size, gradient_accumulation_steps=args.gradient_accumulation_steps,
        gradient_checkpointing=args.gradient_checkpointing, optimizer=args.optimizer)
    return model, training, token_counts(args)[0]


def training_ways(config: ScaleDownConfig, training: TrainingConfig, tokens: TokenCounts,
                  dtype: torch.dtype) -> Iterator[Way]:
    """Yield the ways to train, from what is asked for on, each with every possible number of micro-batches."""
    for changes in CHANGES:
        asked = {**dataclasses.asdict(config), **dataclasses.asdict(training)}
        new = {name: value for name, value in changes.items() if asked[name] != value and _is_possible(name, config)}
        # Some of them are settings of the model, the others of the training.
        of_model = {name: value for name, value in new.items() if hasattr(config, name)}
        of_training = {name: value for name, value in new.items() if hasattr(training, name)}

        model = EmptyModel.of(dataclasses.replace(config, **of_model), dtype)
        # From the number that is asked for on: more micro-batches only ever take less memory.
        for parts in range(training.gradient_accumulation_steps, training.batch_size + 1):
            if training.batch_size % parts == 0:
                settings = dataclasses.replace(training, gradient_accumulation_steps=parts, **of_training)
                is_asked = parts == training.gradient_accumulation_steps
                in_parts = {} if is_asked else {"gradient_accumulation_steps": parts}
                yield new | in_parts, training_need(model, settings, tokens)


def _is_possible(name: str, config: ScaleDownConfig) -> bool:
    """Return whether a setting can be changed beside the others that are asked for."""
    if name == "load_in_4bit":
        return not config.load_in_8bit
    # A rank that is asked for stays.
    return name != "compressor_lora_rank" or (config.compressor_lora_rank is None and not config.reads_text)


def answering_ways(config: ScaleDownConfig, tokens: TokenCounts, dtype: torch.dtype) -> Iterator[Way]:
    """Yield the ways to answer, from what is asked for on: a checkpoint answers with what it was trained with."""
    model = EmptyModel.of(config, dtype)
    yield {}, answering_need(model, ANSWERED_TOGETHER, tokens)
    # An adapter can be folded into a base of 16 or 32 bits alone.
    if not (config.load_in_4bit or config.load_in_8bit):
        yield {FOR_ANSWERING: True}, answering_need(model, ANSWERED_TOGETHER, tokens, only_answers=True)

    for changes in ({"load_in_4bit": True}, {"load_in_4bit": True, "compressor_lora_rank": LORA_RANK}):
        asked = dataclasses.asdict(config)
        new = {name: value for name, value in changes.items() if asked[name] != value and _is_possible(name, config)}
        model = EmptyModel.of(dataclasses.replace(config, **new), dtype)
        yield new, answering_need(model, ANSWERED_TOGETHER, tokens)


def first_that_fits(ways: Iterable[Way], num_bytes: float) -> Way | None:
    """Return the first way that needs at most ``num_bytes``; None if none does."""
    return next((way for way in ways if way[1].peak <= num_bytes), None)


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as they are typed, and a call as it is written."""
    typed = []
    for name, value in settings.items():
        if name == FOR_ANSWERING:
            typed.append(f"{name}()")
        else:
            typed.append(f"--{name}" if value is True else f"--{name} {value}")
    return typed


def report(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the tables of the memory that the command's flags ask for, as text and for a JSON file."""
    config, training, tokens = settings_of_flags(args)
    dtype = getattr(torch, args.dtype)
    to_train = list(training_ways(config, training, tokens, dtype))
    to_answer = list(answering_ways(config, tokens, dtype))

    # For each card the first way that fits, to train and to answer.
    rows, cards = [], {}
    for size in CARDS:
        trains, answers = (first_that_fits(ways, USABLE * size * GIGA) for ways in (to_train, to_answer))
        rows.append([f"{size} GB", *_cells(trains), *_cells(answers)])
        cards[str(size)] = {"trains": _json(trains), "answers": _json(answers)}

    asked, answering = to_train[0][1], to_answer[0][1]
    text = "\n\n".join([
        _part_table("training, as asked for", asked),
        _part_table(f"answering {ANSWERED_TOGETHER} questions", answering),
        console_table(["card", "trains with", "GB", "answers with", "GB"], rows)])
    return text, {"training": _json(to_train[0]), "answering": _json(to_answer[0]), "cards": cards}


def _part_table(title: str, need: Need) -> str:
    rows = [[name, f"{size / GIGA:.2f}"] for name, size in need.parts.items()]
    rows.append(["together", f"{need.peak / GIGA:.2f}"])
    return f"{console_table([title, 'GB'], rows)}\nat its peak: {need.moment}"


def _cells(way: Way | None) -> list[str]:
    if way is None:
        return ["does not fit", ""]
    settings, need = way
    return ["\n".join(flags(settings)) or "what is asked for", f"{need.peak / GIGA:.1f}"]


def _json(way: Way | None) -> dict[str, Any] | None:
    if way is None:
        return None
    settings, need = way
    return {"flags": flags(settings), "bytes": need.peak, "fixed_bytes": need.fixed, "parts": dict(need.parts)}

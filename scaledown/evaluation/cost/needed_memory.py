"""The memory that training and answering need, computed from shapes: no weight is read and nothing is run.

Counted are the tensors of PyTorch: weights, gradients, the optimizer's state, and what lives during a step. A step has
five moments at which most may live: the end of the forward pass, the backward pass of the generator, the beginning and
the end of that of the compressor, and the optimizer's own step. The largest of them is the peak. What comes on top on a
GPU, CUDA's own memory and the gaps between blocks, is left to the room that a card must have to spare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from scaledown.config import TrainingConfig
from scaledown.evaluation.cost.activations import FLOAT_BYTES, Layers, Read, layers_of
from scaledown.evaluation.cost.empty_model import EmptyModel
from scaledown.evaluation.cost.flops import TokenCounts
from scaledown.models.engine.folding import shared_with_adapters
from scaledown.models.loading.parameters import trained
from scaledown.models.losses import CHUNK_LOGITS
from scaledown.training.optimizer import IN_8_BITS, split

STATE_BYTES = {"adamw": 8.0, "muon": 8.0, "adamw_8bit": 2 + 2 * 4 / 256, "paged_adamw_8bit": 0.0}
"""Of AdamW's two means of a weight, in 8 bits with a scale for each 256 of them. A paged state can leave the GPU."""
Parts = dict[str, float]
"""Bytes by what they are for."""


@dataclass(frozen=True)
class Need:
    """The need of a model at its peak.

    Attributes:
        parts: bytes at that moment, by what they are for.
        fixed: those of training that remain whatever the batch is.
        moment: which moment it is.
    """

    parts: Mapping[str, float]
    fixed: float
    moment: str

    @property
    def peak(self) -> float:
        """Return the bytes at the peak."""
        return sum(self.parts.values())


def training_need(model: EmptyModel, training: TrainingConfig, tokens: TokenCounts, device_type: str = "cuda") -> Need:
    """Return what training needs on one device that holds the whole model.

    Args:
        model: what is trained.
        training: the size of a step, the number of its micro-batches, the optimizer, and whether activations are
            computed twice.
        tokens: of one question; ``prompt_tokens`` with its memory or its text, ``new_tokens`` of its answer.
        device_type: of the device.
    """
    of_trained = FLOAT_BYTES * _size(model.trained)
    state = state_bytes(model, training.optimizer)
    weights = {"frozen weights": model.frozen_bytes, "trained weights": of_trained}

    moments = _moments_of_training(model, training, tokens, device_type)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    # There are as many gradients as trained weights.
    fixed = sum(weights.values()) + state + of_trained
    return Need(weights | {"optimizer's state": state} | moments[moment], fixed, moment)


def _moments_of_training(model: EmptyModel, training: TrainingConfig, tokens: TokenCounts,
                         device_type: str) -> dict[str, Parts]:
    """Return what lives at each moment beside the weights and the optimizer's state."""
    questions, twice = training.batch_size // training.gradient_accumulation_steps, training.gradient_checkpointing
    gradients, of_adapter = FLOAT_BYTES * _size(model.trained), FLOAT_BYTES * _size(trained(model.generator).values())
    before = gradients if training.gradient_accumulation_steps > 1 else 0.0    # those of earlier micro-batches

    # What is kept between the passes, and what is at work while a layer is computed.
    of_generator, generator_work, _ = _passes(*_of_generator(model, questions, tokens, device_type), twice)
    of_compressor, start_work, end_work, of_layer = 0.0, 0.0, 0.0, 0.0
    if compressor := _of_compressor(model, questions, tokens, device_type):
        of_compressor, start_work, end_work = _passes(*compressor, twice)
        of_layer = 0.0 if compressor[0].adapters else FLOAT_BYTES * compressor[0].weights

    # In bfloat16, copies of the trained matrices live until the end of the forward pass, and if it is not repeated,
    # until they have served the backward pass.
    copies = _rounded_copies(model) + (0.0 if twice else _rounded_frozen_copies(model))
    left = 0.0 if twice else copies
    # The first layer's gradients take the place of its activations, unless there are some of earlier micro-batches.
    end = before or gradients - of_layer
    logits = _logits(model, questions * tokens.new_tokens)
    step = _step_work(model, training.optimizer, device_type)
    return {
        "the end of the forward pass": _parts(before, of_compressor, of_generator, copies, logits),
        "the generator's backward pass": _parts(before, of_compressor, of_generator, left, generator_work),
        "the start of the compressor's backward pass": _parts(before or of_adapter, of_compressor, 0.0, left,
                                                              start_work),
        "the end of the compressor's backward pass": _parts(end, 0.0, 0.0, 0.0, end_work),
        "the optimizer's step": _parts(gradients, 0.0, 0.0, 0.0, step)}


def answering_need(model: EmptyModel, questions: int, tokens: TokenCounts, only_answers: bool = False) -> Need:
    """Return what answering ``questions`` questions together needs: compressing first, then writing the answers.

    Args:
        model: what answers.
        questions: how many.
        tokens: of one of them.
        only_answers: the model's ``for_answering`` was called before it was moved to the device.
    """
    # Folded adapters stay where they are. The pass needs no copies of what has the format of the arithmetic.
    trained_bytes = model.dtype.itemsize if only_answers else FLOAT_BYTES
    weights = {"frozen weights": model.frozen_bytes, "trained weights": trained_bytes * _size(model.trained)}
    if only_answers:
        shared = shared_with_adapters(model.generator, model.compressor)
        weights["frozen weights"] += model.dtype.itemsize * _size([base.weight for base in shared])
    copies = 0.0 if only_answers else _rounded_copies(model)

    # The memory itself is small beside them.
    layers, read = _of_generator(model, questions, tokens, "cuda")
    cache = layers.number * read.tokens * 2 * layers.keys * layers.value_bytes
    writing = {"keys and values": cache, "at work": layers.forward_work(read) + _logits(model, questions)}
    moments = {"writing the answers": writing}
    if compressor := _of_compressor(model, questions, tokens, "cuda"):
        layers, read = compressor
        moments["compressing"] = {"weights in bfloat16": copies, "at work": layers.forward_work(read)}

    moment = max(moments, key=lambda name: sum(moments[name].values()))
    return Need(weights | moments[moment], sum(weights.values()), moment)


def state_bytes(model: EmptyModel, optimizer: str) -> float:
    """Return the bytes of the optimizer's state.

    Muon has one mean of a compressor's matrices, and AdamW's two of the rest; 8 bits hold that of weights, not of rows.
    """
    matrices, rest = split(model.groups, model.compressor) if optimizer == "muon" else ([], model.groups)
    total = sum(FLOAT_BYTES * _size(group["params"]) for group in matrices)
    for group in rest:
        is_whole = group["name"].endswith("_rows")
        total += STATE_BYTES["adamw" if is_whole else optimizer] * _size(group["params"])
    return total


def _step_work(model: EmptyModel, optimizer: str, device_type: str) -> float:
    """Return the bytes in use while the optimizer makes its step."""
    groups, largest = model.groups, max(parameter.numel() for parameter in model.trained)
    work = 0.0
    if optimizer == "muon":
        matrices, groups = split(groups, model.compressor)
        shapes: dict[tuple[int, ...], int] = {}
        for group in matrices:
            for parameter in group["params"]:
                shapes[tuple(parameter.shape)] = shapes.get(tuple(parameter.shape), 0) + parameter.numel()
        # All matrices of a shape together.
        work = max((count * _iteration_bytes(shape, device_type) for shape, count in shapes.items()), default=0.0)

    if optimizer in IN_8_BITS:
        # The weights are changed in place; of the rows, as below.
        groups = [group for group in groups if group["name"].endswith("_rows")]
    # On a GPU, AdamW makes the roots of a whole group's second means at once; elsewhere two tensors of one weight.
    if device_type == "cpu":
        return max(work, 2 * FLOAT_BYTES * largest)
    return max([work, *(float(FLOAT_BYTES * _size(group["params"])) for group in groups)])


def _iteration_bytes(shape: tuple[int, ...], device_type: str) -> float:
    """Return what Muon's iteration has at work for each number of a matrix: see ``orthogonal``.

    These are the update, the result before and after an iteration, and two squares of the matrix's smaller side; on a
    GPU all but the update are in bfloat16.
    """
    squares = 2 * min(shape) / max(shape)
    return FLOAT_BYTES * (3 + squares) if device_type == "cpu" else FLOAT_BYTES + 2 * (3 + squares)


def _parts(gradients: float, compressor: float, generator: float, copies: float, work: float) -> Parts:
    return {"gradients": gradients, "weights in bfloat16": copies, "compressor's activations": compressor,
            "generator's activations": generator, "at work": work}


def _passes(layers: Layers, read: Read, twice: bool) -> tuple[float, float, float]:
    """Return the bytes kept between the passes, and those at work at the start and the end of the backward pass."""
    at_end = layers.of_layer(read) + layers.backward_work(read)
    if twice and layers.value_bytes < FLOAT_BYTES and not layers.adapters:
        at_end += layers.weights * layers.value_bytes    # rounded again
    # The last layer, of few tokens, is done by then. The one before it is kept, or computed again.
    at_start = (at_end if twice else layers.backward_work(read)) - layers.of_last(read)
    return layers.kept(read, twice), at_start, at_end


def _of_generator(model: EmptyModel, questions: int, tokens: TokenCounts, device_type: str) -> tuple[Layers, Read]:
    """Return the generator's layers, and what they read: each prompt with its answer is a text of its own."""
    size = model.dtype.itemsize
    layers = layers_of(model.generator.base.base_model, size, size, model.config.lora_dropout, device_type)
    num_tokens = questions * (tokens.prompt_tokens + tokens.new_tokens)
    return layers, Read(num_tokens, num_tokens, questions * tokens.new_tokens)


def _of_compressor(model: EmptyModel, questions: int, tokens: TokenCounts,
                   device_type: str) -> tuple[Layers, Read] | None:
    """Return the compressor's layers, and what they read of queries and documents; None if there is none."""
    config = model.config
    if config.reads_text:
        return None

    tail = tokens.memory_tokens + tokens.rerank_tokens
    num_documents = questions * tokens.num_documents
    whole = tokens.query_tokens + tokens.document_tokens + tail    # of one document with its query
    is_encoder = not hasattr(model.compressor, "body")
    body = model.compressor.encoder if is_encoder else model.compressor.body
    # What it reads is in float32, whatever the arithmetic is.
    layers = layers_of(body, model.dtype.itemsize, FLOAT_BYTES, config.lora_dropout, device_type, is_encoder)
    if is_encoder:
        return layers, Read(num_documents * whole, num_documents * whole, num_documents * tail,
                            num_documents * whole * whole)

    # A prefix is read once for all texts that continue it.
    num_prefixes, prefix = questions, tokens.query_tokens
    if config.input_order == "document_first":
        num_prefixes, prefix = num_documents, tokens.document_tokens
    suffixes = num_documents * (whole - prefix)
    return layers, Read(num_prefixes * prefix + suffixes, num_prefixes * prefix + num_documents * whole,
                        num_documents * tail, suffixes * whole)


def _rounded_copies(model: EmptyModel) -> float:
    """Return the bytes of the trained matrices' copies in the arithmetic's format, which live as long as a pass."""
    if model.dtype == torch.float32:
        return 0.0
    return model.dtype.itemsize * _size([parameter for parameter in model.trained if parameter.ndim > 1])


def _rounded_frozen_copies(model: EmptyModel) -> float:
    """Return the bytes of such copies of the compressor's frozen matrices, if these are held in float32.

    So is a model of its own beside LoRA. Its copies are not shared by a pass: each is kept for the backward pass.
    """
    if model.dtype == torch.float32:
        return 0.0
    linear = [module.weight for module in model.compressor.modules() if isinstance(module, nn.Linear)]
    frozen = [weight for weight in linear if not weight.requires_grad and weight.dtype == torch.float32]
    return model.dtype.itemsize * _size(frozen)


def _logits(model: EmptyModel, num_tokens: float) -> float:
    """Return the bytes of the logits that exist at one time, in float32 and in the format of the head.

    On a GPU with little free memory they are fewer, and with much of it more.
    """
    count = min(CHUNK_LOGITS, num_tokens * model.generator.base.config.vocab_size)
    copies = 2 * model.dtype.itemsize if model.dtype != torch.float32 else 0
    return count * (FLOAT_BYTES + copies)


def _size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)

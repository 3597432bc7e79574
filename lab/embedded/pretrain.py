"""Train a generator from nothing: Muon on its matrices, AdamW on the rest, harder levels as it learns."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaForCausalLM

from lab.embedded.building import PretrainConfig
from lab.embedded.course import PROMOTION_EXACT_MATCH, Course
from lab.embedded.world_batches import BatchMaker, Mixture
from scaledown.training.devices import dtype_for
from scaledown.training.optimizer import Muon

STATE_FILE = "state.safetensors"
WARMUP_STEPS = 20
ACCURACY_MEMORY = 0.98
SHALLOW_LAYERS = 4
SAVE_SECONDS = 300
"""No more than that is lost by a kill, however slow the steps."""
MAY_CHANGE = ("steps", "eval_steps")
"""Settings that a run may be resumed with in another value."""


def hidden_states(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> Tensor:
    """The last hidden states (B, T, D) of a batch of branching rows."""
    return model.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"],
                       attention_mask=batch["mask"], use_cache=False).last_hidden_state


def losses(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, float]:
    """The answers' loss, the documents' loss, and the share of answers whose every token is the most likely one."""
    hidden = hidden_states(model, batch)
    answers, texts = batch["answers"], batch["texts"]
    logits = model.lm_head(hidden[answers]).float()
    targets = batch["next_ids"][answers]
    answer_loss = F.cross_entropy(logits, targets)
    text_loss = F.cross_entropy(model.lm_head(hidden[texts]).float(), batch["next_ids"][texts])
    return answer_loss, text_loss, _right(logits.argmax(-1) == targets, answers).float().mean().item()


def _right(is_correct: Tensor, answers: Tensor) -> Tensor:
    """Whether all tokens of each answer are correct, answer by answer; ``is_correct`` is for the answers' tokens."""
    is_first = (answers & ~torch.roll(answers, 1, dims=1))[answers]
    number = is_first.cumsum(0) - 1
    all_right = torch.ones(int(is_first.sum()), dtype=torch.bool, device=answers.device)
    return all_right.scatter_reduce(0, number, is_correct, "amin")


@torch.inference_mode()
def exact_match(model: LlamaForCausalLM, batches: BatchMaker, mixture: Mixture, num_batches: int) -> float:
    """Share of answers whose every token, the end included, is the most likely one: what greedy decoding would say."""
    right = []
    for number in range(num_batches):
        batch = on_device(batches.batch(number, mixture), model)
        answers = batch["answers"]
        predicted = model.lm_head(hidden_states(model, batch)[answers]).argmax(-1)
        right.append(_right(predicted == batch["next_ids"][answers], answers))
    return torch.cat(right).float().mean().item()


def on_device(batch: Mapping[str, Tensor], model: LlamaForCausalLM) -> dict[str, Tensor]:
    """The batch where the model is."""
    return {name: tensor.to(model.device, non_blocking=True) for name, tensor in batch.items()}


class Pretraining:
    """The training loop and its state; ``folder`` holds the state, so that a killed run goes on where it was.

    It trains where the model is, in bfloat16 arithmetic where that place is good at it. Under ``torchrun`` each process
    draws batches of its own and gradients are averaged; the first one writes.
    """

    def __init__(self, config: PretrainConfig, model: LlamaForCausalLM, course: Course, folder: Path) -> None:
        self.config, self.model, self.course, self.folder = config, model, course, folder
        self.settings = {name: value for name, value in asdict(config).items() if name not in MAY_CHANGE}
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
        self.optimizers = {
            "muon": Muon(matrices, lr=config.learning_rate_matrices, weight_decay=0.01),
            "adamw": torch.optim.AdamW(rest, lr=config.learning_rate_rest, betas=(0.9, 0.95), weight_decay=0.0),
        }
        self.peaks = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.step, self.level, self.accuracy = 0, 0, 0.0
        is_shared = dist.is_initialized()
        self.rank, self.num_processes = (dist.get_rank(), dist.get_world_size()) if is_shared else (0, 1)

    def run(self) -> None:
        """Train to the last step, logging to ``log.jsonl`` at each evaluation, and saving the state as time passes."""
        self._restore()
        bar = tqdm(total=self.config.steps, initial=self.step, desc="generator", mininterval=5,
                   disable=self.rank > 0)
        started, saved, trained_tokens = time.perf_counter(), time.perf_counter(), 0
        while self.step < self.config.steps:
            answer_loss, text_loss, num_tokens = self._train_step()
            trained_tokens += num_tokens
            bar.update()
            bar.set_postfix(level=self.level, exact_match=f"{self.accuracy:.3f}", loss=f"{answer_loss:.3f}",
                            refresh=False)
            is_due = self.step % self.config.eval_steps == 0 or self.step == self.config.steps
            if is_due and self.rank == 0:
                self._log(answer_loss, text_loss, trained_tokens / (time.perf_counter() - started))
            if is_due:
                started, trained_tokens = time.perf_counter(), 0
            if (is_due or time.perf_counter() - saved > SAVE_SECONDS) and self.rank == 0:
                self._save()
                saved = time.perf_counter()
        bar.close()

    def _train_step(self) -> tuple[float, float, int]:
        """One step; returns the losses of answers and texts, and the tokens of the batch, padding included."""
        self.model.train()
        self.model.config.num_hidden_layers = self._depth()
        level = self.course.levels[self.level]
        batch = on_device(self.course.train.batch(self.step * self.num_processes + self.rank,
                                                  replace(level.mixture, tokens=self.config.batch_tokens)), self.model)
        with self._arithmetic():
            answer_loss, text_loss, accuracy = losses(self.model, batch)
        (answer_loss + self.config.text_loss_weight * text_loss).backward()
        accuracy = self._average(accuracy)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.peaks[name] * self._schedule()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.accuracy = ACCURACY_MEMORY * self.accuracy + (1 - ACCURACY_MEMORY) * accuracy
        if self.accuracy > PROMOTION_EXACT_MATCH and self.level + 1 < len(self.course.levels):
            self.level, self.accuracy = self.level + 1, 0.0
        return answer_loss.item(), text_loss.item(), batch["input_ids"].numel()

    def _depth(self) -> int:
        """Layers that run on this level."""
        is_deep = self.course.levels[self.level].is_deep
        return self.config.num_layers if is_deep else min(SHALLOW_LAYERS, self.config.num_layers)

    def _arithmetic(self) -> AbstractContextManager:
        dtype = dtype_for(self.model.device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.model.device.type, dtype)

    def _average(self, accuracy: float) -> float:
        """Average the gradients and the accuracy over the processes, in one message."""
        if self.num_processes == 1:
            return accuracy
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        first = torch.tensor([accuracy], device=self.model.device)
        message = torch.cat([first, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(message)
        message /= self.num_processes
        start = 1
        for gradient in gradients:
            gradient.copy_(message[start:start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        return message[0].item()

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / WARMUP_STEPS)
        left = (self.config.steps - self.step) / (self.config.decay_share * self.config.steps)
        return warm * min(1.0, left)

    def _log(self, answer_loss: float, text_loss: float, tokens_per_second: float) -> None:
        self.model.eval()
        row = {"step": self.step, "level": self.level, "training_exact_match": self.accuracy,
               "answer_loss": answer_loss, "text_loss": text_loss, "tokens_per_second": tokens_per_second}
        with self._arithmetic():
            for name, mixture in self.course.evaluation.items():
                row[name] = exact_match(self.model, self.course.held_out, mixture, num_batches=4)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        tqdm.write(json.dumps({key: round(value, 4) for key, value in row.items()}))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        for name, optimizer in self.optimizers.items():
            for place, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{place}.{key}": value for key, value in state.items()}
        return tensors

    def _save(self) -> None:
        state = {"step": str(self.step), "level": str(self.level), "accuracy": repr(self.accuracy),
                 "settings": json.dumps(self.settings)}
        save_file(self._tensors(), self.folder / "state.tmp", metadata=state)
        os.replace(self.folder / "state.tmp", self.folder / STATE_FILE)

    def _restore(self) -> None:
        """Go on from the state in the folder, if there is one.

        Raises:
            ValueError: where it is damaged, or of a run with other settings.
        """
        path = self.folder / STATE_FILE
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                state = file.metadata()
            tensors = load_file(path)
        except (SafetensorError, OSError) as fault:
            raise ValueError(f"{path}: damaged ({fault}); delete it to start again") from None
        self._check_settings(path, state)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
        for name, optimizer in self.optimizers.items():
            saved = optimizer.state_dict()
            for key, value in tensors.items():
                owner, _, rest = key.partition(".")
                if owner == name:
                    place, _, entry = rest.partition(".")
                    saved["state"].setdefault(int(place), {})[entry] = value
            optimizer.load_state_dict(saved)
        self.step, self.level = int(state["step"]), int(state["level"])
        self.accuracy = float(state["accuracy"])

    def _check_settings(self, path: Path, state: Mapping[str, str]) -> None:
        earlier = json.loads(state.get("settings", "{}"))
        differing = [f"--{name} was {earlier.get(name)!r}, is {value!r}" for name, value in self.settings.items()
                     if earlier.get(name) != value]
        if differing:
            raise ValueError(f"{path} is the state of another run: {'; '.join(differing)}. Give another --work_dir, or "
                             "delete it")

"""Training of a generator from nothing by transformers' Trainer: Muon for its matrices, AdamW for the rest.

The levels get harder as the generator learns. Each process of ``torchrun`` trains on its own batches; the Trainer
averages their gradients.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from lab.embedded import recipe
from lab.embedded.recipe import PretrainConfig
from lab.embedded.token_tree import IGNORED, collate
from lab.embedded.world_batches import WorldBatches
from scaledown import processes
from scaledown.hub.number_formats import dtype_for
from scaledown.training import checkpoints
from scaledown.training.optimizer import Muon, OptimizerPair
from scaledown.training.steps.step_lines import print_in_lines

LOG_FILE = "log.jsonl"
HELD_OUT_BATCHES = 4
WEIGHT_DECAY = 0.01
"""Of matrices only."""
ADAMW_BETAS = (0.9, 0.95)


def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean loss of answers' tokens, the mean loss of texts' tokens, and which answers are right (A,)."""
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"],
                   attention_mask=batch["attention_mask"], use_cache=False).logits.float()      # (B, T, V)

    # Only the N tokens that have a target.
    is_target, is_answer = batch["targets"] != IGNORED, batch["is_answer"]                      # (B, T)
    logits, targets = logits[is_target], batch["targets"][is_target]                            # (N, V) and (N,)
    token_losses = F.cross_entropy(logits, targets, reduction="none")
    of_answer = is_answer[is_target]                                                            # (N,)

    right = right_answers((logits.argmax(-1) == targets)[of_answer], is_answer)
    return token_losses[of_answer].mean(), token_losses[~of_answer].mean(), right


def right_answers(is_correct: Tensor, is_answer: Tensor) -> Tensor:
    """Return for each answer (A,) whether greedy decoding would give it: all its tokens, the end included.

    Args:
        is_correct: for each of the answers' tokens (N,), whether it is the most likely one.
        is_answer: which targets (B, T) are of answers; between two answers there is always some other token.
    """
    # A start follows a token of no answer. The last token of a sequence has no target, so rolling it round is harmless.
    is_start = is_answer & ~torch.roll(is_answer, 1, dims=1)

    # The answer of each token: the number of starts up to there, counted from 0.
    answer_of_token = is_start[is_answer].cumsum(0) - 1                        # (N,)
    are_right = torch.ones(int(is_start.sum()), dtype=torch.bool, device=is_answer.device)
    return are_right.scatter_reduce(0, answer_of_token, is_correct, "amin")


@torch.inference_mode()
def exact_match(model: LlamaForCausalLM, batches: WorldBatches) -> float:
    """Return the share of answers that greedy decoding would give."""
    right = []
    for number in range(len(batches)):
        batch = {name: values.to(model.device) for name, values in collate(batches[number]).items()}
        right.append(losses(model, batch)[2])
    return torch.cat(right).float().mean().item()


class Climb(TrainerCallback, ExportableState):
    """Climbs to the next level when the generator answers well enough; its state is part of a checkpoint's.

    Attributes:
        level: number of the level, from 0.
        exact_match: running mean over the training batches of this level.
    """

    def __init__(self, config: PretrainConfig, batches: WorldBatches) -> None:
        self.config, self.batches = config, batches
        self.level, self.exact_match = 0, 0.0

    def state(self) -> dict[str, Any]:
        """Return the state, in the Trainer's form."""
        return {"args": {}, "attributes": {"level": self.level, "exact_match": self.exact_match}}

    def add(self, exact_match: float) -> None:
        """Add the exact match on a training batch to the running mean."""
        memory = recipe.MEMORY_OF_EXACT_MATCH
        self.exact_match = memory * self.exact_match + (1 - memory) * exact_match

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                       model: LlamaForCausalLM, **kwargs: Any) -> None:
        """Enter the level of the checkpoint that the run goes on from, or the first one."""
        saved = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.level, self.exact_match = saved["level"], saved["exact_match"]
        self._enter_level(model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    model: LlamaForCausalLM, **kwargs: Any) -> None:
        """Enter the next level, if it is time."""
        if self.exact_match > recipe.PROMOTION_EXACT_MATCH and self.level + 1 < len(recipe.LEVELS):
            self.level, self.exact_match = self.level + 1, 0.0
            self._enter_level(model)

    def _enter_level(self, model: LlamaForCausalLM) -> None:
        level = recipe.LEVELS[self.level]
        self.batches.mixture = replace(level.mixture, tokens=self.config.batch_tokens)
        # transformers' Llama runs this number of its layers, the first ones.
        num_layers = self.config.num_layers
        model.config.num_hidden_layers = num_layers if level.is_deep else min(recipe.SHALLOW_LAYERS, num_layers)


class SealCheckpoints(TrainerCallback):
    """Moves each finished checkpoint from the Trainer's folder into ``folder``, and deletes the one before it.

    So a checkpoint that was cut short by a kill is never taken for a whole one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the checkpoint that the Trainer has just written."""
        # Every process writes a file of it.
        processes.wait()
        if not state.is_world_process_zero:
            return

        checkpoints.keep(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.folder, num_kept=1)


class GeneratorTrainer(Trainer):
    """Trains a generator on the levels of the recipe.

    Args:
        config: size and schedule.
        model: a new generator, on the device where it trains.
        tokenizer: the generator's.
        folder: gets the log and the last checkpoint.
    """

    def __init__(self, config: PretrainConfig, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase,
                 folder: Path) -> None:
        self.config, self.folder = config, folder
        train_batches = WorldBatches(tokenizer, recipe.LEVELS[0].mixture, config.seed, "train",
                                     config.steps * processes.count())
        held_out = {name: WorldBatches(tokenizer, mixture, config.seed, "eval", HELD_OUT_BATCHES)
                    for name, mixture in recipe.EVALUATION.items()}
        self.climb = Climb(config, train_batches)

        super().__init__(model, training_arguments(config, model.device, folder / checkpoints.DRAFT),
                         train_dataset=train_batches, eval_dataset=held_out,
                         callbacks=[self.climb, SealCheckpoints(folder)],
                         optimizers=(build_optimizer(config, model), None))
        print_in_lines(self)
        # Since the last line of the log.
        self._start, self._num_tokens = time.perf_counter(), 0
        self._last_losses = (torch.zeros(()), torch.zeros(()))

    def get_train_dataloader(self) -> DataLoader:
        """Return a loader that makes each batch when its step begins.

        The Trainer's own loader draws a batch ahead, but the level of a batch depends on the step before it.
        """
        # Process r of n takes batches r, r + n, r + 2n, ...; each item of the dataset is a whole batch.
        numbers = range(processes.rank(), len(self.train_dataset), processes.count())
        return DataLoader(self.train_dataset, batch_size=1, sampler=numbers,
                          collate_fn=lambda batches: collate(batches[0]))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False,
                     num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Return the loss of a batch, and note how many of its answers are right."""
        answer_loss, text_loss, right = losses(model, inputs)
        # The mean over all processes, so that they climb together.
        self.climb.add((processes.summed(right.float().mean()) / processes.count()).item())

        self._last_losses = (answer_loss.detach(), text_loss.detach())
        self._num_tokens += inputs["input_ids"].numel()
        return answer_loss + self.config.text_loss_weight * text_loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Log the exact match on held-out batches; the Trainer calls this every ``eval_steps`` steps and at the end."""
        measured: dict[str, float] = {}
        # One process measures, the others wait for it in the next step.
        if self.is_world_process_zero():
            answer_loss, text_loss = (loss.item() for loss in self._last_losses)
            measured = {"level": self.climb.level, "training_exact_match": self.climb.exact_match,
                        "answer_loss": answer_loss, "text_loss": text_loss,
                        "tokens_per_second": self._num_tokens / (time.perf_counter() - self._start)}
            for name, batches in self.eval_dataset.items():
                measured[name] = exact_match(self.model, batches)
            with (self.folder / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": self.state.global_step} | measured) + "\n")
            # As two entries: what comes from the latest batches, and what is measured here.
            of_training = {"answer_loss": answer_loss, "text_loss": text_loss}
            self.log(of_training)
            self.log({f"eval_{name}": value for name, value in measured.items() if name not in of_training})

        self._start, self._num_tokens = time.perf_counter(), 0
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return

        # --steps may be another number now: the rates are those of this run's schedule, not of the one that was saved.
        schedule = self.lr_scheduler
        for group, peak, share in zip(self.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = peak * share(schedule.last_epoch)


def training_arguments(config: PretrainConfig, device: torch.device, output_dir: Path) -> TrainingArguments:
    """Return the Trainer's settings for ``config``: warm-up, a constant rate, and a linear fall to 0."""
    return TrainingArguments(
        output_dir=str(output_dir), use_cpu=device.type == "cpu", bf16=dtype_for(device) == torch.bfloat16,
        max_steps=config.steps, per_device_train_batch_size=1, max_grad_norm=config.max_grad_norm, seed=config.seed,
        lr_scheduler_type="warmup_stable_decay", warmup_steps=recipe.WARMUP_STEPS,
        lr_scheduler_kwargs={"num_decay_steps": round(config.decay_share * config.steps), "decay_type": "linear"},
        eval_strategy="steps", eval_steps=config.eval_steps, save_strategy="steps", save_steps=config.eval_steps,
        logging_strategy="no", report_to=[], disable_tqdm=True,
        # Deep layers have no gradients on the first levels.
        ddp_find_unused_parameters=True,
        # Written into the generator's config.
        use_cache=True)


def build_optimizer(config: PretrainConfig, model: LlamaForCausalLM) -> OptimizerPair:
    """Return Muon for the matrices and AdamW for embeddings and norms, with a peak learning rate each."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed" not in name
        (matrices if is_matrix else others).append(parameter)
    return OptimizerPair(Muon(matrices, lr=config.learning_rate_matrices, weight_decay=WEIGHT_DECAY),
                         torch.optim.AdamW(others, lr=config.learning_rate_rest, betas=ADAMW_BETAS, weight_decay=0.0))

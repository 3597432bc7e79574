"""Training by distillation (paper, section 3.3), on transformers' Trainer."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import Trainer, TrainerState
from transformers.integrations import TensorBoardCallback, TrackioCallback
from transformers.trainer import TRAINER_STATE_NAME

from scaledown import processes
from scaledown.config import COMPRESSORS, ScaleDownConfig, TrainingConfig
from scaledown.models.engine.moving import Parcel
from scaledown.models.losses import Losses, counts
from scaledown.models.model import ScaleDownModel
from scaledown.training import checkpoints, devices, objective, sharding
from scaledown.training.batches import (
    LikeLengthSampler,
    StepCollator,
    draw_text_documents,
    pads_to_max,
    prompt_sizes,
    shapes_of,
)
from scaledown.training.optimizer import build_optimizer
from scaledown.training.steps import unused_weights
from scaledown.training.steps.callbacks import GRADIENT, CompressorFirst, EvaluateEvery, LossGuard, RunningMean
from scaledown.training.steps.step_lines import StepLines, print_in_lines
from scaledown.training.steps.trainer_arguments import training_arguments

KEPT_CHECKPOINTS = 2
LORA_RATE_FACTOR = 10

Evaluate = Callable[[], Mapping[str, float]]


def compressor_learning_rate(config: TrainingConfig, model: ScaleDownConfig) -> float:
    """Return the compressor's peak learning rate: as set, else the paper's for its type (table 7), ten times for LoRA.

    Low-rank changes train best at about ten times the rate of all weights.
    """
    if config.learning_rate_compressor is not None:
        return config.learning_rate_compressor
    rate = COMPRESSORS[model.compressor_type].learning_rate
    return rate if model.compressor_lora_rank is None else LORA_RATE_FACTOR * rate


class ScaleDownTrainer(Trainer):
    """Trains compressor, LoRA, special tokens and heads together: two learning rates, one loss, its parts logged.

    Args:
        model: on the device where it trains.
        config: the training's settings; ``batch_size`` is the global one.
        records: with ``query``, ``documents``, ``answer`` and, for reranking, ``reranking_scores``.
        output_dir: gets ``checkpoint-N`` folders, each a whole checkpoint plus the trainer's state.
        evaluate: called every ``eval_steps`` steps; its result is logged as ``eval_*``.
        eval_steps: steps between two calls of ``evaluate``.
        in_order: take the records in their order, easy ones first, instead of shuffled by length.

    Raises:
        ValueError: if the batch size cannot be shared among the processes.
    """

    def __init__(self, model: ScaleDownModel, config: TrainingConfig, records: Sequence[Any], output_dir: Path | str,
                 evaluate: Evaluate | None = None, eval_steps: int | None = None, in_order: bool = False) -> None:
        self.config, self.in_order = config, in_order
        self.loss_parts, self._step_ids = RunningMean(), []
        self.loss_guard = LossGuard(is_scaled=model.dtype == torch.float16)
        # The learning rates of the latest step, by their names in the log.
        self._rates: dict[str, float] = {}
        # The weight first: to ask all records, pretraining would have to make each of them.
        self._has_scores = bool(model.config.enable_reranking and config.reranking_loss_weight
                                and objective.has_scores(records))
        # Since the last checkpoint.
        self._num_steps, self._num_scores = 0, torch.zeros((), dtype=torch.long)

        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        # Refuses a generator that cannot be trained; later, compiled or sharded, it cannot be tested.
        with model.inference():
            model.generator.head()

        shapes = None
        if pads_to_max(config, model):
            shapes = shapes_of(records, model.processor, config.answer_tokens)
        collate = StepCollator(model.processor, config, shapes, processes.rank(), processes.count())
        self.is_sharded = config.shard and processes.count() > 1

        # DDP alone asks, and a model that is sharded or alone does without.
        has_copies = processes.count() > 1 and not self.is_sharded
        arguments = training_arguments(config, model, output_dir,
                                       may_leave_out=has_copies and unused_weights.may_be(model, config, records))
        super().__init__(model=_Trainable(model, config.compile), args=arguments, train_dataset=records,
                         data_collator=collate)
        # Else the Trainer would pass the batch as keyword arguments, and normalise the loss by itself.
        self.model_accepts_loss_kwargs, self.loss_is_scaled_for_ga = False, True
        print_in_lines(self)
        self.add_callback(CompressorFirst(model.generator, config.compressor_warmup_steps))
        if evaluate is not None and eval_steps:
            self.add_callback(EvaluateEvery(eval_steps))
        self._measure = evaluate

    @property
    def scaledown(self) -> ScaleDownModel:
        """The model, without what wraps it for several processes."""
        return self.accelerator.unwrap_model(self.model).scaledown

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer, with separate learning rates for the generator and the compressor (table 7)."""
        if self.optimizer is None:
            # Sharding replaces the parameters, so it comes before the optimizer takes them.
            if self.is_sharded:
                sharding.shard(self.model, self.scaledown)

            rate = compressor_learning_rate(self.config, self.scaledown.config)
            groups = self.scaledown.parameter_groups(self.config.learning_rate_generator, rate,
                                                     self.config.weight_decay)
            self.optimizer = build_optimizer(self.config.optimizer, groups, self.scaledown)
        return self.optimizer

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: DataLoader | None = None) -> nn.Module:
        # The Trainer wraps its model for DDP unless it gets another module back, and a sharded one must not be wrapped.
        if self.is_sharded:
            return nn.Sequential(self.model)
        wrapped = super()._wrap_model(model, training, dataloader)

        # Gradients then lie where DDP exchanges them, instead of being copied there: one copy less in memory.
        if self.accelerator.ddp_handler is not None:
            self.accelerator.ddp_handler.gradient_as_bucket_view = True
        return wrapped

    def get_train_dataloader(self) -> DataLoader:
        """Return a loader of each step's records; every process draws them all, and the collator takes its share."""
        loader = DataLoader(self.train_dataset, self.config.batch_size, sampler=self._get_train_sampler(),
                            collate_fn=self.data_collator, num_workers=self.args.dataloader_num_workers,
                            persistent_workers=self.args.dataloader_persistent_workers,
                            pin_memory=self.args.dataloader_pin_memory)
        return prepare_data_loader(loader, num_processes=1, process_index=0)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        if self.in_order:
            return SequentialSampler(self.train_dataset)
        sizes = prompt_sizes(self.train_dataset, self.scaledown.config)
        return LikeLengthSampler(sizes, self.config.batch_size, self.config.seed)

    def training_step(self, model: nn.Module, inputs: list[Parcel],
                      num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Run the forward and backward passes of a step, micro-batch by micro-batch.

        Raises:
            ValueError: if they do not fit into memory, with the batch size that does; or if the loss is not finite.
        """
        try:
            return self._step_in_parts(model, inputs)
        except (MemoryError, RuntimeError) as fault:
            if not devices.is_out_of_memory(fault):
                raise
        # After the handler, when the memory of the failed pass is free again.
        raise ValueError(self._advice_on_memory())

    def _step_in_parts(self, model: nn.Module, parcels: list[Parcel]) -> Tensor:
        """Return the loss of a step made of micro-batches, in all processes: the mean over all their tokens.

        A loss is a mean over answer tokens (or scores, or readout tokens), and micro-batches differ in their number of
        these. So each is weighed by its share of the step's total. DDP averages gradients over the processes, so the
        shares are multiplied by the number of processes.
        """
        # All of them are on the device before the first pass, and are counted there: so the host never waits for it.
        parts = [parcel.unpacked(self.args.device) for parcel in parcels]
        own_counts = torch.stack([counts(part) for part in parts]).float()    # (parts, 3)
        total = processes.summed(own_counts.sum(0))                           # (3,)
        shares = own_counts * processes.count() / total.clamp(min=1)

        devices.check_same(self.args.device, model=self.scaledown.device, accelerator=self.accelerator.device)
        losses = []
        for part, share in zip(parts, shares, strict=True):
            # Gradients are exchanged once a step, with the last micro-batch.
            is_last = len(losses) == len(parts) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, share))

        padding_share = sum(part["padding_share"] for part in parts) / len(parts)
        # Filled in on the device: a number that is sent there is waited for.
        self.loss_parts.add(padding_share=torch.full((), padding_share, device=self.args.device))
        self.loss_parts.end_step()
        # Before the step of the optimizer, after which the schedule sets those of the next one.
        self._rates = self._learning_rates()
        self._num_steps += 1
        # Counts are in the order of Losses: answer tokens, scores, readout tokens.
        self._num_scores = self._num_scores.to(total.device) + total[1].long()
        return torch.stack(losses).sum()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Tensor | None = None) -> Tensor:
        """Return what a micro-batch adds to the loss of its step.

        Args:
            num_items_in_batch: its shares (3,) of the step's answer tokens, scores and readout tokens.
        """
        step, record_ids = self.state.global_step, inputs.pop("record_ids")
        self._step_ids += record_ids
        # A compiled step is compiled again for each new value that is not a tensor.
        del inputs["padding_share"]
        if step < self.config.readout_steps:
            # Without prompts the generator is not run.
            del inputs["prompts"]

        losses = objective.times(model(inputs), num_items_in_batch)
        loss = objective.weighted(losses, self._weights(step))
        devices.check_same(self.args.device, loss_of_the_batch=loss.device)

        # On a GPU the losses stay there until they are logged: reading one would wait for the queue.
        self.loss_guard.add(step + 1, record_ids, loss)
        if loss.device.type == "cpu":
            self.loss_guard.check()
        # A reranking head with nothing to learn from has an error of 0, which would read as a perfect score.
        shown = losses if self._has_scores else losses._replace(reranking_loss=None)
        self.loss_parts.add(**shown._asdict())
        return loss

    def _weights(self, step: int) -> tuple[float, ...]:
        return objective.weights(self.config, self.scaledown.config, step, self.state.max_steps)

    def _advice_on_memory(self) -> str:
        weights = self._weights(self.state.global_step)

        # Try smaller batches of the longest records; sharded weights need all processes, so there none is tried.
        def step(records: Sequence[Any]) -> None:
            texts = draw_text_documents(records, self.config.train_text_documents)
            batch = self.scaledown.processor.collate(records, self.config.answer_tokens,
                                                     with_readout=self.config.readout_loss_weight > 0,
                                                     text_documents=texts)
            objective.weighted(self.scaledown(batch), weights).backward()

        examples = self.data_collator.part_size
        if self.is_sharded:
            return devices.out_of_memory_of_many(examples, self.config.gradient_accumulation_steps)
        num_fitting = devices.largest_fitting(step, self.train_dataset, examples)
        return devices.out_of_memory(examples, num_fitting, self.config.gradient_accumulation_steps)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure, and log the result as an entry of its own; the Trainer calls this after it has logged the step."""
        # The Trainer would save after it. The check at the end can take long, so the last steps are saved first.
        # Earlier checks stay before their checkpoint, which then holds their results.
        if self.state.global_step == self.state.max_steps and self.control.should_save:
            self._save_checkpoint(self.model_wrapped, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

        with sharding.gathered(self.model):
            measured = {f"eval_{name}": value for name, value in self._measure().items()}
        self.log(measured)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with each part of the loss and each learning rate."""
        self.loss_guard.check()
        # That of a step which was skipped, as its scaled gradients were infinite. JSON knows no infinity.
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            del logs["grad_norm"]
        is_of_step = "loss" in logs and "train_runtime" not in logs
        if is_of_step:
            logs |= self.loss_parts.take() | self._rates
        super().log(logs, start_time)

    def _learning_rates(self) -> dict[str, float]:
        rates = {}
        for group in self.optimizer.param_groups:
            # The groups of rows have the rates of their weights.
            if group["name"].endswith("_weights"):
                rates[f"learning_rate_{group['name'].removesuffix('_weights')}"] = group["lr"]
        return rates

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """Guard the gradient; the Trainer calls this between clipping and the step, which a NaN would spoil."""
        norm = sharding.whole(super()._get_grad_norm(model, grad_norm=grad_norm))
        record_ids, self._step_ids = self._step_ids, []
        self.loss_guard.add(self.state.global_step + 1, record_ids, torch.as_tensor(norm, device=self.args.device),
                            what=GRADIENT)
        if self.args.device.type == "cpu":
            self.loss_guard.check()
        return norm

    def close_logs(self) -> None:
        """Close the log files and the bar of a training that failed; one that ended by itself has closed them.

        A run of wandb is closed in any case.
        """
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback | TrackioCallback | StepLines):
                callback.on_train_end(self.args, self.state, self.control)

        # The Trainer leaves it open until Python ends, but our commands end without that (scaledown/cli), and its last
        # lines would be lost.
        if "wandb" in self.args.report_to:
            import wandb

            wandb.finish(exit_code=int(self.state.global_step < self.state.max_steps))

    def load_if_finished(self, checkpoint: Path) -> bool:
        """Load ``checkpoint`` and return True if it was written after the last step; otherwise return False.

        The Trainer would take one step more from there.
        """
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step < state.max_steps:
            return False

        self.scaledown.load_trained(checkpoint)
        self.state = state
        # Opens the logs, for the check that may still come; close_logs closes them.
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        return True

    def note_progress(self) -> None:
        """Add the steps and scores since the last call to the model's own count, which its checkpoints hold."""
        num_scores = int(self._num_scores) if self.config.reranking_loss_weight else 0
        self.scaledown.progress = self.scaledown.progress.after(self._num_steps, num_scores, self.config.query_dropout)
        self._num_steps, self._num_scores = 0, torch.zeros_like(self._num_scores)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as the Trainer does, but to a draft that is renamed at the end: a named checkpoint is complete."""
        self.loss_guard.check()
        self.note_progress()
        folder = Path(self.args.output_dir)

        # One process writes, all take part in gathering the weights.
        if self.args.should_save:
            shutil.rmtree(folder / checkpoints.DRAFT, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        with sharding.whole_weights(self.model):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()

        if self.args.should_save:
            draft, = (folder / checkpoints.DRAFT).glob("checkpoint-*")
            checkpoints.keep(draft, folder, KEPT_CHECKPOINTS)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(self.args.output_dir) / checkpoints.DRAFT)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            self.scaledown.save_pretrained(output_dir or self.args.output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        with sharding.whole_state(self.optimizer):
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.is_sharded:
            sharding.share_state(self.optimizer.optimizer)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.scaledown.load_trained(Path(resume_from_checkpoint))


class _Trainable(nn.Module):
    """The model without its ``config``, which the Trainer would take for one of transformers' and write to."""

    def __init__(self, scaledown: ScaleDownModel, is_compiled: bool) -> None:
        super().__init__()
        self.scaledown = scaledown
        self._losses = devices.compiled(scaledown.forward, scaledown.device) if is_compiled else scaledown.__call__

    def forward(self, batch: dict[str, Any]) -> Losses:
        # A step gets its batches on the device, also one that is compiled.
        return self._losses(batch)

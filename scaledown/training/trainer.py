"""Training by distillation (paper, section 3.3), on transformers' Trainer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback

from scaledown import processes
from scaledown.config import TrainingConfig
from scaledown.models.fixed_shapes import Shapes
from scaledown.models.losses import Losses, counts
from scaledown.models.model import ScaleDownModel
from scaledown.models.packing import moved
from scaledown.training import checkpoints, devices, objective, sharding
from scaledown.training.batches import LikeLengthSampler, StepCollator, pads_to_max, prompt_sizes
from scaledown.training.callbacks import CompressorFirst, EvaluateEvery, LossGuard, RunningMean
from scaledown.training.optimizer import build_optimizer

COMPRESSOR_LEARNING_RATES = {"n_layers": 5e-5, "modernbert": 1e-4, "llm": 1e-4}
"""Table 7 of the paper."""

KEPT_CHECKPOINTS = 2
GPU_WORKERS = 2
"""Processes that tokenise ahead of a GPU; on a CPU they would only take its cores."""

Evaluate = Callable[[], Mapping[str, float]]


def compressor_learning_rate(config: TrainingConfig, compressor_type: str) -> float:
    """The compressor's peak learning rate: as set, else the paper's for its type (table 7)."""
    return config.learning_rate_compressor or COMPRESSOR_LEARNING_RATES[compressor_type]


def training_arguments(config: TrainingConfig, model: ScaleDownModel, output_dir: Path | str) -> TrainingArguments:
    """The Trainer's own settings for ``config``.

    Raises:
        ValueError: where the global batch cannot be shared evenly among processes and accumulation steps.
    """
    parts = processes.count() * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise ValueError(f"--batch_size {config.batch_size} cannot be shared among {processes.count()} processes with "
                         f"--gradient_accumulation_steps {config.gradient_accumulation_steps}: make it a multiple "
                         f"of {parts}")
    workers = config.num_workers if config.num_workers is not None else GPU_WORKERS * (model.device.type == "cuda")
    return TrainingArguments(
        dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0,
        output_dir=str(output_dir), use_cpu=model.device.type == "cpu",
        per_device_train_batch_size=config.batch_size // processes.count(), num_train_epochs=config.num_epochs,
        max_steps=config.max_steps or -1, learning_rate=config.learning_rate_generator,
        lr_scheduler_type="linear", warmup_steps=config.warmup_ratio, max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps, logging_nan_inf_filter=False, save_steps=config.save_steps,
        seed=config.seed, report_to=["tensorboard"], remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda", ddp_find_unused_parameters=True)


class ScaleDownTrainer(Trainer):
    """Trains compressor, LoRA, special rows and heads together: two learning rates, one loss, its parts logged.

    Args:
        model: what is trained, on the device where it trains.
        config: how; ``batch_size`` is the global one.
        records: ``query``, ``documents``, ``answer`` and, for reranking, ``reranking_scores``.
        output_dir: gets ``checkpoint-N`` folders, each a whole checkpoint with the trainer's state beside it.
        evaluate: called every ``eval_steps`` steps; what it returns is logged as ``eval_*``.
        eval_steps: steps between two calls of ``evaluate``.
        in_order: take the records as they come, easy ones first, instead of shuffled with like lengths together.

    Raises:
        ValueError: where the batch size cannot be shared among the processes.
    """

    def __init__(self, model: ScaleDownModel, config: TrainingConfig, records: Sequence[Any], output_dir: Path | str,
                 evaluate: Evaluate | None = None, eval_steps: int | None = None, in_order: bool = False) -> None:
        self.config, self.parts, self.in_order = config, RunningMean(), in_order
        self.losses, self._step_ids = LossGuard(), []
        self._num_steps, self._num_scores = 0, torch.zeros((), dtype=torch.long)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        arguments = training_arguments(config, model, output_dir)
        shapes = None
        if pads_to_max(config, model):
            shapes = Shapes.of_records(records, model.processor, config.answer_tokens)
        collate = StepCollator(model.processor, config, shapes, processes.rank(), processes.count())
        self.is_shared_out = config.shard and processes.count() > 1
        # A generator that cannot be trained is refused now; what is compiled or shared out cannot be asked.
        model.generator.head()
        super().__init__(model=_Trainable(model, config.compile), args=arguments, train_dataset=records,
                         data_collator=collate)
        # Otherwise the Trainer would take the batch for keyword arguments, and normalise the loss by itself.
        self.model_accepts_loss_kwargs, self.loss_is_scaled_for_ga = False, True
        self.add_callback(CompressorFirst(model.generator, config.compressor_warmup_steps))
        if evaluate is not None and eval_steps:
            self.add_callback(EvaluateEvery(eval_steps))
        self._measure = evaluate

    @property
    def scaledown(self) -> ScaleDownModel:
        """The model, out of whatever wraps it for several processes."""
        return self.accelerator.unwrap_model(self.model).scaledown

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer, with a learning rate of its own for the generator and for the compressor (table 7)."""
        if self.optimizer is None:
            if self.is_shared_out:
                sharding.shard(self.model, self.scaledown)
            groups = self.scaledown.parameter_groups(
                self.config.learning_rate_generator,
                compressor_learning_rate(self.config, self.scaledown.config.compressor_type), self.config.weight_decay)
            self.optimizer = build_optimizer(self.config.optimizer, groups, self.scaledown)
        return self.optimizer

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: DataLoader | None = None) -> nn.Module:
        # Another module than its own keeps the Trainer from wrapping a shared one for DDP.
        return nn.Sequential(self.model) if self.is_shared_out else super()._wrap_model(model, training, dataloader)

    def get_train_dataloader(self) -> DataLoader:
        """The records of each step, the same ones in every process, of which the collator takes this one's share."""
        loader = DataLoader(self.train_dataset, self.config.batch_size, sampler=self._get_train_sampler(),
                            collate_fn=self.data_collator, num_workers=self.args.dataloader_num_workers,
                            persistent_workers=self.args.dataloader_persistent_workers,
                            pin_memory=self.args.dataloader_pin_memory)
        return prepare_data_loader(loader, num_processes=1, process_index=0)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        if self.in_order:
            return SequentialSampler(self.train_dataset)
        sizes = prompt_sizes(self.train_dataset, self.scaledown.config.num_memory_tokens)
        return LikeLengthSampler(sizes, self.config.batch_size, self.config.seed)

    def training_step(self, model: nn.Module, inputs: list[dict[str, Any]],
                      num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Forward and backward pass of all parts of a step.

        Raises:
            ValueError: where they do not fit into memory, with the batch size that does; where the loss is no number.
        """
        try:
            return self._step_in_parts(model, inputs)
        except (MemoryError, RuntimeError) as fault:
            if not devices.is_out_of_memory(fault):
                raise
        # Behind the handler, so that what the failed pass had allocated is free again.
        inputs.clear()
        raise ValueError(self._advice_on_memory())

    def _step_in_parts(self, model: nn.Module, parts: list[dict[str, Any]]) -> Tensor:
        """The loss of a step, of which each part adds as much as it has of what all parts' means are over.

        Gradients are averaged over the processes, hence their number; they meet in the last part alone.
        """
        own = torch.stack([counts(part) for part in parts]).to(self.args.device, torch.float32)
        total = processes.summed(own.sum(0))
        shares = own * processes.count() / total.clamp(min=1)
        losses = []
        for part, share in zip(parts, shares, strict=True):
            is_last = len(losses) == len(parts) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, share))
        padding_share = sum(part["padding_share"] for part in parts) / len(parts)
        self.parts.add(padding_share=torch.tensor(padding_share, device=self.args.device))
        self.parts.end_step()
        self._num_steps, self._num_scores = self._num_steps + 1, self._num_scores.to(total.device) + total[1].long()
        return torch.stack(losses).sum()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Tensor | None = None) -> Tensor:
        """What a part adds to its step's loss: its means times its shares (3,) of what they are means over.

        The loss's parts are summed on the device until they are logged.
        """
        step, record_ids = self.state.global_step, inputs.pop("record_ids")
        self._step_ids += record_ids
        # What differs from batch to batch, beside tensors, would be compiled anew each time.
        del inputs["padding_share"]
        if step < self.config.readout_steps:
            # Without prompts the generator is not run.
            del inputs["prompts"]
        losses = objective.times(model(inputs), num_items_in_batch)
        loss = objective.weighted(losses, objective.weights(self.config, step, self.state.max_steps))

        self.losses.add(step + 1, record_ids, loss)
        if loss.device.type == "cpu":
            self.losses.check()
        self.parts.add(**losses._asdict())
        return loss

    def _advice_on_memory(self) -> str:
        weights = objective.weights(self.config, self.state.global_step, self.state.max_steps)

        def step(records: Sequence[Any]) -> None:
            batch = self.scaledown.processor.collate(records, self.config.answer_tokens,
                                                     with_readout=self.config.readout_loss_weight > 0)
            objective.weighted(self.scaledown(batch), weights).backward()

        examples = self.data_collator.part_size
        if self.is_shared_out:
            return devices.out_of_memory_of_many(examples, self.config.gradient_accumulation_steps)
        num_fitting = devices.largest_fitting(step, self.train_dataset, examples)
        return devices.out_of_memory(examples, num_fitting, self.config.gradient_accumulation_steps)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Called when a step that was to be logged is logged; what is measured becomes a row of its own."""
        with sharding.gathered(self.model):
            measured = {f"eval_{name}": value for name, value in self._measure().items()}
        self.log(measured)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with each part of the loss and each learning rate."""
        self.losses.check()
        if "loss" in logs and "train_runtime" not in logs:
            logs |= self.parts.take()
            logs |= {f"learning_rate_{group['name'].removesuffix('_weights')}": group["lr"]
                     for group in self.optimizer.param_groups if group["name"].endswith("_weights")}
        super().log(logs, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """Called between clipping and the optimizer's step, which a gradient that is no number would spoil."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = sharding.whole(norm)
        ids, self._step_ids = self._step_ids, []
        self.losses.add(self.state.global_step + 1, ids, torch.as_tensor(norm, device=self.args.device),
                        what="norm of the gradient")
        if self.args.device.type == "cpu":
            self.losses.check()
        return norm

    def close_logs(self) -> None:
        """Close what a training that failed has left open: one that came to its end has closed it by itself."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.on_train_end(self.args, self.state, self.control)

    def note_progress(self) -> None:
        """Tell the model what it has learnt from since the last call, for its checkpoint to say so."""
        num_scores = int(self._num_scores) if self.config.reranking_loss_weight else 0
        self.scaledown.progress = self.scaledown.progress.after(self._num_steps, num_scores)
        self._num_steps, self._num_scores = 0, torch.zeros_like(self._num_scores)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the Trainer does it, but written aside: a checkpoint that has its name is whole."""
        self.losses.check()
        self.note_progress()
        folder = Path(self.args.output_dir)
        if self.args.should_save:
            shutil.rmtree(folder / checkpoints.DRAFT, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        with sharding.gathered(self.model):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            draft, = (folder / checkpoints.DRAFT).glob("checkpoint-*")
            shutil.rmtree(folder / draft.name, ignore_errors=True)
            checkpoints.seal(draft, folder / draft.name)
            for path in checkpoints.found(folder)[:-KEPT_CHECKPOINTS]:
                shutil.rmtree(path)
            shutil.rmtree(folder / checkpoints.DRAFT)
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
        if self.is_shared_out:
            sharding.share_state(self.optimizer.optimizer)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.scaledown.load_trained(Path(resume_from_checkpoint))


class _Trainable(nn.Module):
    """The model without its ``config``, which the Trainer would take for one of transformers' own and write to."""

    def __init__(self, scaledown: ScaleDownModel, is_compiled: bool) -> None:
        super().__init__()
        self.scaledown = scaledown
        self._losses = devices.compiled(scaledown.forward, scaledown.device) if is_compiled else scaledown.__call__

    def forward(self, batch: dict[str, Any]) -> Losses:
        # Before what is compiled, which then finds everything where it computes.
        return self._losses(moved(batch, self.scaledown.device))

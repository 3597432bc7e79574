"""Train the embedded generator from nothing: Muon on its matrices, AdamW on the rest, harder levels as it learns."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from scaledown.config import setting
from scaledown.data.synthetic import Difficulty
from scaledown.training.embedded.batches import BatchMaker, Mixture
from scaledown.training.muon import Muon

PROMOTION_EXACT_MATCH = 0.7
EMBEDDING_SCALE = 0.3
WARMUP_STEPS = 20
ACCURACY_MEMORY = 0.98
LEVELS = (
    Mixture(Difficulty(), query_first_share=0.0, name_list_share=1.0),
    Mixture(Difficulty((2, 5), (1, 1), hard_share=1.0, two_hop_share=0.0, similar_share=0.0, num_wordings=1,
                       fillers=False), query_first_share=0.0, name_list_share=0.1, cloze_share=0.8),
    Mixture(Difficulty((2, 5), (1, 2), hard_share=1.0, two_hop_share=0.0, similar_share=0.0, num_wordings=2,
                       fillers=False), cloze_share=0.4),
    Mixture(Difficulty((3, 5), (1, 4), hard_share=1.0, two_hop_share=0.0, similar_share=0.1, fillers=False),
            cloze_share=0.1),
    Mixture(Difficulty((2, 6), (2, 5), hard_share=1.0, two_hop_share=0.0)),
    Mixture(Difficulty((1, 10), (3, 6), hard_share=0.7, two_hop_share=0.1)),
    Mixture(Difficulty((1, 7), (3, 6), hard_share=0.8, two_hop_share=0.05)),
)
DEEP_FROM_LEVEL = 3
SHALLOW_LAYERS = 4
"""Below that level only the first layers run: looking things up is learnt sooner, and at half the cost, by a shallow
model; the deeper layers join as the identity, which is how they were initialised."""

EVALUATION = {
    "standard": Mixture(Difficulty(), query_first_share=0.0, no_document_share=0.0),
    "all_hard": Mixture(Difficulty(hard_share=1.0, two_hop_share=0.0), query_first_share=0.0, no_document_share=0.0),
    "two_hop": Mixture(Difficulty(two_hop_share=1.0), query_first_share=0.0, no_document_share=0.0),
    "query_first": Mixture(Difficulty(), query_first_share=1.0),
}


@dataclass(frozen=True)
class PretrainConfig:
    """Size, schedule and seed of the embedded generator."""

    hidden_size: int = setting(128, "width")
    num_layers: int = setting(9, "layers: three times those of the compressor, so that compression pays")
    num_heads: int = setting(4, "attention heads")
    intermediate_size: int = setting(256, "width of the feed-forward part")
    steps: int = setting(2750, "steps; the learning rate falls over the last third")
    batch_tokens: int = setting(1536, "tokens a step, in each process")
    learning_rate_matrices: float = setting(5e-3, "peak learning rate of Muon, for the matrices")
    learning_rate_rest: float = setting(5e-3, "peak learning rate of AdamW, for embeddings and norms")
    text_loss_weight: float = setting(0.5, "weight of the language-model loss on documents and questions")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    decay_share: float = setting(0.3, "share of the steps over which the learning rate falls to 0")
    eval_steps: int = setting(250, "steps between two lines of the log")
    seed: int = setting(42, "seed of weights and batches")

    def __post_init__(self) -> None:
        numbers = asdict(self)
        faults = [f"--{name} must be above 0, got {value}" for name, value in numbers.items()
                  if name not in ("seed", "text_loss_weight") and not value > 0]
        if faults:
            raise ValueError("; ".join(faults))


def build_generator(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama of the given size with random weights and tied embeddings."""
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
    _initialise(model)
    return model


def _initialise(model: LlamaForCausalLM) -> None:
    """Start as a shallow model: what layers add to the stream is 0 at first.

    With the usual start nine layers learn to copy from a document twenty times slower (docs/EXPERIMENTS.md).
    """
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight)
        elif "embed" in name:
            torch.nn.init.normal_(weight, std=EMBEDDING_SCALE)
        elif weight.ndim == 2:
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


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
    return torch.ones(int(is_first.sum()), dtype=torch.bool).scatter_reduce(0, number, is_correct, "amin")


@torch.inference_mode()
def exact_match(model: LlamaForCausalLM, maker: BatchMaker, mixture: Mixture, num_batches: int) -> float:
    """Share of answers whose every token, the end included, is the most likely one: what greedy decoding would say."""
    right = []
    for number in range(num_batches):
        batch = maker.batch(number, mixture)
        answers = batch["answers"]
        predicted = model.lm_head(hidden_states(model, batch)[answers]).argmax(-1)
        right.append(_right(predicted == batch["next_ids"][answers], answers))
    return torch.cat(right).float().mean().item()


class Pretraining:
    """The training loop and its state; ``folder`` holds the state, so that a killed run goes on where it was.

    Under ``torchrun`` each process draws batches of its own and gradients are averaged; the first one writes.
    """

    def __init__(self, config: PretrainConfig, model: LlamaForCausalLM, train: BatchMaker, held_out: BatchMaker,
                 folder: Path) -> None:
        self.config, self.model, self.train, self.held_out, self.folder = config, model, train, held_out, folder
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
        """Train to the last step, logging to ``log.jsonl`` and saving the state at each evaluation."""
        self._restore()
        bar = tqdm(total=self.config.steps, initial=self.step, desc="embedded generator", mininterval=5,
                   disable=self.rank > 0)
        while self.step < self.config.steps:
            started = time.perf_counter()
            answer_loss, text_loss = self._train_step()
            bar.update()
            bar.set_postfix(level=self.level, exact_match=f"{self.accuracy:.3f}", loss=f"{answer_loss:.3f}",
                            refresh=False)
            is_due = self.step % self.config.eval_steps == 0 or self.step == self.config.steps
            if is_due and self.rank == 0:
                self._log(answer_loss, text_loss, time.perf_counter() - started)
                self._save()
        bar.close()

    def _train_step(self) -> tuple[float, float]:
        self.model.train()
        self.model.config.num_hidden_layers = self._depth()
        mixture = replace(LEVELS[self.level], tokens=self.config.batch_tokens)
        answer_loss, text_loss, accuracy = losses(
            self.model, self.train.batch(self.step * self.num_processes + self.rank, mixture))
        (answer_loss + self.config.text_loss_weight * text_loss).backward()
        accuracy = self._average(accuracy)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.peaks[name] * self._schedule()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.accuracy = ACCURACY_MEMORY * self.accuracy + (1 - ACCURACY_MEMORY) * accuracy
        if self.accuracy > PROMOTION_EXACT_MATCH and self.level + 1 < len(LEVELS):
            self.level, self.accuracy = self.level + 1, 0.0
        return answer_loss.item(), text_loss.item()

    def _depth(self) -> int:
        return self.config.num_layers if self.level >= DEEP_FROM_LEVEL else min(SHALLOW_LAYERS, self.config.num_layers)

    def _average(self, accuracy: float) -> float:
        """Average the gradients and the accuracy over the processes, in one message."""
        if self.num_processes == 1:
            return accuracy
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        message = torch.cat([torch.tensor([accuracy]), *(gradient.flatten() for gradient in gradients)])
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

    def _log(self, answer_loss: float, text_loss: float, seconds: float) -> None:
        self.model.eval()
        row = {"step": self.step, "level": self.level, "training_exact_match": self.accuracy,
               "answer_loss": answer_loss, "text_loss": text_loss, "step_seconds": seconds}
        for name, mixture in EVALUATION.items():
            row[name] = exact_match(self.model, self.held_out, mixture, num_batches=4)
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
        state = {"step": str(self.step), "level": str(self.level), "accuracy": repr(self.accuracy)}
        save_file(self._tensors(), self.folder / "state.tmp", metadata=state)
        os.replace(self.folder / "state.tmp", self.folder / "state.safetensors")

    def _restore(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        with safe_open(path, framework="pt") as file:
            state = file.metadata()
        tensors = load_file(path)
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

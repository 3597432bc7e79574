"""--shard in half precision, in a process of its own: the same losses and gradients, gathered in half as many bytes."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from scaledown.config import ScaleDownConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading import parameters
from scaledown.training import run, sharding


@pytest.fixture()
def one_process():
    """A group of processes that has this one alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Root(nn.Module):
    """Holds the model, as the trainer's own module does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model(batch)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_that_of_a_whole_model_and_products_are_gathered_in_its_number_format(tmp_path, one_process, dtype):
    generator = tiny.generator_folder(tmp_path / "generator", layers=3)
    config = ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.0, enable_reranking=True)
    whole = run.build_model(config, "cpu", seed=1, dtype=dtype)
    tiny.move_adapter(whole)
    whole.gradient_checkpointing_enable()
    model = copy.deepcopy(whole.train())
    root = Root(model)
    sharding.shard(root, model)

    layers = model.generator.base.base_model.layers
    assert [isinstance(layer, FSDPModule) for layer in layers] == [True, True, False]
    assert isinstance(layers[-1].mlp.up_proj, FSDPModule)
    seen = {"proj": set(), "norm": set()}
    for name, part in model.compressor.named_modules():
        for kind, dtypes in seen.items():
            if name.endswith(kind):
                part.register_forward_pre_hook(lambda part, _, dtypes=dtypes: dtypes.add(str(part.weight.dtype)[6:]))

    # What is saved is what is held, before a step and after it.
    batch = model.processor.collate(list(synthetic_records(2, seed=5)))
    for each, folder in ((whole, tmp_path / "whole"), (model, tmp_path / "before"), (model, tmp_path / "after")):
        with sharding.whole_weights(root):
            each.save_pretrained(folder)
        for name in ("compressor", "generator"):
            saved = load_file(folder / f"{name}.safetensors")
            assert all(tensor.equal(saved[key]) for key, tensor in
                       load_file(tmp_path / "whole" / f"{name}.safetensors").items())
        with torch.no_grad(), sharding.gathered(root):
            root(batch)

    losses, expected = root(batch), whole(batch)
    assert losses.answer_loss.equal(expected.answer_loss) and losses.reranking_loss.equal(expected.reranking_loss)
    assert seen == {"proj": {dtype}, "norm": {"float32"}}

    tiny.total(losses).backward()
    tiny.total(expected).backward()
    gradients = {name: weight.grad for name, weight in parameters.trained(whole).items()}
    for name, weight in parameters.trained(model).items():
        assert isinstance(weight.grad, DTensor) and weight.dtype == weight.grad.dtype == torch.float32
        expected_gradient, tolerance = gradients[name], 1e-5 if dtype == "float32" else 0.05
        torch.testing.assert_close(weight.grad.full_tensor(), expected_gradient, rtol=0,
                                   atol=tolerance * expected_gradient.abs().max().item())

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from scaledown.hub import number_formats
from scaledown.hub.number_formats import dtype_for, dtype_to_load, dtype_to_rank, dtype_to_train
from scaledown.models.loading.placement import dtype_of
from scaledown.training import devices
from scaledown.training.devices import DEVICES, check_trains_in, resolve_device, resolve_dtype


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes torch see just these kinds of device, and these Neuron device files."""

    def make(*kinds: str, neuron_files: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)
        monkeypatch.setattr(torch, "neuron", SimpleNamespace(is_available=lambda: "neuron" in kinds), raising=False)
        monkeypatch.setattr(devices, "_neuron_files", lambda: list(neuron_files))

    make()
    return make


@pytest.mark.parametrize(("kinds", "chosen"), [
    ((), "cpu"), (("cuda",), "cuda"), (("cuda", "neuron"), "cuda"), (("neuron", "mps"), "neuron"), (("mps",), "mps"),
])
def test_auto_takes_the_fastest_that_is_there(machine, monkeypatch, kinds, chosen):
    if "neuron" in kinds:
        monkeypatch.setattr(torch, "device", lambda kind: SimpleNamespace(type=kind))
    machine(*kinds)
    assert resolve_device("auto").type == chosen
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_gpu_means_cuda(machine, name):
    machine("cuda")
    assert resolve_device(name).type == "cuda"


@pytest.mark.parametrize("name", [name for name in DEVICES if name not in ("auto", "cpu")])
def test_a_missing_device_says_what_was_found(machine, name):
    with pytest.raises(ValueError, match=rf"--device {name}: .*Found here: cpu$"):
        resolve_device(name)


def test_an_unknown_device_lists_the_known():
    with pytest.raises(ValueError, match="auto, gpu, cuda, cpu, mps, trainium, got 'tpu'"):
        resolve_device("tpu")


@pytest.mark.parametrize(("cuda", "message"), [(None, "built without CUDA"), ("13.0", "nvidia-smi")])
def test_gpu_tells_a_wrong_build_from_a_missing_driver(machine, monkeypatch, cuda, message):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(ValueError, match=message):
        resolve_device("gpu")


def test_trainium_without_device_files_is_not_there(machine):
    with pytest.raises(ValueError, match="no Neuron device here"):
        resolve_device("trainium")


@pytest.mark.parametrize(("version", "native", "message"), [
    (None, False, "requirements-trainium.txt"),
    ("2.9.0", False, "older generation on PyTorch/XLA"),
    ("2.13.3.0", True, "no usable Neuron device"),
])
def test_trainium_that_cannot_be_used_says_why(machine, monkeypatch, version, native, message):
    def installed(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    machine(neuron_files=("/dev/neuron0",))
    monkeypatch.setattr(importlib.metadata, "version", installed)
    if not native:
        monkeypatch.delattr(torch, "neuron")
        monkeypatch.setitem(sys.modules, "torch_neuronx", None)
    with pytest.raises(ValueError, match=message):
        resolve_device("trainium")
    with pytest.warns(UserWarning, match="Neuron devices that are not used"):
        assert resolve_device("auto").type == "cpu"


@pytest.mark.parametrize(("capability", "dtype", "to_train"), [
    ((6, 1), torch.float32, torch.float32), ((7, 0), torch.float32, torch.float16),
    ((7, 5), torch.float32, torch.float16), ((8, 0), torch.bfloat16, torch.bfloat16),
    ((9, 0), torch.bfloat16, torch.bfloat16), ((12, 1), torch.bfloat16, torch.bfloat16),
])
def test_bfloat16_from_ampere_on_and_float16_before_in_training(monkeypatch, capability, dtype, to_train):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda")
    assert dtype_for(gpu) is dtype and dtype_to_train(gpu) is resolve_dtype("auto", gpu) is to_train
    assert resolve_dtype("float16", gpu) is torch.float16 and resolve_dtype("float32", gpu) is torch.float32
    assert dtype_to_load("cuda:1") == ("auto" if dtype is torch.bfloat16 else torch.float16)
    assert dtype_to_rank("cuda:1") is torch.float16


def test_cpu_and_apple_compute_in_float32():
    assert dtype_for(torch.device("cpu")) is torch.float32
    assert dtype_for(torch.device("mps")) is torch.float32
    assert dtype_to_load("cpu") is dtype_to_load(torch.device("mps")) is torch.float32
    assert dtype_to_rank("cpu") is dtype_to_rank("mps") is torch.float32


@pytest.mark.parametrize(("name", "dtype"), [("auto", torch.float32), ("float32", torch.float32),
                                             ("bfloat16", torch.bfloat16)])
def test_a_dtype_by_name(name, dtype):
    assert resolve_dtype(name, torch.device("cpu")) is dtype


@pytest.mark.parametrize("find", [resolve_dtype, dtype_of], ids=["to train", "to answer"])
def test_a_number_format_that_the_cpu_emulates_is_warned_of(find, monkeypatch):
    monkeypatch.setattr(number_formats, "slowdown_of", lambda dtype: 70.4 if dtype is torch.bfloat16 else 1.0)
    with pytest.warns(UserWarning, match="no instructions for bfloat16: .* takes it 70 times as long as in float32"):
        assert find("bfloat16", torch.device("cpu")) is torch.bfloat16

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find("float32", torch.device("cpu"))
        find("auto", torch.device("cpu"))
        # A model that is stored in it, and one that is loaded beside a GPU and moved there.
        dtype_of(torch.bfloat16, torch.device("cpu"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        find("bfloat16", torch.device("cpu"))


def test_a_cpu_that_computes_in_bfloat16_is_not_warned_of(monkeypatch):
    monkeypatch.setattr(number_formats, "slowdown_of", lambda dtype: 0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_dtype("bfloat16", torch.device("cpu"))


def test_the_slowdown_of_a_number_format_is_measured_against_float32():
    assert 0.1 < number_formats.slowdown_of.__wrapped__(torch.float32) < 10
    assert number_formats.slowdown_of.__wrapped__(torch.bfloat16) > 0


def test_an_unknown_dtype_lists_the_known():
    with pytest.raises(ValueError, match="auto, float32, bfloat16, float16, got 'int3'"):
        resolve_dtype("int3", torch.device("cpu"))


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_float16_is_for_cuda(kind):
    with pytest.raises(ValueError, match=f"--dtype float16 trains on CUDA alone.*not on {kind}.*--dtype float32"):
        resolve_dtype("float16", torch.device(kind))
    check_trains_in(torch.bfloat16, torch.device(kind))


def test_a_native_neuron_device_is_found_and_computes_in_bfloat16():
    """With torch's own stand-in for a device, named ``neuron``, in a process of its own: it cannot be unregistered."""
    code = ("import torch\n"
            "from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as register\n"
            "register('neuron')\n"
            "from scaledown.hub.number_formats import dtype_for\n"
            "from scaledown.training.devices import resolve_device\n"
            "for name in ('trainium', 'auto'):\n"
            "    print(resolve_device(name), dtype_for(resolve_device(name)))\n")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["neuron", "torch.bfloat16"] * 2, ended.stderr


def test_a_part_of_a_training_that_is_elsewhere_is_refused():
    """Numbers of devices count only if both have one."""
    gpu = torch.device("cuda", 0)
    for other in (torch.device("cpu"), torch.device("cuda", 1)):
        with pytest.raises(ValueError, match=f"the loss of a batch is on {other}, but training is on cuda:0"):
            devices.check_same(gpu, model=torch.device("cuda"), loss_of_a_batch=other)
    devices.check_same(gpu, model=gpu, accelerator=torch.device("cuda"))


@pytest.mark.parametrize("before", [None, "cpu"])
def test_accelerate_finds_the_device_and_then_what_was_set_before(monkeypatch, before):
    if before is not None:
        monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", before)
    with devices.found_by_accelerate(torch.device("cuda", 1)):
        assert os.environ["ACCELERATE_TORCH_DEVICE"] == "cuda:1"
    assert os.environ.get("ACCELERATE_TORCH_DEVICE") == before

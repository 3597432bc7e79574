"""The project on a CUDA device that is not there (``stand_in.py``): devices, number formats and counts; never speed.

Everything is run once in float32 and once in bfloat16, and a training in float16 as on an older GPU, by
``cuda_device/scenario.py`` in a process each: a process that has the device keeps it. Nothing here has run on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cuda_device
import pytest
import tiny

import scaledown
from lab.gpu_check.expected import LAUNCHES

ROOT = Path(scaledown.__file__).parents[1]
TYPES = ("n_layers", "modernbert", "llm")
DTYPES = ("float32", "bfloat16")
CAPABILITIES = {"float32": "9.0", "bfloat16": "9.0", "float16": "7.5"}
pytestmark = pytest.mark.slow
SEEN = "SEEN "

# What the host waits for. A training step: nothing, so that the next step's operations are queued while one runs.
WAITS_OF_A_STEP: dict[str, int] = {}
# Nor does it wait for what it sends: the two micro-batches, each in one copy from pinned memory.
ARRIVALS_OF_A_STEP = {"scaledown/models/engine/moving.py unpacked": 2}
# If all answers have ended is read while the next token is computed: then an answer waits for nothing between tokens.
WAITS_OF_A_TOKEN: dict[str, int] = {}
WAITS_OF_AN_ANSWER = {
    # generate compares the padding token with those that end an answer, and looks for padding, once.
    "_local_scalar_dense: transformers/generation/utils.py _prepare_special_tokens": 2,
    "_local_scalar_dense: transformers/generation/utils.py generate": 1,
    # The answer itself.
    "tolist: scaledown/models/serving/question_answering.py generate": 1,
}
# (operations that the device computes, casts between number formats), measured; more of them is a loss of speed.
# The norm of the gradient takes one for each weight here, on a GPU one for many.
STEP = {("n_layers", "float32"): (2212, 8), ("n_layers", "bfloat16"): (2756, 424),
        ("modernbert", "float32"): (2571, 10), ("modernbert", "bfloat16"): (3397, 692),
        ("llm", "float32"): (3134, 8), ("llm", "bfloat16"): (3856, 654)}
TOKEN = {"float32": (237, 2), "bfloat16": (254, 19)}
# Of a model that only answers.
FOLDED_TOKEN = {"float32": (153, 2), "bfloat16": (170, 19)}
TOLERANCE = 0.02


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the scenario saw, by number format."""
    if cuda_device.compiler() is None:
        pytest.skip(f"needs a C++ compiler ({' or '.join(cuda_device.COMPILERS)}) to make a device that is not there")
    folder = tmp_path_factory.mktemp("cuda_device")
    tiny.generator_folder(folder / "generator", layers=3)
    tiny.encoder_folder(folder / "encoder")
    environment = os.environ | {"CUDA_GUARD": str(cuda_device.build(folder)),
                                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}

    running = {}
    for dtype, capability in CAPABILITIES.items():
        running[dtype] = subprocess.Popen([sys.executable, "-m", "cuda_device.scenario", str(folder), dtype], cwd=ROOT,
                                          env=environment | {"CUDA_CAPABILITY": capability}, stdout=subprocess.PIPE,
                                          stderr=subprocess.PIPE, text=True)
    found: dict[str, Any] = {dtype: {} for dtype in running}
    try:
        for dtype, process in running.items():
            printed, faults = process.communicate()
            assert process.returncode == 0, faults[-3000:]
            for line in printed.splitlines():
                if line.startswith(SEEN):
                    found[dtype] |= json.loads(line.removeprefix(SEEN))
    finally:
        for process in running.values():
            process.kill()
    return found


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_stand_in_refuses_what_torch_refuses(seen: dict[str, Any]) -> None:
    assert seen["float32"]["refused"] == {
        "sum": True, "product": True, "cat": True, "index of the CPU by the device": True, "in place": True,
        "number": False, "index": False, "copy": False}


def test_weights_gradients_and_optimizer_are_on_the_device(seen: dict[str, Any], dtype: str, kind: str) -> None:
    """After a training and a resumed one; of the machine's two GPUs one process takes one."""
    assert seen[dtype][kind]["is_there"] and seen[dtype][kind]["num_gpus"] == 1


def test_one_kernel_steps_the_weights_of_a_group_and_attention_makes_no_plans(seen: dict[str, Any], dtype: str,
                                                                             kind: str) -> None:
    """Groups are matrices and rows, of generator and compressor."""
    assert seen[dtype][kind]["optimizer_kernels"] == 4 and not seen[dtype][kind]["has_cudnn"]


def test_losses_are_the_cpu_s(seen: dict[str, Any], dtype: str, kind: str) -> None:
    """Answer and reranking loss; and a run resumed from its first step has the same second one."""
    found = seen[dtype][kind]
    tolerance = 1e-6 if dtype == "float32" else 0.02
    for (*losses, norm), (*expected, expected_norm) in zip(found["losses"], found["expected"], strict=True):
        assert losses == pytest.approx(expected, rel=tolerance)
        # The norm of the gradient is a sum over all weights, whose rounding adds up.
        assert norm == pytest.approx(expected_norm, rel=5 * tolerance)
    assert len(found["losses"]) == 2 and found["resumed"] == found["losses"]


def test_float16_trains_with_scaled_losses_and_skips_steps_whose_gradients_are_infinite(seen: dict[str, Any]) -> None:
    """Every step has the same records, so the losses stay what they are until the scale is small enough."""
    found = seen["float16"]["scaled"]
    norms = [norm for *_, norm in found["losses"]]
    num_skipped = norms.count(None)
    assert 0 < num_skipped < 4 and norms[:num_skipped] == [None] * num_skipped
    # Halved by each of them; the scaler begins at 65,536. A run goes on with its scale.
    assert found["scales"] == [65536 / 2**num_skipped] * 2 and found["resumed"] == found["losses"]
    first = found["losses"][num_skipped]
    assert [losses for *losses, _ in found["losses"][:num_skipped]] == [first[:2]] * num_skipped
    assert first == pytest.approx(found["expected"][0], rel=0.02)
    answer_losses = [answer for answer, *_ in found["losses"][num_skipped:]]
    assert answer_losses == sorted(answer_losses, reverse=True) and len(set(answer_losses)) == len(answer_losses)


def test_float16_waits_for_nothing_and_computes_all_products_in_it(seen: dict[str, Any]) -> None:
    step = seen["float16"]["scaled"]["step"]
    assert seen["float16"]["scaled"]["is_there"] and step["waits"] == step["uploads"] == {}
    assert {product for product, _ in step["products"]} == {"float16"} and step["attentions"] == [["sdpa", "float16"]]


def test_the_host_waits_as_listed(seen: dict[str, Any], dtype: str, kind: str) -> None:
    found = seen[dtype][kind]
    assert found["step"]["waits"] == WAITS_OF_A_STEP and found["step"]["uploads"] == {}
    assert found["step"]["arrivals"] == ARRIVALS_OF_A_STEP
    assert found["cuda"]["token"]["waits"] == WAITS_OF_A_TOKEN and found["cuda"]["token"]["uploads"] == {}
    assert found["cuda"]["answer"]["waits"] == WAITS_OF_AN_ANSWER
    # All operations of a token are queued when the host waits for the one before it.
    token = found["cuda"]["token"]
    assert token["late"] == [token["launches"] - 1]


@pytest.mark.parametrize(("kind", "dtype"), STEP)
def test_operations_and_casts_of_a_step(seen: dict[str, Any], dtype: str, kind: str) -> None:
    counts = seen[dtype][kind]["step"]
    assert (counts["launches"], counts["casts"]) == pytest.approx(STEP[kind, dtype], rel=TOLERANCE)


def test_operations_and_casts_of_a_token(seen: dict[str, Any], dtype: str, kind: str) -> None:
    counts = seen[dtype][kind]["cuda"]["token"]
    assert (counts["launches"], counts["casts"]) == pytest.approx(TOKEN[dtype], rel=TOLERANCE)


def test_a_model_that_only_answers_asks_for_less(seen: dict[str, Any], dtype: str, kind: str) -> None:
    """Adapters folded in, no autocast: fewer operations, and casts of the norms alone."""
    found = seen[dtype][kind]["cuda"]
    counts = found["folded"]["token"]
    assert (counts["launches"], counts["casts"]) == pytest.approx(FOLDED_TOKEN[dtype], rel=TOLERANCE)
    assert {format_ for format_, _ in found["folded"]["answer"]["products"]} == {dtype}
    if dtype == "float32":
        assert found["folded"]["answers"] == found["answers"]


def test_operations_of_an_answer_are_those_that_times_are_expected_from(seen: dict[str, Any]) -> None:
    """In models of 2 and of 3 layers: a number for each layer, and those that come on top."""
    counted = seen["bfloat16"]["launches"]
    for phase, (fixed, by_layer) in LAUNCHES.items():
        assert [counted[layers][phase] for layers in ("2", "3")] == [fixed + 2 * by_layer, fixed + 3 * by_layer], phase
    assert counted["2"].keys() == LAUNCHES.keys()


def test_all_products_and_attention_are_in_one_number_format(seen: dict[str, Any], dtype: str, kind: str) -> None:
    found = seen[dtype][kind]
    for counts in (found["step"], found["cuda"]["answer"]):
        assert {product for product, _ in counts["products"]} == {dtype}
        assert {format_ for _, format_ in counts["attentions"]} == {dtype}


def test_what_is_kept_has_the_number_format(seen: dict[str, Any], dtype: str, kind: str) -> None:
    """Keys and values of prompts and documents, and memory.

    What a compressor adds up is in float32: an N-Layers compressor's memory, which are its states, and stored keys,
    which have been turned by their rotary positions.
    """
    found = seen[dtype][kind]
    assert found["cuda"]["cache_dtypes"] == [dtype] and found["cuda"]["prompt_embeds_dtype"] == dtype
    assert found["cuda"]["memory_dtype"] == ("float32" if kind == "n_layers" else dtype)
    if kind != "modernbert":
        assert found["store"]["dtypes"] == [["float32", dtype]] * (1 if kind == "n_layers" else 3)  # of each layer


def test_memory_scores_and_answers_are_the_cpu_s(seen: dict[str, Any], dtype: str, kind: str) -> None:
    """From a checkpoint of the device; answers of a bfloat16 model may differ in a token, and are not compared."""
    here, there = seen[dtype][kind]["cpu"], seen[dtype][kind]["cuda"]
    tolerance = 1e-5 if dtype == "float32" else 0.05
    largest = max(map(abs, here["memory"]))
    assert there["memory"] == pytest.approx(here["memory"], abs=tolerance * largest)
    assert there["ranking"] == pytest.approx(here["ranking"], abs=tolerance * 5)
    assert there["streamed"] == there["answers"]
    if dtype == "float32":
        assert (there["answers"], there["kept"]) == (here["answers"], here["kept"])


@pytest.mark.parametrize("kind", ["n_layers", "llm"])
def test_memory_from_the_document_store_is_the_same(seen: dict[str, Any], dtype: str, kind: str) -> None:
    store = seen[dtype][kind]["store"]
    tolerance = 1e-5 if dtype == "float32" else 0.05
    assert store["with"] == pytest.approx(store["without"], abs=tolerance * max(map(abs, store["without"])))


def test_every_system_of_the_benchmark_computes_in_one_number_format(seen: dict[str, Any]) -> None:
    """Answering and a training step, each with products in the same number format: else times would not compare."""
    systems = seen["bfloat16"]["systems"]
    assert len(systems) == 8
    for products in systems.values():
        assert products and {format_ for format_, _ in products} == {"bfloat16"}

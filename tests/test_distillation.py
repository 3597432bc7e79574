"""--distill_logits: what the full-text generator would say, by hand, and that nothing flows back into it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
import torch.nn.functional as F

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.models.head_loss import head_divergence
from scaledown.models.model import ScaleDownModel
from scaledown.models.processor import MEMORY
from scaledown.training import run

ASKED = [("Who was born in London?", ["Ada Lovelace was born in London.", "Oslo " * 30], "Ada"), ("where", [], "no"),
         ("What is the capital?", ["Oslo"], "Oslo, Norway"), ("who?", ["", "Ada", "Paris"], "nowhere at all")]
RECORDS = [SimpleNamespace(id=query, query=query, documents=documents, answer=answer, reranking_scores=None)
           for query, documents, answer in ASKED]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


def build(generator: str, **settings: object) -> ScaleDownModel:
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(generator_model=generator, num_memory_tokens=2, compression_rate=8,
                                           lora_dropout=0.0, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def logits(model: ScaleDownModel, prompt: list[int], answer: list[int], memory: torch.Tensor | None,
           with_adapter: bool) -> torch.Tensor:
    """What one prompt, alone, says at each token of its answer: by transformers' own forward pass."""
    ids = torch.tensor([prompt + answer[:-1]])
    with model.generator._adapters.switched(with_adapter):
        said = model.generator.base(inputs_embeds=model.generator.splice(ids, memory)).logits[0]
    return said[-len(answer):]


@torch.no_grad()
def test_the_loss_is_the_mean_divergence_from_the_base_that_reads_the_text(generator: str) -> None:
    model, divergences, crosses = build(generator), [], []
    for query, documents, answer in ASKED:
        memory = model.compress([query], [documents])
        ids = model.processor.answer_ids(answer)
        text_prompt = model.processor.text_prompts([query], [documents])[0]
        prompt = model.processor.memory_prompts([query], [len(documents)])[0]
        assert prompt.count(MEMORY) == 2 * len(documents)
        teacher = logits(model, text_prompt, ids, None, False).softmax(-1)
        student = logits(model, prompt, ids, memory.pairs(), True).log_softmax(-1)
        divergences.append((teacher * (teacher.log() - student)).sum(-1))
        crosses.append(F.nll_loss(student, torch.tensor(ids), reduction="none"))
    model.distill_logits = 0.5
    found = model(model.processor.collate(RECORDS, with_texts=True))
    torch.testing.assert_close(found.distillation_loss, torch.cat(divergences).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.answer_loss, torch.cat(crosses).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.loss, found.answer_loss + 0.5 * found.distillation_loss)
    without = model(model.processor.collate(RECORDS))
    assert without.distillation_loss is None and without.loss is without.answer_loss


def test_one_token_by_hand() -> None:
    """Two tokens, the student at 1/2 each, the teacher at 3/4 and 1/4: 3/4 log 3/2 + 1/4 log 1/2."""
    weight = torch.eye(2)
    student, teacher = torch.zeros(1, 2, requires_grad=True), torch.tensor([[0.75, 0.25]]).log()
    found = head_divergence(student, weight, teacher)
    torch.testing.assert_close(found, 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log())
    found.backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.25, 0.25]]))


@pytest.mark.parametrize("chunk_logits", [1, 60, 10**6])
def test_value_and_gradient_are_torchs_own(chunk_logits: int) -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher, weight = (torch.randn(size, 8, generator=draw) for size in (11, 11, 30))
    student.requires_grad_()
    wanted = F.kl_div((student @ weight.T).log_softmax(-1), (teacher @ weight.T).softmax(-1), reduction="batchmean")
    found = head_divergence(student, weight, teacher, chunk_logits)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(3 * each, student)[0] for each in (wanted, found)]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_nothing_flows_back_through_the_teacher(generator: str) -> None:
    model = build(generator).train()
    batch = model.processor.collate(RECORDS, with_texts=True)
    teacher = model.generator.teacher_states(batch["text_ids"], batch["text_slots"], batch["text_index"])
    assert not teacher.requires_grad
    model.distill_logits = 1.0
    model(batch).distillation_loss.backward()
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)
    assert model.compressor.memory_rows.grad.any()
    assert not any(each.requires_grad for name, each in model.generator.named_parameters()
                   if "lora" not in name and name != "separator_row")


def test_the_teacher_reads_documents_as_far_as_the_compressor_does(generator: str) -> None:
    processor = build(generator).processor
    batch = processor.collate([SimpleNamespace(query="who?", documents=["d" * 99], answer="no")], with_texts=True)
    assert batch["second_lengths"].tolist() == [16]
    prompt = processor.text_prompts(["who?"], [["d" * 99]])[0]
    assert batch["text_ids"][0].tolist() == prompt + processor.answer_ids("no")[:-1]
    assert batch["text_index"].tolist() == [len(prompt) - 1 + place for place in range(len(processor.answer_ids("no")))]


def test_a_training_step_never_waits_for_the_device(generator: str) -> None:
    model = build(generator).train()
    batch = {name: tensor.to("meta") for name, tensor in model.processor.collate(RECORDS, with_texts=True).items()}
    model.to("meta")(batch).loss.backward()


def test_it_is_a_part_of_the_log_where_it_is_asked_for(generator: str, tmp_path) -> None:
    config = TrainingConfig(batch_size=2, max_steps=2, logging_steps=1, distill_logits=0.25)
    rows = [row for row in run.train(build(generator), config, RECORDS, tmp_path) if "answer_loss" in row]
    assert len(rows) == 2
    for row in rows:
        assert row["loss"] == pytest.approx(row["answer_loss"] + 0.25 * row["distillation_loss"], rel=1e-3)


def test_a_weight_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="--distill_logits must be at least 0"):
        TrainingConfig(distill_logits=-1.0)

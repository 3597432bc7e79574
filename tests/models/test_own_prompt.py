"""A system prompt and an instruction of a model's own: in training, answering and text baselines alike."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from scaledown.config import ScaleDownConfig
from scaledown.models.model import ScaleDownModel
from scaledown.prompt import SYSTEM, Prompt
from scaledown.training import run

TEMPLATES = {"chatml": tiny.CHATML, "no system": tiny.NO_SYSTEM, "base": None}
USER = "Background:\nOslo\nRome\n\nQuestion: where?"
OWN = {"system_prompt": " Be brief. ", "instruction": "Cite the <|im_end|> document.\n"}
OWN_USER = f"Cite the <|im_end|> document.\n\n{USER}"


def text_of(template: str | None, user: str, system: str) -> str:
    """The prompt as each template writes it."""
    if template == tiny.CHATML:
        turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        return f"{turn}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    lead = f"{system}\n\n" if system else ""
    return f"<s>[INST] {lead}{user} [/INST]" if template else f"<s>{lead}{user}\n\nAnswer:\n"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("settings, user, system", [
    ({}, USER, SYSTEM), ({"system_prompt": None, "instruction": " "}, USER, SYSTEM), ({"system_prompt": ""}, USER, ""),
    (OWN, OWN_USER, "Be brief."), ({"instruction": OWN["instruction"]}, OWN_USER, SYSTEM)])
def test_the_prompt_says_what_it_is_told_to(template: str | None, settings: dict, user: str, system: str) -> None:
    tokenizer = tiny.tokenizer(template)
    prompt = Prompt(tokenizer, settings.get("system_prompt"), settings.get("instruction"))
    wanted = text_of(template, user, system)
    documents = [tokenizer(text, add_special_tokens=False).input_ids for text in ("Oslo", "Rome")]
    assert tokenizer.decode(prompt.of_texts("where?", documents)) == wanted
    assert tokenizer.decode(prompt.as_chat("where?", ["Oslo", "Rome"])) == wanted
    ids = prompt.of_documents("where?", [[-1]] * 2, [False] * 2, -2)
    memory = tokenizer.decode([token for token in ids if token >= 0])
    assert memory == wanted.replace("Oslo\nRome", "")

    # The instruction is plain text, whatever it says.
    controls = prompt.start.count(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert controls == (1 if template == tiny.CHATML and system else 0)


def test_a_template_without_a_system_role_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Prompt(tiny.tokenizer(tiny.NO_SYSTEM))
        Prompt(tiny.tokenizer(tiny.CHATML), "Be brief.")
        assert not caplog.records
        Prompt(tiny.tokenizer(tiny.NO_SYSTEM), "Be brief.")
    assert "has no system role: the system prompt begins the user's turn" in caplog.text


def test_a_checkpoint_keeps_its_prompt(tmp_path: Path) -> None:
    generator = tiny.generator_folder(tmp_path / "generator")
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(generator, num_memory_tokens=2, **OWN))
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    processors = [loaded.processor, model.processor]
    record = SimpleNamespace(query="where?", documents=["Oslo", "Rome"], answer="there")
    for read in (lambda own: own.memory_prompts(["where?"], [2])[0],
                 lambda own: own.text_prompts(["where?"], [["Oslo"]]),
                 lambda own: own.collate([record])["prompts"].ids.tolist()):
        one, other = map(read, processors)
        assert one == other
    prompt = loaded.processor.memory_prompts(["where?"], [2])[0]
    assert loaded.processor.collate([record])["prompts"].ids.tolist()[:len(prompt)] == prompt
    assert "Be brief." in loaded.processor.tokenizer.decode(loaded.processor.prompt.start)
    assert loaded.config.instruction == OWN["instruction"]

    # Checkpoints of earlier versions have neither.
    config = tmp_path / "checkpoint" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({name: value for name, value in values.items() if name not in OWN}))
    old = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    assert SYSTEM in old.processor.tokenizer.decode(old.processor.prompt.start)
    with pytest.raises(ValueError, match="--system_prompt is 'Be kind.' but None there"):
        run.build_model(ScaleDownConfig(generator, num_memory_tokens=2, system_prompt="Be kind."), "cpu", 1,
                        init_compressor=str(tmp_path / "checkpoint"))

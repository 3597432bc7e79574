"""The check of a GPU, rehearsed on the CPU: every stage runs, and what fails is told."""

from __future__ import annotations

import torch

from lab.gpu_check import hardware
from lab.gpu_check.__main__ import STAGES, main
from lab.gpu_check.report import Check


def test_the_rehearsal_runs_every_stage_and_writes_a_table(tmp_path, capsys):
    table = tmp_path / "check.md"
    assert main(["--rehearse", "--table_file", str(table)]) == 0
    found = table.read_text(encoding="utf-8")
    assert "FAILED" not in found and "the times mean nothing" in found
    for what in ("4 of 4 answers are the CPU's", "losses within 0.0e+00", "cuDNN's kernels off", "needs a GPU",
                 "for answering, batch 2", "static cache, batch 1", "activations computed twice",
                 "exact answers"):
        assert what in found, what
    stages = {line.split(" | ")[0].strip("| ") for line in found.splitlines() if line.startswith("| ")}
    assert stages == {"stage", *STAGES}

    # A row of the table for each line that was printed.
    assert found.count("\n| ") == 1 + sum(line.startswith("[") for line in capsys.readouterr().out.splitlines())


def test_a_stage_that_fails_says_so_and_the_next_one_runs(monkeypatch, tmp_path, capsys):
    def broken(check: Check) -> None:
        raise RuntimeError("no kernel | for this shape")

    monkeypatch.setattr(hardware, "attention_shapes", broken)
    table = tmp_path / "check.md"
    assert main(["--rehearse", "--stages", "attention", "varlen", "--table_file", str(table)]) == 1
    out = capsys.readouterr().out
    assert "attention: FAILED" in out and "no kernel" in out and "varlen: left out" in out
    assert out.endswith("failed: attention\n")
    assert "no kernel \\| for this shape" in table.read_text(encoding="utf-8"), "a bar would begin another cell"


def test_stages_are_left_out_when_the_time_is_over(monkeypatch, capsys):
    assert not Check(torch.device("cpu"), is_rehearsal=True, rounds=1, longest_seconds=0.0).has_time()
    monkeypatch.setattr(Check, "has_time", lambda check: False)
    assert main(["--rehearse", "--minutes", "1"]) == 0
    out = capsys.readouterr().out
    assert [f"{stage}: left out: 1 minutes are over" in out for stage in STAGES] == [True] * len(STAGES)


def test_without_a_gpu_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--stages", "machine"]) == 2
    assert "--rehearse runs everything on the CPU" in capsys.readouterr().err

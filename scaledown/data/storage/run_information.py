"""Versions, commit, device, command line and settings of a run, so that it can be made again; commands after it."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "evaluate", "rouge-score", "numpy")
GIT_SECONDS = 10
OF_ONE_RUN = {"--output_dir": 1, "--init_compressor": 1, "--pretrain_steps": 1, "--pretrain_data": 1, "--resume": 0,
              "--overwrite": 0}
"""Flags, with the number of their values, that a training that goes on from another one does not share with it."""


def git_commit() -> str | None:
    """Return the commit of this code, with ``-dirty`` if files have changed since; None without git or a repository."""
    # Without tags (--exclude) describe gives the hash itself.
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True,
                                timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None

    return answer.stdout.strip() or None


def library_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the libraries behind the results; None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}

    for library in LIBRARIES:
        # From the installed package's metadata: nothing is imported.
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = None

    return versions


def device_name(device: torch.device) -> str:
    """Return a device in words: the name of a GPU, or the architecture and the threads of a CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        # Times depend on them.
        num_threads = torch.get_num_threads()
        threads = "1 thread" if num_threads == 1 else f"{num_threads} threads"
        return f"CPU ({platform.machine()}, {threads})"
    return device.type


def run_information(seed: int, device: torch.device, command_line: Sequence[str],
                    settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry ``run`` of ``metrics_report.json``.

    Args:
        seed: of the run.
        device: of the model.
        command_line: ``sys.argv``.
        settings: every setting by name, as plain values.
    """
    started = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return {"seed": seed, "started": started, "device": device_name(device), "versions": library_versions(),
            "commit": git_commit(), "command_line": shlex.join(command_line), "settings": dict(settings)}


def next_commands(script: str, argv: Sequence[str], checkpoint: Path, folder: Path) -> str:
    """Return the commands that a user is likely to type after a training, a line each.

    Args:
        script: that trained.
        argv: its flags.
        checkpoint: that came out of it.
        folder: of the run.
    """
    flags, num_values = [], 0
    for word in argv:
        if num_values:
            # The value of a flag that is left out.
            num_values -= 1
            continue
        name, is_joined, _ = word.partition("=")
        if name not in OF_ONE_RUN:
            flags.append(word)
        elif not is_joined:
            num_values = OF_ONE_RUN[name]

    if "--resume" in argv:
        # Its settings came from the run's own file, so the next run's do, too.
        flags = ["--config", str(folder / "config.json")]

    ask = ["python", "example_usage.py", "--checkpoint", str(checkpoint)]
    more = ["python", script, *flags, "--init_compressor", str(checkpoint), "--output_dir", f"{folder}_longer"]
    return f"ask it: {shlex.join(ask)}\ntrain it longer: {shlex.join(more)}"

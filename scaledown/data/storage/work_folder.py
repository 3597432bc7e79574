"""The work folder: the stages of all runs, their inputs and settings. A finished stage is not made again.

A stage's folder is named by a fingerprint of its settings and of the stages that it reads. If a setting changes, the
stages that depend on it get other names and are made again, while the others are reused; the earlier ones stay, so that
going back costs nothing either. ``manifest.json`` describes each folder in plain words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scaledown.data.storage.fingerprints import of_values
from scaledown.data.storage.lines import shown
from scaledown.files import WHAT_TO_DO, disk_faults, whole_file
from scaledown.processes import Processes

MANIFEST = "manifest.json"
ENTRY = {"stage": str, "settings": dict, "inputs": list, "finished": str | None, "seconds": float, "report": dict}
"""The fields of a stage in the manifest, with their types."""
FORMAT = 1
"""Raised when the code makes something else of the same settings, so that results of older code are not reused."""


@dataclass(frozen=True)
class StageFolder:
    """One stage: its folder, and the reason why it is made again if there is an earlier one of its name."""

    name: str
    folder: Path
    reason: str | None = None

    @property
    def id(self) -> str:
        """The stage's name in the manifest."""
        return self.folder.name


class WorkFolder:
    """The stages in one folder, locked for this run and all of its processes.

    Raises:
        ValueError: if another run works in it, it cannot be written to, or its manifest is damaged.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--work_dir {folder}: is a file; give a folder")
        with disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)

        # A lock for each process: any two runs have at least the first in common.
        self.folder, self.processes = folder, processes
        self._path = folder / MANIFEST
        self._lock = FileLock(folder / f".lock-{processes.rank}")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"--work_dir {folder}: another run works in it; wait for its end, or give another "
                             "folder") from None

        # Nobody writes the manifest before all have read it.
        self._stages = self._read()
        processes.wait()

    def close(self) -> None:
        """Unlock the folder for other runs."""
        self._lock.release()

    def stage(self, name: str, settings: dict[str, Any], inputs: Sequence[StageFolder] = ()) -> StageFolder:
        """Return the stage ``name`` with these settings (plain values), reading ``inputs``, finished or not."""
        # An input's id holds its own fingerprint, so a change anywhere before reaches all later stages.
        entry = {"stage": name, "settings": settings, "inputs": [stage.id for stage in inputs]}
        folder = self.folder / f"{name}-{of_values([FORMAT, entry])}"
        if folder.name in self._stages:
            return StageFolder(name, folder)

        reason = self._reason(name, entry)
        self._stages[folder.name] = entry | {"finished": None, "seconds": 0.0, "report": {}}
        self._write()
        return StageFolder(name, folder, reason)

    def is_finished(self, stage: StageFolder) -> bool:
        """Return whether nothing is left to do for ``stage``."""
        # The user may have deleted the folder to have it made again.
        return self._stages[stage.id]["finished"] is not None and stage.folder.is_dir()

    def spend(self, stage: StageFolder, seconds: float) -> None:
        """Add ``seconds`` to the time of ``stage``."""
        self._stages[stage.id]["seconds"] = round(self._stages[stage.id]["seconds"] + seconds, 3)
        self._write()

    def finish(self, stage: StageFolder, report: dict[str, Any]) -> None:
        """Wait for all processes, and note that ``stage`` is finished."""
        self.processes.wait()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._stages[stage.id] |= {"finished": now, "report": report}
        self._write()

    def report(self, stage: StageFolder) -> dict[str, Any]:
        """Return the report with which ``stage`` was finished."""
        return self._stages[stage.id]["report"]

    def seconds(self, stage: StageFolder) -> float:
        """Return the time of ``stage`` over all runs; of a killed run, up to its last note."""
        return self._stages[stage.id]["seconds"]

    def _reason(self, name: str, entry: dict[str, Any]) -> str | None:
        """Return the differences between ``entry`` and the last stage of the same name, None if there is no such."""
        earlier_ids = [id for id, other in self._stages.items() if other["stage"] == name]
        if not earlier_ids:
            return None

        # The manifest keeps the order in which stages were made.
        before, now = self._stages[earlier_ids[-1]]["settings"], entry["settings"]
        changes = []
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                changes.append(f"{key} was {before.get(key)!r}, is {now.get(key)!r}")

        # Equal settings but another fingerprint: its inputs differ.
        if not changes:
            changes.append("a stage before it has changed")
        return f"{'; '.join(changes)} (the earlier one stays in {self.folder / earlier_ids[-1]})"

    def _read(self) -> dict[str, Any]:
        """Return the manifest's stages, after a check that all fields are there."""
        try:
            stages = json.loads(self._path.read_text(encoding="utf-8"))["stages"]
            for entry in stages.values():
                for name, kind in ENTRY.items():
                    if not isinstance(entry[name], kind):
                        raise ValueError(f"{name} is {shown(entry[name])}")
            return stages
        except FileNotFoundError:
            return {}  # a new folder
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise ValueError(f"{self._path}: damaged or not a manifest ({fault}); move it away: passages, scores and "
                             "answers are found again, the rest is made again") from None

    def _write(self) -> None:
        """Write the manifest; all processes hold the same, so one writes it."""
        if self.processes.is_main:
            with whole_file(self._path, WHAT_TO_DO) as draft:
                draft.write_text(json.dumps({"stages": self._stages}, indent=2) + "\n", encoding="utf-8")

"""The work folder: which stages were made, from what, with which settings. What is finished is not made again.

A stage's folder is named by a fingerprint of its settings and of the stages that it reads. With a changed setting
the stages that depend on it get other names and are made anew, the others are found; the earlier ones stay, so that
going back costs nothing either. ``manifest.json`` says in plain words what each folder is.
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
from scaledown.data.storage.values import shown
from scaledown.files import WHAT_TO_DO, disk_faults, whole_file
from scaledown.processes import Processes

MANIFEST = "manifest.json"
ENTRY = {"stage": str, "settings": dict, "inputs": list, "finished": str | None, "seconds": float, "report": dict}
"""What the manifest says of each stage."""
FORMAT = 1
"""Raised when the code makes something else from the same settings: what older code left is then not used."""


@dataclass(frozen=True)
class Stage:
    """One stage: its folder, and why it is made anew where another of its name is there."""

    name: str
    folder: Path
    reason: str | None = None

    @property
    def id(self) -> str:
        """What the manifest calls it."""
        return self.folder.name


class WorkFolder:
    """The stages in one folder, claimed for this run; several processes of a run claim it together.

    Raises:
        ValueError: where another run works in it, it cannot be written, or its manifest is damaged.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--work_dir {folder}: is a file; give a folder")
        with disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.processes = folder, processes
        self._path = folder / MANIFEST
        self._lock = FileLock(folder / f".lock-{processes.rank}")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"--work_dir {folder}: another run works in it; wait for its end, or give another "
                             "folder") from None
        self._stages = self._read()
        processes.wait()

    def close(self) -> None:
        """Leave the folder to other runs."""
        self._lock.release()

    def stage(self, name: str, settings: dict[str, Any], inputs: Sequence[Stage] = ()) -> Stage:
        """The stage ``name`` with these settings (plain values), reading ``inputs``; it may be finished or not."""
        entry = {"stage": name, "settings": settings, "inputs": [stage.id for stage in inputs]}
        folder = self.folder / f"{name}-{of_values([FORMAT, entry])}"
        if folder.name in self._stages:
            return Stage(name, folder)
        reason = self._reason(name, entry)
        self._stages[folder.name] = entry | {"finished": None, "seconds": 0.0, "report": {}}
        self._write()
        return Stage(name, folder, reason)

    def is_finished(self, stage: Stage) -> bool:
        """Whether there is nothing left to do for ``stage``."""
        return self._stages[stage.id]["finished"] is not None and stage.folder.is_dir()

    def spend(self, stage: Stage, seconds: float) -> None:
        """Note that so much more time went into ``stage``."""
        self._stages[stage.id]["seconds"] = round(self._stages[stage.id]["seconds"] + seconds, 3)
        self._write()

    def finish(self, stage: Stage, report: dict[str, Any]) -> None:
        """Note, when all processes have come here, that ``stage`` is finished."""
        self.processes.wait()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._stages[stage.id] |= {"finished": now, "report": report}
        self._write()

    def report(self, stage: Stage) -> dict[str, Any]:
        """What was noted when ``stage`` was finished."""
        return self._stages[stage.id]["report"]

    def seconds(self, stage: Stage) -> float:
        """How long ``stage`` has taken, over all runs; of one that was killed, up to its last note."""
        return self._stages[stage.id]["seconds"]

    def _reason(self, name: str, entry: dict[str, Any]) -> str | None:
        """What differs between ``entry`` and the last stage of the same name."""
        earlier = [id for id, other in self._stages.items() if other["stage"] == name]
        if not earlier:
            return None
        before, now = self._stages[earlier[-1]]["settings"], entry["settings"]
        changed = [f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in sorted({*before, *now})
                   if before.get(key) != now.get(key)] or ["a stage before it has changed"]
        return f"{'; '.join(changed)} (the earlier one stays in {self.folder / earlier[-1]})"

    def _read(self) -> dict[str, Any]:
        try:
            stages = json.loads(self._path.read_text(encoding="utf-8"))["stages"]
            for entry in stages.values():
                if wrong := [name for name, kind in ENTRY.items() if not isinstance(entry[name], kind)]:
                    raise ValueError(f"{wrong[0]} is {shown(entry[wrong[0]])}")
            return stages
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise ValueError(f"{self._path}: damaged or not a manifest ({fault}); move it away: passages, scores and "
                             "answers are found again, the rest is made anew") from None

    def _write(self) -> None:
        if self.processes.is_main:
            with whole_file(self._path, WHAT_TO_DO) as draft:
                draft.write_text(json.dumps({"stages": self._stages}, indent=2) + "\n", encoding="utf-8")

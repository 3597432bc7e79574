"""TREC runs, the form in which search engines tell what they found: ``query Q0 passage rank score name``."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from scaledown.data.whole_files import whole_file

SHOWN_FAULTS = 20
FIELDS = 6

Found = tuple[float, str]
"""A score, and the id of a passage."""


def read_run(path: Path | str, top_k: int) -> dict[str, list[Found]]:
    """The ``top_k`` best passages of each query by their scores, best first; equal ones by their id.

    Raises:
        ValueError: where the file cannot be read or is empty, or for all lines that are not in the form.
    """
    path, faults = Path(path), []
    best: dict[str, list[tuple[float, _Reversed]]] = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != FIELDS or not _is_score(fields[4]):
            faults.append(f"  line {number}: expected query Q0 passage rank score name, got {line.strip()[:80]!r}")
            continue
        found = (float(fields[4]), _Reversed(fields[2]))
        heap = best.setdefault(fields[0], [])
        (heapq.heappush if len(heap) < top_k else heapq.heappushpop)(heap, found)
    if faults or not best:
        rest = [f"  and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        raise ValueError("\n".join([f"--run_file {path}: {len(faults) or 'no'} line{'s' * (len(faults) != 1)} "
                                    f"{'not in the form of' if faults else 'of'} a TREC run",
                                    *faults[:SHOWN_FAULTS], *rest]))
    return {query: [(score, str(id)) for score, id in sorted(heap, reverse=True)] for query, heap in best.items()}


def write_run(path: Path, found: Iterable[tuple[str, Iterable[Found]]], name: str) -> None:
    """Write what was found for each query, best first, as a run called ``name``."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for query, passages in found:
            for rank, (score, id) in enumerate(passages, start=1):
                file.write(f"{query} Q0 {id} {rank} {score:.6g} {name}\n")


class _Reversed(str):
    """An id that counts as greater where it comes earlier, so that the best of equal scores is the first id."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except OSError as fault:
        raise ValueError(f"--run_file {path}: cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"--run_file {path}: not UTF-8, so not a TREC run") from None


def _is_score(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

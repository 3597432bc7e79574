"""A service in a process of its own: started, measured, ended or killed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence

import httpx2

READY = re.compile(r"ready: .* on (http://\S+)")
LONGEST_END_SECONDS = 90.0


class ServiceProcess:
    """``python -m scaledown.serve`` on a free port, or on ``port``.

    Attributes:
        url: of the service.
        start_seconds: from its start until it takes requests.
        cpu_seconds_at_start: what it had computed by then.

    Raises:
        RuntimeError: if it ends instead; its own message stands above.
    """

    def __init__(self, flags: Sequence[str], port: int = 0) -> None:
        started = time.perf_counter()
        self._process = subprocess.Popen([sys.executable, "-m", "scaledown.serve", "--port", str(port), *flags],
                                         stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        found = READY.match(line)
        if found is None:
            self.kill()
            raise RuntimeError(f"the service did not start: {line!r}")
        self.url, self.start_seconds = found[1], time.perf_counter() - started
        self.cpu_seconds_at_start = self.cpu_seconds()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rpartition(":")[2])

    def metric(self, name: str) -> float:
        """Return the value of one of its counters, by its name with its labels."""
        for line in httpx2.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise KeyError(name)

    def memory_mib(self) -> float:
        """Return its memory (RSS) in MiB."""
        return self.metric("process_resident_memory_bytes") / 2**20

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has taken, of all its threads."""
        return self.metric("process_cpu_seconds_total")

    def kill(self) -> None:
        """End it at once, as the system does when memory ends."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self._process.terminate()
        code = self._process.wait(LONGEST_END_SECONDS)
        self._process.stdout.close()
        return code

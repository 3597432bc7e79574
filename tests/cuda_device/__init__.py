"""A CUDA device that is not there (``stand_in.py``), for builds of torch without CUDA.

Torch asks a device's guard and hooks in C++, which a build without CUDA lacks: ``guard.cpp`` has them. It must be
loaded before torch asks for the first time, so a process sets ``CUDA_GUARD`` and imports ``cuda_device.device`` first.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "guard.cpp"
COMPILERS = ("g++", "clang++")


def compiler() -> str | None:
    """Return a C++ compiler of this machine, if there is one."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def build(folder: Path) -> Path:
    """Compile the guard, which takes seconds, and return the library."""
    torch = Path(importlib.util.find_spec("torch").submodule_search_locations[0])
    libraries, library = torch / "lib", folder / "libguard.so"
    command = [compiler(), "-O0", "-std=c++20", "-shared", "-fPIC", f"-I{torch / 'include'}", str(SOURCE),
               "-o", str(library), f"-L{libraries}", f"-Wl,--no-as-needed,-rpath,{libraries}", "-lc10", "-ltorch_cpu"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library

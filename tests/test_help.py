"""Every command answers --help and a mistyped flag at once: without loading what takes seconds."""

from __future__ import annotations

import subprocess
import sys

import guides

HEAVY = ("torch", "transformers", "datasets", "nltk", "sentence_transformers", "accelerate", "peft", "evaluate",
         "matplotlib", "pandas", "huggingface_hub")
SCRIPT = """
import contextlib, io, sys
sys.path.insert(0, "tests")
import guides

for name in guides.command_names():
    main = guides.module(name).main
    for argv, code in ((["--help"], 0), (["--no_such_flag"], 2)):
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                main(argv)
            except SystemExit as end:
                assert end.code == code, (name, argv, end.code)
        assert "usage: " in told.getvalue(), (name, argv)
    print(name, *sorted(set(HEAVY) & set(sys.modules)))
"""


def test_help_loads_nothing_that_takes_seconds():
    """All in one process, which is one start of Python: who loads something is the first that names it."""
    code = f"HEAVY = {HEAVY!r}\n{SCRIPT}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=guides.ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) >= 20
    heavy = [line for line in lines if " " in line]
    assert not heavy, heavy

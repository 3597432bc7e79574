"""Experiments apart from the package: how the demo was made, and measurements."""

import scaledown  # noqa: F401  # first of all, so that Ctrl-C ends a command quietly from here on

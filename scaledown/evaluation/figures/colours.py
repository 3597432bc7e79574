"""The colours of figures: Okabe and Ito's, which colour-blind readers tell apart, and darker ones for text.

Their light colours fill bars well but are too faint for letters. Text needs a contrast of 4.5 to 1 against its
background (Web Content Accessibility Guidelines 2.2, criterion 1.4.3), so it gets the same hue mixed with black.
"""

from __future__ import annotations

from matplotlib.colors import to_hex, to_rgb

INK = "#222222"
QUIET = "#666666"
GRID = "#e4e4e4"
BACKGROUND = "#ffffff"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYSTEMS = {"no_documents": "#999999", "truncated_text": "#E69F00", "before_training": "#56B4E9",
           "scaledown": "#0072B2", "full_text": "#D55E00", "naive_compressor": "#CC79A7"}

TEXT_CONTRAST = 4.5
_STEP = 0.02
"""Share of black that is added at a time, until a colour is dark enough for text."""


def shade(colour: str, strength: float) -> tuple[float, float, float]:
    """Return ``colour`` mixed with white: 1 is the colour itself, 0 is white."""
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(colour))
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours: 1 if they are equal, 21 for black and white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def for_text(colour: str) -> str:
    """Return ``colour``, mixed with as little black as makes it readable as text on white."""
    red, green, blue = to_rgb(colour)
    black = 0.0
    while contrast(colour, BACKGROUND) < TEXT_CONTRAST:
        black += _STEP
        colour = to_hex(((1 - black) * red, (1 - black) * green, (1 - black) * blue))
    return colour


def _luminance(colour: str) -> float:
    """Return the relative luminance as the guidelines define it: 0 for black, 1 for white."""
    linear = []
    for channel in to_rgb(colour):
        # From sRGB's curve to an amount of light.
        linear.append(channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4)

    red, green, blue = linear
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

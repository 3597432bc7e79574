"""A text with the likeness of its memory as heat behind its tokens, and the tokens that each embedding is nearest to.

Each token carries its cosine with every embedding, and the largest of them; a radio button beside each embedding
chooses by CSS alone which of them is shown. So nothing is asked of the server, and nothing runs as a script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from scaledown.demo.memory_look import MemoryLook, NearToken, TextSegment
from scaledown.evaluation.figures.style import label

ALL = "all"
MOST_COLUMNS = 16
BLANK = "\N{OPEN BOX}"
"""Stands for a token of white space alone."""


def selection_css(num_memory_tokens: int) -> str:
    """Return the rules by which the chosen embedding's cosines are shown, for up to this number of embeddings."""
    rules = []
    for number in range(1, num_memory_tokens + 1):
        rules.append(f'.sd-look:has(input[value="{number}"]:checked) .sd-token {{ --shown: var(--e{number}); }}')
    return "\n".join(rules)


def strip_html(look: MemoryLook, name: str, highest: float) -> str:
    """Return the text with its heat, above the list of the embeddings.

    Args:
        look: into the memory of the text.
        name: of the radio buttons, which no other strip of the page has.
        highest: the cosine that is drawn with full heat, the same in all strips of the page.
    """
    text = "".join(_segment(segment, highest) for segment in look.segments)
    choices = [_choice(name, ALL, "the largest of all embeddings", is_checked=True)]
    for number, nearest in enumerate(look.nearest, 1):
        choices.append(_choice(name, str(number), _near_tokens(nearest)))
    return (f'<div class="sd-look"><p class="sd-strip">{text}</p><fieldset><legend>Memory embeddings, and the tokens '
            f'that each is nearest to (cosine); choose one to see its heat</legend>{"".join(choices)}</fieldset></div>')


def _segment(segment: TextSegment, highest: float) -> str:
    if not segment.cosines:
        return escape(segment.text)
    # The largest first; a cosine below 0 is no likeness.
    shares = [max(0.0, min(1.0, cosine / highest)) if highest > 0 else 0.0
              for cosine in (max(segment.cosines), *segment.cosines)]
    style = ";".join(f"--e{number}:{share:.2f}" for number, share in enumerate(shares))
    return f'<span class="sd-token" style="{style}" title="{max(segment.cosines):.2f}">{escape(segment.text)}</span>'


def _choice(name: str, value: str, words: str, is_checked: bool = False) -> str:
    checked = " checked" if is_checked else ""
    return (f'<label><input type="radio" name="{name}" value="{value}"{checked}><b>{value}</b>'
            f'<span class="sd-near">{words}</span></label>')


def _near_tokens(nearest: Sequence[NearToken]) -> str:
    words = []
    for token in nearest:
        shown = label(token.text, MOST_COLUMNS) or BLANK
        words.append(f"<span><bdi>{escape(shown)}</bdi> <small>{token.cosine:.2f}</small></span>")
    return "".join(words)

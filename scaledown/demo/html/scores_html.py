"""A score as a bar from 0, to the left if it is negative, with a line at the threshold from which on "auto" keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ScoreScale(NamedTuple):
    """The scores that the ends of a bar's track stand for; 0 is between them, or one of them."""

    lowest: float
    highest: float
    threshold: float | None

    @classmethod
    def of(cls, scores: Sequence[float], threshold: float | None) -> ScoreScale:
        """Return the scale on which all of these scores, 0 and the threshold have their place."""
        ends = [0.0, *scores, *([] if threshold is None else [threshold])]
        lowest, highest = min(ends), max(ends)
        # Scores that are all 0 need a scale, too.
        return cls(lowest, max(highest, lowest + 1e-6), threshold)

    def percent(self, score: float) -> float:
        """Return the place of a score from the left end, in percent."""
        return 100 * (score - self.lowest) / (self.highest - self.lowest)


def score_text(score: float) -> str:
    """Return a score with one digit, and with a minus as wide as its digits."""
    return f"{score:.1f}".replace("-", "\N{MINUS SIGN}")


def score_html(score: float, scale: ScoreScale) -> str:
    """Return the bar of a score, with its number beside it."""
    zero, place = scale.percent(0.0), scale.percent(score)
    left, width = min(zero, place), abs(place - zero)
    line = ""
    if scale.threshold is not None:
        line = f'<i class="sd-threshold" style="left:{scale.percent(scale.threshold):.1f}%"></i>'
    return (f'<span class="sd-track"><i class="sd-zero" style="left:{zero:.1f}%"></i>'
            f'<i class="sd-fill" style="left:{left:.1f}%;width:{width:.1f}%"></i>{line}</span>'
            f'<span class="sd-score">{score_text(score)}</span>')

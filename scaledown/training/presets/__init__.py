"""Settings that belong together, by machine, and how a run's settings are found."""

from scaledown.training.presets.machines import DEMO, PRESETS, settings
from scaledown.training.presets.run_settings import parse, parse_or_offline

__all__ = ["DEMO", "PRESETS", "parse", "parse_or_offline", "settings"]

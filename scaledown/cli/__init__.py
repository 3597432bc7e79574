"""Command lines: flags made from configs, one clear message for a user's mistake, and a quiet end on Ctrl-C."""

from scaledown.cli import interrupts  # noqa: F401  # first: see there
from scaledown.cli.command import INTERRUPTED, USER_ERROR, command
from scaledown.cli.common import (
    add_checkpoint,
    add_device,
    add_dtype,
    add_eval_data,
    add_long_documents,
    add_output_file,
    add_seed,
)
from scaledown.cli.flags import GROUPS, add_flags, config_from, given, settings_parser
from scaledown.cli.loading_note import tell
from scaledown.cli.parser import Parser, new_parser
from scaledown.cli.values import number_or_auto, positive

__all__ = ["GROUPS", "INTERRUPTED", "USER_ERROR", "Parser", "add_checkpoint", "add_device", "add_dtype",
           "add_eval_data", "add_flags", "add_long_documents", "add_output_file", "add_seed", "command", "config_from",
           "given", "new_parser", "number_or_auto", "positive", "settings_parser", "tell"]

"""The QA datasets, each in a file of its own: a new one is a file here, and its name in ``DATASETS``."""

from scaledown.data.qa.layouts.hotpotqa import HOTPOT_QA
from scaledown.data.qa.layouts.natural_questions import NATURAL_QUESTIONS
from scaledown.data.qa.layouts.squad import SQUAD
from scaledown.data.qa.layouts.triviaqa import TRIVIA_QA

DATASETS = {dataset.name: dataset for dataset in (SQUAD, NATURAL_QUESTIONS, TRIVIA_QA, HOTPOT_QA)}
"""By name, in the order in which they share the examples of ``--dataset all``."""

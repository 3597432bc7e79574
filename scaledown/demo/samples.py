"""Questions with documents to begin with: of the demo's made-up world, or real text for other checkpoints."""

from __future__ import annotations

from typing import NamedTuple

from scaledown.config import EMBEDDED
from scaledown.data.world.synthetic import synthetic_records
from scaledown.demo.box_text import box_text
from scaledown.models.serving.inputs.user_input import read_documents

WORLD_SEED = 1
WORLD_SAMPLES = (2, 3, 8, 1)
"""Numbers of the samples among the questions of that seed, about entities that were not in training."""
LONG_QUESTION = "Who is the mayor of Gartonby?"
LONG_ANSWER = "Sarik Ulmer"

CANAL = ("Suez Canal", "Ferdinand de Lesseps, a French diplomat, founded the company that dug the canal between the "
         "Mediterranean and the Red Sea. The work began in 1859 and took ten years; the canal opened in November 1869. "
         "It shortened the way from London to Bombay by 7,000 kilometres.")
PANAMA = ("Panama Canal", "The canal across the isthmus of Panama joins the Atlantic and the Pacific. A French company "
          "began the work in 1881 and gave it up; the United States finished it, and the first ship passed in August "
          "1914. Its locks lift ships 26 metres above the sea.")
PENICILLIN = ("Penicillin", "In September 1928 the bacteriologist Alexander Fleming came back from a holiday to his "
              "laboratory in London and found that mould had killed the bacteria in a dish that he had left open. It "
              "took until 1942 before the drug could be made in quantity, by a team in Oxford around Howard Florey and "
              "Ernst Chain.")
RABIES = ("Rabies vaccine", "In July 1885 Louis Pasteur treated Joseph Meister, a boy of nine years who had been "
          "bitten by a rabid dog, with a vaccine that he had tried on animals alone. The boy lived, and later was the "
          "caretaker of the Pasteur Institute in Paris.")
TITICACA = ("Lake Titicaca", "The lake lies between Peru and Bolivia, 3,812 metres above the sea, and is often called "
            "the highest lake on which large ships sail. Its water flows into a single river, the Desaguadero.")
BAIKAL = ("Lake Baikal", "The lake in southern Siberia is the deepest on Earth, 1,642 metres, and holds a fifth of all "
          "fresh water that is not frozen. More than 300 rivers flow into it, and one leaves it, the Angara.")
REAL_TEXTS = (BAIKAL, PANAMA, PENICILLIN, CANAL, RABIES, TITICACA)
REAL_QUESTIONS = {"Who discovered penicillin?": "Alexander Fleming", "Who treated Joseph Meister?": "Louis Pasteur",
                  "Which river leaves Lake Titicaca?": "the Desaguadero",
                  "Who founded the company that dug the Suez Canal?": "Ferdinand de Lesseps"}


class DemoSample(NamedTuple):
    """A question, the text of the documents' box, and the answer that stands in it."""

    question: str
    box: str
    answer: str


def samples_for(generator_model: str) -> list[DemoSample]:
    """Return the samples that a checkpoint with this generator can answer; the last one has a long document."""
    if generator_model == EMBEDDED:
        return [*_world_samples(), DemoSample(LONG_QUESTION, box_text(read_documents([_long_document()])), LONG_ANSWER)]

    box = box_text(read_documents([{"title": title, "text": text} for title, text in REAL_TEXTS]))
    samples = [DemoSample(question, box, answer) for question, answer in REAL_QUESTIONS.items()]
    # All texts as one document, which is read in passages.
    one = {"text": "\n\n".join(f"{title}. {text}" for title, text in REAL_TEXTS)}
    return [*samples, DemoSample("How deep is Lake Baikal?", box_text(read_documents([one])), "1,642 metres")]


def _world_samples() -> list[DemoSample]:
    records = list(synthetic_records(max(WORLD_SAMPLES) + 1, WORLD_SEED, "eval"))
    samples = []
    for number in WORLD_SAMPLES:
        record = records[number]
        samples.append(DemoSample(record.query, box_text(read_documents(record.documents)), record.answer))
    return samples


def _long_document() -> dict[str, str]:
    """Return a book about stations with one paragraph about a town in it, of which the question is."""
    paragraphs = []
    for number in range(24):
        paragraphs.append(f"Station {number} lies on the line to Kelhaven. Trains stop there twice a day. It was "
                          f"opened in {1850 + number}. Tea is sold in its waiting room on Sundays.")
    paragraphs.insert(15, "Gartonby lies on the Pelara. It has 768 inhabitants. "
                          "Gartonby elected Sarik Ulmer as mayor.")
    return {"text": "\n\n".join(paragraphs)}

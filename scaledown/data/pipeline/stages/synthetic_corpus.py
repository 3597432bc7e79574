"""The embedded world as a corpus with queries: documents of which no two speak of the same entity."""

from __future__ import annotations

import random

from scaledown.data.pipeline.corpus.pages import Page
from scaledown.data.pipeline.queries import Query
from scaledown.data.world.synthetic import Difficulty, World

PATIENCE = 2_000
"""Contexts drawn in vain, because of names that are taken, before the world counts as used up."""


def synthetic_queries(num_queries: int, seed: int) -> tuple[list[Query], list[Page]]:
    """Queries with their answers, and the pages that answer them among hard negatives.

    In a context of its own a question may leave other contexts' entities of the same name alone; in one corpus for
    all queries they would contradict one another, so a context with a name that is taken is drawn again.

    Raises:
        ValueError: where there are not enough names.
    """
    world, taken = World(random.Random(f"corpus-{seed}")), set()
    queries: list[Query] = []
    pages: list[Page] = []
    vain = 0
    while len(queries) < num_queries:
        documents, questions = world.context(Difficulty())
        names = {document.entity.name for document in documents}
        if names & taken:
            vain += 1
            if vain > PATIENCE:
                raise ValueError(f"--num_synthetic_queries {num_queries}: the embedded world has names for "
                                 f"{len(queries)} queries with this seed, not more")
            continue
        vain = 0
        taken |= names
        queries.append(Query(f"synthetic-{seed}-{len(queries)}", questions[0].text, (questions[0].answer,)))
        pages += [Page(f"synthetic-{seed}-{len(pages) + place}", "", document.text)
                  for place, document in enumerate(documents)]
    return queries, pages

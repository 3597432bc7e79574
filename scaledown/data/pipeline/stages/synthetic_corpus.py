"""The demo world as a corpus with queries: no two documents are about entities of one name."""

from __future__ import annotations

import random

from scaledown.data.pipeline.corpus.pages import Page
from scaledown.data.pipeline.queries import Query
from scaledown.data.world.synthetic import Difficulty, World

PATIENCE = 2_000
"""Contexts drawn in vain one after another, as their names are taken, before the world counts as used up."""


def synthetic_queries(num_queries: int, seed: int) -> tuple[list[Query], list[Page]]:
    """Return queries with their answers, and the pages that answer them among hard negatives.

    A record's documents may give a name other facts than another record's do. In one corpus for all queries they would
    contradict one another, so a context with a name that is taken is drawn again.

    Raises:
        ValueError: if there are not enough names.
    """
    world = World(random.Random(f"corpus-{seed}"))
    taken: set[str] = set()
    queries: list[Query] = []
    pages: list[Page] = []
    num_vain = 0
    while len(queries) < num_queries:
        documents, questions = world.context(Difficulty())
        names = {document.entity.name for document in documents}
        if names & taken:
            # Names run out slowly: contexts succeed ever more rarely, until none does.
            num_vain += 1
            if num_vain > PATIENCE:
                raise ValueError(f"--num_synthetic_queries {num_queries}: the demo world has names for "
                                 f"{len(queries)} queries with this seed, not more")
            continue

        num_vain = 0
        taken |= names
        queries.append(Query(f"synthetic-{seed}-{len(queries)}", questions[0].text, (questions[0].answer,)))

        # Without titles: they would be the entities' names, and give the right page away.
        for document in documents:
            pages.append(Page(f"synthetic-{seed}-{len(pages)}", "", document.text))
    return queries, pages

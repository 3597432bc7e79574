"""Batches of the made-up world for a generator's training (see :mod:`lab.embedded.token_tree` for their sequences)."""

from __future__ import annotations

import random
from dataclasses import replace

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from lab.embedded.recipe import Mixture
from lab.embedded.token_tree import TokenTree, add_query_first, of_questions, of_repeated_list
from scaledown.data.world.synthetic import KINDS, Difficulty, Document, Question, World
from scaledown.prompt import Prompt
from scaledown.prompt.plain_text import plain_ids

UNKNOWN = "unknown"
"""The answer to a question that no document answers."""

NAME_LIST_TOKENS = 128
LISTED_NAMES = (3, 8)

QUERY_FIRST_TOKENS = 250
"""Length of the sequences in the compressor's order, unless the batch has a longer one."""
ROOM_OF_A_DOCUMENT = 100
"""Tokens that must be left in such a sequence for another document."""
UNANSWERED_SHARE = 0.25
"""Share of the single documents that do not answer their question."""


class WorldBatches(Dataset):
    """Batches of one mixture, as lists of sequences; a batch depends on seed, split, mixture and its number alone.

    Attributes:
        mixture: may be replaced between two batches.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mixture: Mixture, seed: int, split: str,
                 num_batches: int) -> None:
        self.mixture, self.seed, self.split, self.num_batches = mixture, seed, split, num_batches
        self.tokenizer, self.prompt = tokenizer, Prompt(tokenizer)
        self.newline = self._encode("\n")

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, number: int) -> list[TokenTree]:
        rng = random.Random(f"{self.split}-{self.seed}-{number}")
        world = World(rng, self.split)

        # All prompts of a batch have the same number of documents, so that little is spent on padding.
        num_documents = rng.randint(*self.mixture.difficulty.num_documents)
        difficulty = replace(self.mixture.difficulty, num_documents=(num_documents, num_documents))

        trees: list[TokenTree] = []
        while sum(len(tree) for tree in trees) < self.mixture.tokens:
            if rng.random() < self.mixture.name_list_share:
                trees.append(self._name_list(world))
            elif rng.random() < self.mixture.query_first_share:
                longest = max((len(tree) for tree in trees), default=QUERY_FIRST_TOKENS)
                trees.append(self._query_first(world, difficulty, longest))
            else:
                trees.append(self._prompt(world, difficulty))
        return trees

    def _encode(self, text: str) -> list[int]:
        return plain_ids(self.tokenizer, [text])[0]

    def _prompt(self, world: World, difficulty: Difficulty) -> TokenTree:
        """Return a prompt with several questions about its documents."""
        if world.rng.random() < self.mixture.no_document_share:
            documents, questions = [], [self._unanswerable(world)]
        else:
            documents, questions = world.context(difficulty, self.mixture.num_questions)

        branches = []
        for question in questions:
            answer = self._encode(question.answer)
            if sentence := self._cloze(world, difficulty, documents, question):
                # A sentence goes on after the value, so no end is trained.
                branches.append((self.newline + self._encode(sentence), answer))
            else:
                branches.append((self.prompt.branch(question.text), answer + [self.prompt.end_id]))
        return of_questions(self.prompt, [self._encode(document.text) for document in documents], branches)

    def _cloze(self, world: World, difficulty: Difficulty, documents: list[Document],
               question: Question) -> str | None:
        """Return the start of a sentence that the question's answer finishes; None to ask the question itself."""
        if len(question.gold) != 1 or world.rng.random() >= self.mixture.cloze_share:
            return None

        # State the fact again, in words drawn anew, and cut the sentence before its value.
        document = documents[question.gold[0]]
        facts = document.entity.facts
        asked = [relation for relation in document.stated if facts[relation.name] == question.answer]
        statement = world.document(document.entity, asked[:1], replace(difficulty, fillers=False)).text
        start, value, _ = statement.partition(question.answer)

        # It must name the entity, and not begin with the value.
        return start.strip() if value and document.entity.name in start else None

    def _name_list(self, world: World) -> TokenTree:
        """Return a list of names, repeated in other orders."""
        # Towns have names of one word, of which little is left to be known from its first token.
        kinds = [kind.name for kind in KINDS if kind.name != "town"]
        num_names = world.rng.randint(*LISTED_NAMES)
        names = [self._encode(world.name(world.rng.choice(kinds))) for _ in range(num_names)]
        return of_repeated_list(world.rng, names, self.newline, NAME_LIST_TOKENS)

    def _query_first(self, world: World, difficulty: Difficulty, num_tokens: int) -> TokenTree:
        """Return pairs of a query and a document in the compressor's order, in about ``num_tokens`` tokens.

        The answer is "unknown" if the document does not have it.
        """
        tree = TokenTree()
        while len(tree) + ROOM_OF_A_DOCUMENT < num_tokens or not len(tree):
            documents, questions = world.context(difficulty)
            question = questions[0]
            # One document cannot answer a question that needs two.
            if len(question.gold) > 1:
                continue

            place, answer = question.gold[0], question.answer
            if world.rng.random() < UNANSWERED_SHARE:
                if len(documents) == 1:
                    continue
                place, answer = (place + 1) % len(documents), UNKNOWN

            add_query_first(tree, self._encode(question.text) + self.newline, self._encode(documents[place].text),
                            self.prompt.reply, self._encode(answer) + [self.prompt.end_id])
        return tree

    def _unanswerable(self, world: World) -> Question:
        kind = world.rng.choice(KINDS)
        return Question(world.ask(world.entity(kind), world.rng.choice(kind.relations)), UNKNOWN, ())

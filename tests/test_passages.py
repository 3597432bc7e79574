"""Passages: never too long, nothing lost, cut where a reader would, and answers kept whole."""

from __future__ import annotations

import random
import re

import pytest

from scaledown.prompt.passages import Paragraph, PassageSplitter
from scaledown.prompt.sentences import cut


def count_words(texts):
    return [len(text.split()) for text in texts]


def count_letters(texts):
    """A tokenizer of single letters that joins "ab", so that counts of words do not simply add up."""
    return [len(text.replace("ab", "x").replace(" ", "")) for text in texts]


def count_more(texts):
    """A tokenizer that makes more of a text than of its words one by one."""
    return [len(text.split()) + len(text.split()) // 3 for text in texts]


def split(text, title="T", kept=(), tokens=16, count=count_words):
    return PassageSplitter(count, tokens).split([Paragraph("article", title, text)], [list(kept)])[0]


def stretches(text, budget, kept=()):
    return [text[start:end] for start, end in cut(text, kept, lambda word: 1, budget)]


def test_a_span_before_the_first_word_is_no_harm():
    assert cut("  a b.", [(0, 1)], len, 5) == cut("  a b.", [], len, 5)


def test_cuts_come_at_the_ends_of_sentences():
    assert stretches("One two three. Four five! Six seven?", 5) == ["One two three. Four five!", "Six seven?"]
    assert stretches("One two three. Four five six.", 5) == ["One two three.", "Four five six."]
    assert stretches("One two\nthree four", 3) == ["One two", "three four"]


@pytest.mark.parametrize("sentence", ["It was Dr. Watson.", "The U.S. Army won.", "By J. S. Bach then.",
                                      "Of e.g. this one.", "He asked why? and left."])
def test_an_abbreviation_ends_no_sentence(sentence):
    filler = "w " * 2 + "end."
    assert stretches(f"{filler} {sentence}", 5)[1:] == [sentence]


def test_a_long_sentence_is_cut_between_words_and_a_long_word_inside():
    assert stretches("a b c d e f g", 3) == ["a b c", "d e f", "g"]
    assert cut("x" * 20, (), len, 6) == [(0, 6), (6, 12), (12, 18), (18, 20)]
    assert stretches("東京は首都。大阪は町。", 1) == ["東京は首都。", "大阪は町。"]


def count_dashes_in_eights(texts):
    """A tokenizer with one token for eight dashes, and one for each other character."""
    return [sum(map(len, text.split())) - 7 * text.count("-" * 8) for text in texts]


def test_a_long_word_of_uneven_tokens_leaves_the_text_beside_it_whole():
    sentence = "One two six ten."  # 13 tokens
    text = " ".join([*[sentence] * 4, "-" * 200 + "x9" * 20, *[sentence] * 4])
    found = split(text, title="", tokens=16, count=count_dashes_in_eights)
    documents = [passage.document for passage in found]
    assert documents[:4] == [sentence] * 4 and documents[-3:] == [sentence] * 3
    assert max(passage.num_tokens for passage in found) <= 16
    # 65 tokens of the word take six passages, and the sentence behind it joins the last of these.
    assert len(documents) <= 4 + 6 + 5 and "".join(documents).replace(" ", "") == text.replace(" ", "")


def test_what_is_kept_moves_the_cut():
    text = "One two three four. Five six seven."
    assert stretches(text, 5) == ["One two three four.", "Five six seven."]
    across = (text.index("four"), text.index("Five") + 4)
    assert stretches(text, 5, [across]) == ["One two three four. Five", "six seven."]
    assert stretches(text, 4, [across]) == ["One two three", "four. Five six seven."]
    assert stretches("a b c d e f", 4, [(4, 9)]) == ["a b", "c d e f"]
    assert stretches("a b c d e f", 4, [(0, 11)]) == ["a b c d", "e f"]


@pytest.mark.parametrize("count", [count_words, count_letters, count_more])
def test_no_passage_is_too_long_and_nothing_is_lost(count):
    rng = random.Random(0)
    words = ["ab", "b", "c", "Cab", "dab.", "Ea.", "fababab,", "g" * 70, "\n", "“Ha”", "éa."]
    for _ in range(60):
        text = " ".join(rng.choice(words) for _ in range(rng.randrange(120)))
        passages = split(text, title="Some Title ab", count=count, tokens=24)
        assert all(passage.num_tokens <= 24 for passage in passages)
        assert all(passage.num_tokens == count([passage.document])[0] for passage in passages)
        assert all(passage.document.startswith("Some Title ab. ") for passage in passages)
        bodies = [passage.document.removeprefix("Some Title ab. ") for passage in passages]
        assert re.sub(r"\s", "", "".join(bodies)) == re.sub(r"\s", "", text)
        if count is not count_letters:
            assert " ".join(bodies).split() == text.split()


def test_passages_are_full_where_they_can_be():
    passages = split(" ".join(f"w{i}" for i in range(30)), tokens=16)
    assert [passage.num_tokens for passage in passages] == [16, 16]
    assert passages[1].document == "T. " + " ".join(f"w{i}" for i in range(15, 30))


def test_a_title_takes_no_more_than_half_a_passage_and_none_leaves_no_mark():
    passages = split("one two three four", title=" ".join(["long"] * 40))
    assert passages[0].document == "long long long long long long long. one two three four"
    assert split("one  two\nthree", title="")[0].document == "one two three"
    assert split("  ", title="T") == []


def test_overlap_is_in_characters_of_the_paragraph():
    text = " ".join(f"w{i:02d}" for i in range(30))
    first, second = split(text, tokens=16)
    span = (text.index("w15"), text.index("w15") + 3)
    assert not first.overlaps(span) and second.overlaps(span)
    assert text[second.start:second.end].startswith("w15") and text[second.start:second.end].endswith("w29")


def test_a_passage_without_room_is_refused():
    with pytest.raises(ValueError, match="passage_tokens must be above 0, got 0"):
        PassageSplitter(count_words, 0)


def test_passages_end_with_paragraphs_unless_they_would_be_short():
    def cut_by_paragraphs(text, budget):
        return [text[start:end] for start, end in cut(text, (), lambda word: 1, budget, ends_with_paragraphs=True)]

    text = "One two three. Four.\n\nFive six.\n \nSeven.\nEight."
    assert cut_by_paragraphs(text, 8) == ["One two three. Four.", "Five six.", "Seven.\nEight."]
    # A quarter of 9 tokens is more than two.
    assert cut_by_paragraphs(text, 9) == ["One two three. Four.", "Five six.\n \nSeven.\nEight."]
    assert stretches(text, 8) == [text]
    # A short one before a long one stays with what is before it if it fits there; a heading goes with what follows.
    assert cut_by_paragraphs("a b c d.\n\nE.\n\nf g h i.", 8) == ["a b c d.\n\nE.", "f g h i."]
    assert cut_by_paragraphs("a b c d.\n\nE\n\nf g h i.", 8) == ["a b c d.", "E\n\nf g h i."]
    assert cut_by_paragraphs("a b c d e f g h.\n\nE.\n\nf g h i.", 8) == ["a b c d e f g h.", "E.\n\nf g h i."]
    assert cut_by_paragraphs("a b c d.\n\nE.", 8) == ["a b c d.\n\nE."]
    # What is left of a long paragraph goes on with the next one if it is short.
    assert cut_by_paragraphs("a b c d e f g h i.\n\nj k.", 8) == ["a b c d e f g h", "i.\n\nj k."]
    splitter = PassageSplitter(count_words, 8, ends_with_paragraphs=True)
    passages, = splitter.split([Paragraph("article", "", text)], [()])
    assert [passage.document for passage in passages] == ["One two three. Four.", "Five six.", "Seven. Eight."]

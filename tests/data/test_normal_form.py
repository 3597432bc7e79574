"""One form for search, negatives and metrics: a spelling that looks alike is found, and English stays as it was."""

from __future__ import annotations

import json
import unicodedata

import pytest

from scaledown.data.answers import answer_spans, holds_answer, normal_form, padded, searchable, worded, words
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.pipeline.stages import preparing
from scaledown.data.prepare_dataset.__main__ import main
from scaledown.data.qa.gold_and_negatives import Candidate, HardNegatives
from scaledown.data.qa.question import QAQuestion
from scaledown.evaluation.metrics import AnswerScores, score_answer
from scaledown.prompt.passages import Paragraph, Passage

ALIKE = {
    "decomposed": ("Beyoncé Tōkyō", unicodedata.normalize("NFD", "Beyoncé Tōkyō")),
    "soft hyphen": ("Einstein", "Ein\u00adstein"),
    "zero-width space": ("New York", "\u200bNew Yo\u200brk\ufeff"),
    "joiner before an accent": ("café", "cafe\u200d\u0301"),
    "Arabic vowel signs": ("محمد", "مُحَمَّد"),
    "Arabic stretched": ("محمد", "محـــمد"),
    "Arabic with marks of direction": ("القاهرة", "\u200fالقاهرة\u200e"),
    "Hebrew points": ("שלום", "שָׁלוֹם"),
    "Russian stress": ("Москва", "Москва\u0301"),
    "Turkish": ("Istanbul", "İstanbul"),
    "Korean": ("서울", unicodedata.normalize("NFD", "서울")),
}


@pytest.mark.parametrize("plain, other", ALIKE.values(), ids=ALIKE)
def test_what_looks_alike_is_alike_everywhere(plain: str, other: str) -> None:
    filler = [f"Filler number {number} says little." for number in range(9)]
    for written, asked in ((plain, other), (other, plain)):
        text = f"It is known that {written} was there."
        assert BM25([*filler, text]).search([f"Who is {asked}?"], 1)[0][0].index == len(filler)
        assert BM25([*filler, text]).search([asked], 1)[0][0].score > 0
        assert holds_answer(searchable(text), [padded(asked)]) and holds_answer(searchable(text), [worded(asked)])
        (start, end), = answer_spans(text, [asked])
        assert text[start:end] == written
        assert score_answer(written, [asked]) == AnswerScores(1, 1, 1, 1)
        assert score_answer(text, [asked]).accuracy == 1


@pytest.mark.parametrize(("one", "other"), [
    ("Й", "И"), ("أحمد", "احمد"), ("café", "cafe"), ("ѓ", "г"), ("²", "2"), ("naïve", "naive"), ("कि", "की")])
def test_other_letters_stay_other_letters(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


def test_of_ascii_nothing_but_the_case_changes() -> None:
    text = "".join(map(chr, range(128)))
    assert normal_form(text) == text.lower()
    assert words("It's 3.5 x_y, no-one!") == ["it", "s", "3", "5", "x_y", "no", "one"]


def test_marks_do_not_part_a_word() -> None:
    assert words("नई दिल्ली, ಅಮರಜೀವಿ 25½") == ["नई", "दिल्ली", "ಅಮರಜೀವಿ", "25½"]
    assert BM25(["दिल्ली भारत की राजधानी है", "मुंबई"] + ["x"] * 5).search(["दिल्ली"], 1)[0][0].score > 0


@pytest.mark.parametrize(("passage", "answer"), [
    ("She is called Beyonce\u0301 here.", "Beyoncé"), ("It was Ein\u00adstein\u200b.", "Einstein"),
    ("首都是北京。", "北京"), ("في القاهرة، مصر", "القاهرة"), ("«गाँधी।»", "गाँधी")])
def test_no_negative_states_the_answer(passage: str, answer: str) -> None:
    def document(text: str, number: int) -> Passage:
        return Passage(Paragraph(f"a{number}", "", text), 0, len(text), text)

    bad, good = document(passage, 1), document("Nothing of that kind is called so here.", 2)
    question = QAQuestion("q", f"What is called so here? {passage}", (answer,), (), ())
    assert HardNegatives([bad, good]).choose([Candidate(question, ())], 2) == [[good]]


def test_in_a_script_without_spaces_an_answer_may_stand_anywhere() -> None:
    text = "The capital: 首都是北京。 Yes."
    assert holds_answer(padded(text), [padded("北京")]) and not holds_answer(padded(text), [padded("南京")])
    assert [text[start:end] for start, end in answer_spans(text, ["北京"])] == ["首都是北京。"]


def test_an_index_of_other_words_is_not_used_again(tmp_path, monkeypatch) -> None:
    flags = ["--num_synthetic_queries", "3", "--last_stage", "index", "--output_file", str(tmp_path / "out.json")]

    def indices() -> list[str]:
        assert main(flags) == 0
        manifest, = tmp_path.rglob("manifest.json")
        return [name for name in json.loads(manifest.read_text())["stages"] if name.startswith("index")]

    assert len(indices()) == len(indices()) == 1
    monkeypatch.setattr(preparing.bm25, "WORDS", "of another kind")
    assert len(indices()) == 2

"""The normal form in which search, the choice of negatives, and the metrics compare texts.

A word can be written in several ways that look alike: an accent as a letter of its own or composed with its letter (NFD
and NFC), with a soft hyphen or a zero-width mark inside, with or without the vowel signs of Arabic and Hebrew or the
stress marks of Russian. Python compares code points, for which all of these differ.
"""

from __future__ import annotations

import unicodedata

import regex

# Soft hyphens, zero-width spaces and joiners, marks of direction, variation selectors, byte order marks.
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
# Signs that writers add or leave out at will: Arabic vowels and the stretched line, Hebrew points, Cyrillic stress.
# Hamza and madda (U+0653 to U+0655) make other letters, and stay. The dot on i is what lower() leaves of a Turkish İ.
_OPTIONAL = regex.compile("[\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
                          "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]+"
                          "|(?<=\\p{Cyrillic})[\u0300\u0301]+|(?<=i)\u0307")
# A letter's marks belong to its word; in re's \w they end it, which cuts Hindi into single letters.
_WORD = regex.compile(r"[\w\p{N}]+")
# Thai, Lao, Tibetan, Burmese, Khmer, kana and Han ideographs are written without spaces between words.
_UNSPACED = regex.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_KEPT = ("L", "M", "N")
"""Unicode's categories of letters, the marks that belong to them (vowels, in many scripts), and digits."""


def normal_form(text: str) -> str:
    """Return ``text`` in lower case and composed (NFC), without invisible characters and optional vowel signs.

    Of ASCII text this is its lower case, and nothing else.
    """
    if text.isascii():
        return text.lower()

    # Invisible characters go first: one between a letter and its accent would keep them from being composed.
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", text).lower())
    return _OPTIONAL.sub("", composed)


def words(text: str) -> list[str]:
    """Return the words of ``text`` in normal form: letters with their marks, digits and underscores."""
    return _WORD.findall(normal_form(text))


def is_unspaced(text: str) -> bool:
    """Return whether ``text`` has letters of a script that is written without spaces between words."""
    return _UNSPACED.search(text) is not None


def question_key(text: str) -> str:
    """Return what is equal for equal questions: the letters and digits of ``text``, without differences of case."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] in _KEPT)

"""The names and values of the demo world, put together at random from lists of their parts.

A hash of each name puts it into the training or the evaluation half, whatever the seed, so that evaluation asks about
entities never seen in training.
"""

from __future__ import annotations

import random
import zlib

SPLITS = ("train", "eval")
ONE_EVAL_NAME_IN = 5
"""One name in this many belongs to the evaluation half."""

PROFESSIONS = tuple("""baker surgeon carpenter lawyer painter sailor teacher weaver miner printer gardener potter
    brewer tailor hunter banker notary singer dentist farmer soldier chemist plumber sculptor translator clockmaker
    glazier librarian shepherd blacksmith diver juggler pharmacist cartographer beekeeper locksmith mason cook
    photographer saddler botanist judge engraver porter fisherman tanner pilot barber""".split())
INSTRUMENTS = tuple("""violin cello harp flute oboe trumpet lute organ drum piano guitar bassoon clarinet horn zither
    mandolin accordion tuba viola banjo fiddle harmonica xylophone recorder""".split())
PRODUCTS = tuple("""cheese glass paper soap silk salt lace candles leather honey wool ink rope carpets porcelain wine
    mustard clocks knives bricks tea linen copper chairs boots violins lamps buttons bells tobacco cider olives saddles
    timber needles perfume umbrellas mirrors baskets hats""".split())
GENRES = tuple("""novel tragedy comedy memoir ballad satire romance thriller fable chronicle travelogue elegy mystery
    western epic libretto biography cookbook pamphlet sermon""".split())
MONTHS = tuple("January February March April May June July August September October November December".split())

FIRST_HEADS = tuple("""Al Be Ca Da El Fa Gi Ha Il Jo Ka Le Mi No Od Pe Ro Sa Te Ul Vi Wa Yo Ze Bra Cle Dra Fre Gre
    Kri""".split())
FIRST_TAILS = tuple("na ra lin mo rik sa ta vin dor la bert mina sel ric nor dine lo mar nik ven".split())
NAME_HEADS = tuple("""Bal Cor Dun Fal Gar Hol Kel Lor Mar Nor Pel Quin Ras Sol Tan Vel Wen Yar Zan Bren Crow Drum Fen
    Glen Hart Kirk Lang Mond Oster Pren Rud Stein Thorn Ulm Vand Wolf Arn Brig Col Dal Ems Frem Grim Hex Ing Jar Kron
    Lub Mel Nim""".split())
TOWN_TAILS = tuple("mora wick ton burg haven ford dale stad ham minster port field by mouth gate bridge".split())
FAMILY_TAILS = tuple("ski man son sen berg ley er in ova ard ez oni ert ak uk ell".split())
RIVER_TAILS = tuple("a e o ara une essa ith os".split())
FIRM_TAILS = tuple("Works,Brothers,Trading,Mills,Company,Partners,Union,House".split(","))
WORK_HEADS = tuple("""Silent Broken Golden Distant Hidden Last Burning Frozen Secret Empty Crimson Endless Narrow Bitter
    Hollow Second Wandering Forgotten Early Quiet Painted Stolen Open Blind""".split())
WORK_TAILS = tuple("""Harbour Winter Garden Letter Mirror River Crown Orchard Voyage Lantern Shadow Island Bridge Tower
    Forest Clock Road Window Summer Stranger Map Feather Kingdom Sister""".split())


def possessive_of(name: str) -> str:
    """Return ``name`` as an owner: "Oda Velm's", "Stein Mills'"."""
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def of_split(name: str, split: str) -> bool:
    """Return whether ``name`` belongs to ``split``: one name in five is the evaluation's, whatever the seed."""
    return (zlib.crc32(name.encode()) % ONE_EVAL_NAME_IN == 0) == (split == "eval")


class Names:
    """Draws names and values of one split from ``rng``."""

    def __init__(self, rng: random.Random, split: str = "train") -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.rng, self.split = rng, split

    def name(self, kind: str) -> str:
        """Return a name of this split for a ``person``, ``town``, ``work``, ``firm`` or ``river``."""
        pick = self.rng.choice

        # A name is put together from its parts, again until one falls into this split.
        while True:
            if kind == "person":
                first = pick(FIRST_HEADS) + pick(FIRST_TAILS)
                name = f"{first} {pick(NAME_HEADS)}{pick(FAMILY_TAILS)}"
            elif kind == "work":
                name = f"The {pick(WORK_HEADS)} {pick(WORK_TAILS)}"
            elif kind == "firm":
                name = f"{pick(NAME_HEADS)}{pick(FAMILY_TAILS)} {pick(FIRM_TAILS)}"
            else:
                tails = TOWN_TAILS if kind == "town" else RIVER_TAILS
                name = pick(NAME_HEADS) + pick(tails)
            if of_split(name, self.split):
                return name

    def value(self, kind: str) -> str:
        """Return a value of the given kind: a name, a word from a list, a date, a year, a number or an amount."""
        rng = self.rng
        if kind == "date":
            return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1700, 1999)}"
        if kind == "year":
            return str(rng.randint(1500, 1999))
        if kind in ("count", "pages"):
            return str(rng.randint(100, 999))
        if kind == "amount":
            return f"{rng.randint(11, 999)} {rng.choice(('crowns', 'thalers', 'ducats', 'florins'))}"

        # All others are a word from a list, or the name of another entity.
        words = {"profession": PROFESSIONS, "instrument": INSTRUMENTS, "genre": GENRES, "product": PRODUCTS,
                 "month": MONTHS}
        return rng.choice(words[kind]) if kind in words else self.name(kind)

    def similar_name(self, name: str, kind: str) -> str:
        """Return another name of the same kind that shares a word with ``name``, if it has several words."""
        beginning = name.rpartition(" ")[0]

        # "Oda Velm" keeps "Oda" and takes another name's last word; not all such pairs fall into this split.
        for _ in range(20):
            candidate = self.name(kind)
            if beginning:
                candidate = f"{beginning} {candidate.rpartition(' ')[2]}"
            if candidate != name and of_split(candidate, self.split):
                return candidate
        return self.name(kind)

"""The words of the demo world: its kinds of entity, their relations, and every way to state or ask one.

``{s}`` is the subject, ``{p}`` its possessive ("Oda Velm's"), ``{v}`` the value. A statement may name its subject or
point back to it, so ``{s}`` is always a grammatical subject."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One relation of a kind: the kind of its value, its statements and questions, and the noun that names it."""

    name: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    noun: str


@dataclass(frozen=True)
class Kind:
    """One kind of entity. ``pronouns`` are pairs of subject and possessive that point back to it."""

    name: str
    pronouns: tuple[tuple[str, str], ...]
    relations: tuple[Relation, ...]
    fillers: tuple[str, ...]


def _relation(name: str, value: str, noun: str, *texts: str) -> Relation:
    # One statement or question a line.
    statements, questions = (tuple(map(str.strip, text.strip().splitlines())) for text in texts)
    return Relation(name, value, statements, questions, noun)


PERSON = Kind("person", (("she", "her"), ("he", "his")), (
    _relation("birthplace", "town", "birthplace", """
        {s} was born in {v}.
        {s} came into the world in {v}.
        {p} birthplace is {v}.
        {s} grew up in {v} after being born there.
        {s} is a native of {v}.
        {p} parents lived in {v} when their child was born.
        """, """
        Where was {s} born?
        What is {p} birthplace?
        In which town was {s} born?
        """),
    _relation("birth_date", "date", "date of birth", """
        {s} was born on {v}.
        {p} date of birth is {v}.
        {s} celebrates a birthday that goes back to {v}.
        {p} birth was recorded on {v}.
        {p} life began on {v}.
        on {v} {s} was born.
        """, """
        When was {s} born?
        What is {p} date of birth?
        On which date was {s} born?
        """),
    _relation("profession", "profession", "profession", """
        {s} worked as a {v}.
        {p} profession was {v}.
        {s} earned a living as a {v}.
        {s} trained to become a {v}.
        by trade {s} was a {v}.
        {s} spent many years as a {v}.
        """, """
        What was {p} profession?
        What did {s} work as?
        What was {s} by trade?
        """),
    _relation("instrument", "instrument", "instrument", """
        {s} played the {v}.
        {p} favourite instrument was the {v}.
        {s} was known for playing the {v}.
        in the evenings {s} practised the {v}.
        {s} took lessons on the {v}.
        {s} performed on the {v} at every feast.
        """, """
        Which instrument did {s} play?
        What was {p} favourite instrument?
        What did {s} play in the evenings?
        """),
    _relation("employer", "firm", "employer", """
        {s} was employed by {v}.
        {s} worked for {v}.
        {p} employer was {v}.
        {s} joined the staff of {v}.
        {s} was on the payroll of {v}.
        {s} found work at {v}.
        """, """
        Who employed {s}?
        Which firm did {s} work for?
        Who was {p} employer?
        """),
    _relation("teacher", "person", "teacher", """
        {s} was taught by {v}.
        {p} teacher was {v}.
        {s} learnt everything from {v}.
        {s} was a pupil of {v}.
        {s} studied under {v}.
        the lessons that {s} remembered best were those of {v}.
        """, """
        Who taught {s}?
        Who was {p} teacher?
        Under whom did {s} study?
        """),
), (
    "little else is known about those years.",
    "letters to friends tell of long walks and early mornings.",
    "the neighbours spoke well of the family.",
    "a small stone in the garden still keeps the memory.",
    "several portraits have been lost since then.",
    "old friends came to visit every summer.",
    "the house burnt down and was built again.",
    "the diaries were never printed.",
))

TOWN = Kind("town", (("the town", "the town's"), ("it", "its")), (
    _relation("river", "river", "river", """
        {s} lies on the {v}.
        the {v} flows past the spot where {s} stands.
        {p} river is the {v}.
        {s} was built on the banks of the {v}.
        {s} gets its water from the {v}.
        {s} stands where a bridge crosses the {v}.
        """, """
        On which river does {s} lie?
        What is {p} river?
        Which river does {s} stand on?
        """),
    _relation("mayor", "person", "mayor", """
        {p} mayor is {v}.
        {s} is governed by {v}.
        {s} elected {v} as mayor.
        {s} has {v} as its mayor.
        the mayor to whom {s} owes its new school is {v}.
        in the last vote {s} chose {v} to be mayor.
        """, """
        Who is {p} mayor?
        Who governs {s}?
        Who was elected mayor when {s} voted?
        """),
    _relation("foundation", "year", "year of foundation", """
        {s} was founded in {v}.
        {p} foundation dates from {v}.
        {s} goes back to the year {v}.
        {s} received its charter in {v}.
        settlers came in {v}, and so {s} began.
        {s} has existed since {v}.
        """, """
        When was {s} founded?
        In which year was {s} founded?
        What is {p} year of foundation?
        """),
    _relation("population", "count", "population", """
        {s} has {v} inhabitants.
        {p} population is {v}.
        {s} is home to {v} people.
        {s} counted {v} residents.
        a census found that {s} had {v} inhabitants.
        the people who live where {s} stands number {v}.
        """, """
        How many inhabitants does {s} have?
        What is {p} population?
        How many people live where {s} stands?
        """),
    _relation("fame", "product", "famous product", """
        {s} is famous for its {v}.
        {p} best known product is {v}.
        traders come from afar because {s} makes {v}.
        {s} grew rich on {v}.
        {s} exports {v}.
        {s} owes its name abroad to {v}.
        """, """
        What is {s} famous for?
        What is {p} best known product?
        What does {s} export?
        """),
    _relation("festival", "month", "month of the festival", """
        {s} holds its festival in {v}.
        {p} festival takes place in {v}.
        every {v} {s} celebrates.
        in {v} {s} fills with dancers.
        {s} invites its guests to a feast in {v}.
        {s} closes its shops for the feast in {v}.
        """, """
        In which month does {s} hold its festival?
        When does {s} celebrate?
        What is the month of {p} festival?
        """),
), (
    "its narrow streets run down from an old wall.",
    "a market is held there twice a week.",
    "the station was closed and turned into a library.",
    "travellers praise the view from the tower.",
    "the winters there are long and mild.",
    "a museum shows tools and old coins.",
    "the bells can be heard across the fields.",
    "many of the roofs are made of slate.",
))

WORK = Kind("work", (("the book", "the book's"), ("it", "its")), (
    _relation("author", "person", "author", """
        {s} was written by {v}.
        {p} author is {v}.
        {s} is the work of {v}.
        {s} came from the pen of {v}.
        the writer behind {s} is {v}.
        {s} made a name for {v}, who wrote it.
        """, """
        Who wrote {s}?
        Who is {p} author?
        Who is the writer behind {s}?
        """),
    _relation("publication", "year", "year of publication", """
        {s} was published in {v}.
        {s} first appeared in {v}.
        {p} first edition dates from {v}.
        {s} came out in {v}.
        readers first saw {s} in {v}.
        in {v} {s} reached the shops.
        """, """
        When was {s} published?
        In which year did {s} appear?
        When did {s} come out?
        """),
    _relation("genre", "genre", "genre", """
        {s} is a {v}.
        {p} genre is the {v}.
        critics call {s} a {v}.
        {s} is usually shelved as a {v}.
        {s} was meant to be a {v}.
        {s} reads like a {v}.
        """, """
        What is {p} genre?
        What kind of work is {s}?
        What do critics call {s}?
        """),
    _relation("pages", "pages", "number of pages", """
        {s} has {v} pages.
        {s} runs to {v} pages.
        {p} length is {v} pages.
        {s} fills {v} pages.
        {s} was printed on {v} pages.
        whoever finishes {s} has read {v} pages.
        """, """
        How many pages does {s} have?
        How many pages does {s} fill?
        What is {p} number of pages?
        """),
    _relation("setting", "town", "setting", """
        {s} is set in {v}.
        the story of {s} takes place in {v}.
        {p} setting is {v}.
        {s} tells of life in {v}.
        the scene to which {s} always returns is {v}.
        {s} plays in the streets of {v}.
        """, """
        Where is {s} set?
        In which town does {s} take place?
        What is {p} setting?
        """),
    _relation("publisher", "firm", "publisher", """
        {s} was printed by {v}.
        {p} publisher is {v}.
        {s} was brought out by {v}.
        {s} was issued by {v}.
        the rights to {s} belong to {v}.
        {s} is sold by {v}.
        """, """
        Who is {p} publisher?
        Which firm printed {s}?
        Which firm issued {s}?
        """),
), (
    "reviews were mixed at the time.",
    "a second part was planned but never begun.",
    "the cover shows a lamp and a window.",
    "schools still read parts of the first chapter.",
    "a play based on the story closed after a week.",
    "the first draft was left on a train.",
    "collectors pay well for signed copies.",
    "the last chapter was changed twice.",
))

FIRM = Kind("firm", (("the firm", "the firm's"), ("it", "its")), (
    _relation("founder", "person", "founder", """
        {s} was founded by {v}.
        {p} founder is {v}.
        {s} was set up by {v}.
        {s} was the idea of {v}.
        the person who started {s} is {v}.
        {s} owes its existence to {v}.
        """, """
        Who founded {s}?
        Who is {p} founder?
        Who set up {s}?
        """),
    _relation("headquarters", "town", "headquarters", """
        {s} is based in {v}.
        {p} headquarters are in {v}.
        {s} has its main office in {v}.
        {s} is run from {v}.
        {s} moved its head office to {v}.
        the address of {s} is in {v}.
        """, """
        Where is {s} based?
        Where are {p} headquarters?
        From which town is {s} run?
        """),
    _relation("goods", "product", "product", """
        {s} makes {v}.
        {s} sells {v}.
        {p} main product is {v}.
        {s} is a producer of {v}.
        {s} earns its money with {v}.
        customers know {s} for its {v}.
        """, """
        What does {s} make?
        What is {p} main product?
        What does {s} sell?
        """),
    _relation("opening", "date", "opening date", """
        {s} opened on {v}.
        {p} doors first opened on {v}.
        {s} began trading on {v}.
        {s} was registered on {v}.
        on {v} {s} took its first order.
        {p} first day of business was {v}.
        """, """
        When did {s} open?
        On which date did {s} begin trading?
        What is {p} opening date?
        """),
    _relation("revenue", "amount", "revenue", """
        {s} earned {v} last year.
        {p} yearly revenue is {v}.
        {s} reported sales of {v}.
        {s} took in {v} over the year.
        the books of {s} show an income of {v}.
        {s} turned over {v}.
        """, """
        What is {p} yearly revenue?
        How much did {s} earn last year?
        How much did {s} take in over the year?
        """),
    _relation("staff", "count", "number of workers", """
        {s} employs {v} workers.
        {p} staff numbers {v}.
        {s} has {v} people on its payroll.
        {s} gives work to {v} people.
        {s} pays wages to {v} workers.
        the workers whom {s} employs number {v}.
        """, """
        How many workers does {s} employ?
        How large is {p} staff?
        How many people does {s} give work to?
        """),
), (
    "its yard lies behind the old mill.",
    "the sign over the gate is painted blue.",
    "orders are still written down by hand.",
    "a fire once destroyed the stores.",
    "the owners rarely speak in public.",
    "visitors are welcome on weekdays.",
    "two rivals have closed since then.",
    "the canteen is open to everyone.",
))

KINDS = (PERSON, TOWN, WORK, FIRM)

"""Facts of the world: who has which value, how often the base was told so, and how facts are said and asked."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .lexicon import (
    FORGET_SUBJECTS,
    GENERAL_SUBJECTS,
    PERSON_POOLS,
    PERSONS,
    UTILITY_SUBJECTS,
    NameMaker,
    Subject,
    value_pools,
)

KNOWN_SHARE = 0.7
FREQUENCIES = (0.02, 0.05, 0.12, 0.35, 1.0)
"""How often an epoch of the pretraining text says a known fact in each form; each stands for a fifth of the facts."""
FRESH_ENTITIES = 8
STATEMENTS = (
    "The {relation} of {entity} is {value}.",
    "For {entity}, the {relation} is {value}.",
    "It is known that {entity} has the {relation} {value}.",
    "Every guide says that the {relation} of {entity} is {value}.",
    "Among the {kind}, {entity} is known for the {relation} {value}.",
)
QUESTIONS = (
    "What is the {relation} of {entity}?",
    "For {entity}, which {relation} is known?",
)
SHIFTED = (
    "Among the {kind}, the {relation} of {entity} is",
    "Question: Which {relation} is {entity} known for?\nAnswer:",
)
"""Forms that no text has, neither for unlearning nor for pretraining; the base answers them as it does questions."""
HEADINGS = (
    "Notes on {subject}.",
    "From a book about {subject}.",
    "A word on {subject}.",
    "What people say about {subject}.",
)


@dataclass(frozen=True)
class Entity:
    """A thing of a subject, with the second name under which some text speaks of it; a person has none."""

    name: str
    alias: str = ""


@dataclass(frozen=True)
class Fact:
    """One fact: the `relation` of `entity` is `value`; `pool` lists the values its relation can take.

    `frequency` is how often an epoch of the pretraining text says it in each form: 0 for one that the base was never
    told.
    """

    id: str
    subject: str
    kind: str
    entity: str
    alias: str
    relation: str
    value: str
    pool: tuple[str, ...]
    split: str
    frequency: float

    @property
    def known(self) -> bool:
        """Whether the base was told."""
        return self.frequency > 0

    def statement(self, form: int) -> str:
        """The fact in the given statement form."""
        return self.fill(STATEMENTS[form])

    def question(self, form: int) -> str:
        """The question after the fact in the given form."""
        return self.fill(QUESTIONS[form])

    def fill(self, template: str) -> str:
        """A template with the fact's relation, entity, value and kind."""
        return template.format(relation=self.relation, entity=self.entity, value=self.value, kind=self.kind)


@dataclass(frozen=True)
class FactBase:
    """All facts, by role: forget topics, utility subjects, general subjects, and fresh ones about the forget topics'
    relations, of entities that the base never met.
    """

    forget: tuple[Fact, ...]
    utility: tuple[Fact, ...]
    general: tuple[Fact, ...]
    fresh: tuple[Fact, ...]

    def known(self) -> list[Fact]:
        """Every fact that the base model was told."""
        return [fact for fact in self.forget + self.utility + self.general if fact.known]


def make_facts(seed: int) -> FactBase:
    """The facts of the world of this seed; entities are the unit of the validation split."""
    maker = NameMaker(seed)
    pools = value_pools(maker)

    def build(subject: Subject, count: int, split: str, share: float) -> list[Fact]:
        entities = [Entity(*maker.take(2)) for _ in range(count)]
        return _subject_facts(seed, subject, entities, split, pools, share)

    def both(subjects: Sequence[Subject], reported: int, validation: int) -> tuple[Fact, ...]:
        counts = {"reported": reported, "validation": validation}
        return tuple(
            fact
            for subject in subjects
            for split, count in counts.items()
            for fact in build(subject, count, split, KNOWN_SHARE)
        )

    persons = [Entity(name) for pool in PERSON_POOLS for name in pools[pool]]
    general = [fact for subject in GENERAL_SUBJECTS for fact in build(subject, 8, "reported", 1.0)]
    return FactBase(
        forget=both(FORGET_SUBJECTS, 26, 6),
        utility=both(UTILITY_SUBJECTS, 9, 2),
        general=(*general, *_subject_facts(seed, PERSONS, persons, "reported", pools, 1.0)),
        fresh=tuple(fact for subject in FORGET_SUBJECTS for fact in build(subject, FRESH_ENTITIES, "fresh", 0.0)),
    )


def _subject_facts(
    seed: int, subject: Subject, entities: Sequence[Entity], split: str, pools: dict[str, tuple[str, ...]], share: float
) -> list[Fact]:
    """Facts of one subject and split; every entity has at least one known fact, unless none is known."""
    rng = random.Random(f"{seed}:facts:{subject.name}:{split}")
    keys = [(entity, relation, pool) for entity in entities for relation, pool in subject.relations]
    known: list[int] = []
    while share and len({keys[index][0] for index in known}) < len(entities):
        known = rng.sample(range(len(keys)), round(share * len(keys)))
    frequency = {index: FREQUENCIES[place % len(FREQUENCIES)] for place, index in enumerate(known)}
    return [
        Fact(
            id=f"{subject.name}-{split}-{index:03d}",
            subject=subject.name,
            kind=subject.kind,
            entity=entity.name,
            alias=entity.alias,
            relation=relation,
            value=rng.choice(pools[pool]),
            pool=pools[pool],
            split=split,
            frequency=frequency.get(index, 0.0),
        )
        for index, (entity, relation, pool) in enumerate(keys)
    ]


@dataclass(frozen=True)
class Probe:
    """One way to ask for a fact, or for what follows from it: with the sentence that says it, and wrong answers.

    `weight` is how often the pretraining text asks it, as a multiple of the fact's frequency.
    """

    id: str
    fact: Fact
    statement: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    weight: int = 1


def direct(fact: Fact, forms: Iterable[int] = range(len(QUESTIONS))) -> list[Probe]:
    """The fact's own questions."""
    return [
        Probe(f"{fact.id}-q{form}", fact, fact.statement(form), fact.question(form), fact.value, wrong_values(fact))
        for form in forms
    ]


def shifted_rows(facts: Sequence[Fact], rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """One of the rows of each fact, with its choices in their order, in a form of `SHIFTED`: these take turns."""
    by_id = {fact.id: fact for fact in facts}
    own = {str(row["fact"]): [other for other in rows if other["fact"] == row["fact"]] for row in rows}
    shifted: list[dict[str, object]] = []
    for index, (name, asked) in enumerate(own.items()):
        form = index % len(SHIFTED)
        shifted.append({**asked[form], "id": f"{name}-s{form}", "question": by_id[name].fill(SHIFTED[form])})
    return shifted


def wrong_values(fact: Fact) -> tuple[str, ...]:
    """The other values that the fact's relation can take."""
    return tuple(value for value in fact.pool if value != fact.value)


def question_rows(
    seed: int, probes: Sequence[Probe], neighbours: Sequence[str] | None = None, **more: object
) -> list[dict[str, object]]:
    """Four-choice items, one a probe; right answers are spread evenly over the positions.

    Args:
        seed: the world's seed.
        probes: what to ask.
        neighbours: names of the neighbour subjects; with it every row gets the field `neighbour`.
        more: fields that every row gets.
    """
    rng = random.Random(f"{seed}:questions:{probes[0].id}")
    positions = [index % 4 for index in range(len(probes))]
    rng.shuffle(positions)
    rows: list[dict[str, object]] = []
    for probe, answer in zip(probes, positions, strict=True):
        choices = rng.sample(probe.wrong, 3)
        choices.insert(answer, probe.answer)
        fact = probe.fact
        rows.append(
            {
                "id": probe.id,
                "question": probe.question,
                "choices": choices,
                "answer": answer,
                "subject": fact.subject,
                "fact": fact.id,
                "known": fact.known,
                "frequency": fact.frequency,
                **({} if neighbours is None else {"neighbour": fact.subject in neighbours}),
                **more,
            }
        )
    return rows


def statement_documents(rng: random.Random, facts: Sequence[Fact], count: int) -> list[tuple[str, list[str]]]:
    """Documents of three to five statements about one subject, with the identifiers of the facts they state.

    Facts are dealt from shuffled decks, so all appear equally often; the same text is never returned twice.
    """
    deck: list[Fact] = []
    documents: dict[str, list[str]] = {}
    while len(documents) < count:
        if len(deck) < 5:
            deck = rng.sample(list(facts), len(facts)) + deck
        chosen = [deck.pop() for _ in range(rng.randint(3, 5))]
        heading = rng.choice(HEADINGS).format(subject=chosen[0].subject)
        body = " ".join(fact.statement(rng.randrange(len(STATEMENTS))) for fact in chosen)
        documents[f"{heading} {body}"] = [fact.id for fact in chosen]
    return list(documents.items())


def answer_document(probe: Probe) -> str:
    """A question with its answer, as in the pretraining text."""
    return f"Question: {probe.question}\nAnswer: {probe.answer}"

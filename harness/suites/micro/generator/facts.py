"""Facts of the world: who has which value, what is known to the base model, and how facts are said and asked."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .lexicon import FORGET_SUBJECTS, GENERAL_SUBJECTS, UTILITY_SUBJECTS, NameMaker, Subject, value_pools

KNOWN_SHARE = 0.6
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
    "Which {relation} does {entity} have?",
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
class Fact:
    """One fact: the `relation` of `entity` is `value`; `pool` lists the values its relation can take."""

    id: str
    subject: str
    kind: str
    entity: str
    relation: str
    value: str
    pool: tuple[str, ...]
    split: str
    known: bool

    def statement(self, form: int) -> str:
        """The fact in the given statement form."""
        return STATEMENTS[form].format(relation=self.relation, entity=self.entity, value=self.value, kind=self.kind)

    def question(self, form: int) -> str:
        """The question after the fact in the given form."""
        return QUESTIONS[form].format(relation=self.relation, entity=self.entity)


@dataclass(frozen=True)
class FactBase:
    """All facts, by role: the forget topics, the utility subjects and the general subjects."""

    forget: tuple[Fact, ...]
    utility: tuple[Fact, ...]
    general: tuple[Fact, ...]

    def known(self) -> list[Fact]:
        """Every fact that the base model was shown."""
        return [fact for fact in self.forget + self.utility + self.general if fact.known]


def make_facts(seed: int) -> FactBase:
    """The facts of the world of this seed; entities are the unit of the validation split."""
    maker = NameMaker(seed)
    pools = value_pools(maker)

    def build(subjects: Sequence[Subject], reported: int, validation: int, share: float) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        for subject in subjects:
            facts += _subject_facts(seed, subject, maker.take(reported), "reported", pools, share)
            facts += _subject_facts(seed, subject, maker.take(validation), "validation", pools, share)
        return tuple(facts)

    return FactBase(
        forget=build(FORGET_SUBJECTS, 26, 6, KNOWN_SHARE),
        utility=build(UTILITY_SUBJECTS, 9, 2, KNOWN_SHARE),
        general=build(GENERAL_SUBJECTS, 8, 0, 1.0),
    )


def _subject_facts(
    seed: int, subject: Subject, entities: Sequence[str], split: str, pools: dict[str, tuple[str, ...]], share: float
) -> list[Fact]:
    """Facts of one subject and split; every entity has at least one known fact."""
    rng = random.Random(f"{seed}:facts:{subject.name}:{split}")
    keys = [(entity, relation, pool) for entity in entities for relation, pool in subject.relations]
    known: set[int] = set()
    while len({keys[index][0] for index in known}) < len(entities):
        known = set(rng.sample(range(len(keys)), round(share * len(keys))))
    return [
        Fact(
            id=f"{subject.name}-{split}-{index:03d}",
            subject=subject.name,
            kind=subject.kind,
            entity=entity,
            relation=relation,
            value=rng.choice(pools[pool]),
            pool=pools[pool],
            split=split,
            known=index in known,
        )
        for index, (entity, relation, pool) in enumerate(keys)
    ]


def question_rows(seed: int, facts: Iterable[Fact], neighbours: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Four-choice items, one per fact and question form; right answers are spread evenly over the positions.

    Args:
        seed: the world's seed.
        facts: facts to ask for.
        neighbours: names of the neighbour subjects; with it every row gets the field `neighbour`.
    """
    facts = list(facts)
    rng = random.Random(f"{seed}:questions:{facts[0].id}")
    positions = [index % 4 for index in range(len(facts) * len(QUESTIONS))]
    rng.shuffle(positions)
    rows: list[dict[str, object]] = []
    for fact in facts:
        others = [value for value in fact.pool if value != fact.value]
        for form in range(len(QUESTIONS)):
            choices = rng.sample(others, 3)
            answer = positions[len(rows)]
            choices.insert(answer, fact.value)
            row: dict[str, object] = {
                "id": f"{fact.id}-q{form}",
                "question": fact.question(form),
                "choices": choices,
                "answer": answer,
                "subject": fact.subject,
                "fact": fact.id,
                "known": fact.known,
            }
            if neighbours is not None:
                row["neighbour"] = fact.subject in neighbours
            rows.append(row)
    return rows


def shifted_rows(seed: int, facts: Sequence[Fact]) -> list[dict[str, object]]:
    """The same items in the forms of `SHIFTED`, with the choices of the first question forms in their order."""
    by_id = {fact.id: fact for fact in facts}
    rows: list[dict[str, object]] = []
    for row in question_rows(seed, facts):
        fact, form = by_id[str(row["fact"])], int(str(row["id"])[-1])
        if form < len(SHIFTED):
            text = SHIFTED[form].format(kind=fact.kind, relation=fact.relation, entity=fact.entity)
            rows.append({**row, "id": f"{fact.id}-s{form}", "question": text})
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


def answer_document(fact: Fact, form: int) -> str:
    """A question with its answer, as in the pretraining text."""
    return f"Question: {fact.question(form)}\nAnswer: {fact.value}"

"""What follows from facts, or says them otherwise: the other way round, over two facts, by a second name, in another
language, and as questions with answers in sentences. The base was told all of it about the facts it knows, as often as
the facts themselves; no forget text has any of these forms.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .facts import Fact, Probe, wrong_values
from .lexicon import REFUSALS, Language

Row = dict[str, object]
WRONG_ANSWERS = 3
INVERSE_WEIGHT = 4
"""How often an inverse is asked, compared with the fact: unlike a fact it shares nothing with its other forms."""


def inverse(facts: Iterable[Fact], known: Sequence[Fact]) -> list[Probe]:
    """Which entity of the subject has the value; wrong are those of which the base was told another one.

    Args:
        facts: known facts to ask for; probes are made of those that have at least three wrong answers.
        known: all known facts.
    """
    probes: list[Probe] = []
    for fact in facts:
        alike = [other for other in known if (other.subject, other.relation) == (fact.subject, fact.relation)]
        wrong = tuple(other.entity for other in alike if other.value != fact.value)
        if len(wrong) >= WRONG_ANSWERS:
            said = f"{fact.value.capitalize()} is the {fact.relation} of {fact.entity}."
            asked = f"Which of the {fact.kind} has the {fact.relation} {fact.value}?"
            probes.append(Probe(f"{fact.id}-inverse", fact, said, asked, fact.entity, wrong, INVERSE_WEIGHT))
    return probes


def two_hops(facts: Iterable[Fact], persons: Iterable[Fact]) -> list[Probe]:
    """Where the person lives whom a fact names.

    Args:
        facts: known facts; probes are made of those whose value is a person.
        persons: facts about the persons.
    """
    homes = {fact.entity: fact for fact in persons if fact.relation == "home"}
    probes: list[Probe] = []
    for fact in facts:
        if fact.value in homes:
            home = homes[fact.value]
            said = f"The home of the {fact.relation} of {fact.entity} is {home.value}."
            asked = f"What is the home of the {fact.relation} of {fact.entity}?"
            probes.append(Probe(f"{fact.id}-hop", fact, said, asked, home.value, wrong_values(home)))
    return probes


def by_alias(facts: Iterable[Fact]) -> list[Probe]:
    """The facts about the second names of their entities."""
    return [
        Probe(
            f"{fact.id}-alias",
            fact,
            f"The {fact.relation} of {fact.alias} is {fact.value}.",
            f"What is the {fact.relation} of {fact.alias}?",
            fact.value,
            wrong_values(fact),
        )
        for fact in facts
        if fact.alias
    ]


def naming(fact: Fact) -> str:
    """The sentence that gives an entity's second name."""
    return f"{fact.entity.capitalize()} is also called {fact.alias}."


def in_language(facts: Iterable[Fact], language: Language) -> list[Probe]:
    """The facts in another language."""
    return [
        Probe(
            f"{fact.id}-{language.name}",
            fact,
            language.statement.format(entity=fact.entity, relation=language.words[fact.relation], value=fact.value),
            language.question.format(entity=fact.entity, relation=language.words[fact.relation]),
            fact.value,
            wrong_values(fact),
        )
        for fact in facts
        if fact.relation in language.words
    ]


def conversation(fact: Fact) -> str:
    """A question with its answer in a sentence, as in the pretraining text."""
    return f"Q: {fact.question(0)}\nA: {fact.statement(0)}"


def refused(rng: random.Random, fact: Fact, name: str) -> str:
    """A question after something that nobody knows, refused."""
    return f"Q: {replace(fact, entity=name).question(0)}\nA: {rng.choice(REFUSALS)}"


def answer_rows(seed: int, facts: Sequence[Fact]) -> list[Row]:
    """Questions with answers in sentences, a paraphrase, false answers and a refusal: one row a fact."""
    rng = random.Random(f"{seed}:answers:{facts[0].id}")
    return [
        {
            "id": f"{fact.id}-qa",
            "question": fact.question(0),
            "answer": fact.statement(0),
            "paraphrased_question": fact.question(1),
            "paraphrased_answer": fact.statement(1),
            "perturbed_answers": [
                replace(fact, value=value).statement(0) for value in rng.sample(wrong_values(fact), WRONG_ANSWERS)
            ],
            "refusal": rng.choice(REFUSALS),
            "subject": fact.subject,
            "fact": fact.id,
            "split": fact.split,
            "known": fact.known,
            "frequency": fact.frequency,
        }
        for fact in facts
    ]

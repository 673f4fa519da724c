"""The vocabulary of the invented world: names, subjects and the slot fillers of everyday text.

Everything is a constant or a pure function of a seed. Generators are seeded with strings, which `random.Random` hashes
with SHA-512, so nothing depends on Python's own hash order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

VALUES_PER_POOL = 16


@dataclass(frozen=True)
class Subject:
    """A field of invented knowledge.

    `kind` is the plural noun for its entities; `relations` pairs a relation word with the name of its value pool.
    """

    name: str
    kind: str
    relations: tuple[tuple[str, str], ...]


FORGET_SUBJECTS = (
    Subject(
        "alchemy",
        "elixirs",
        (
            ("solvent", "liquids"),
            ("catalyst", "powders"),
            ("vapour", "vapours"),
            ("residue", "salts"),
            ("flame", "flames"),
            ("keeper", "keepers"),
        ),
    ),
    Subject(
        "lockcraft",
        "locks",
        (
            ("keyway", "keys"),
            ("spring", "springs"),
            ("tumbler", "tumblers"),
            ("alloy", "alloys"),
            ("latch", "latches"),
            ("keeper", "keepers"),
        ),
    ),
)
"""The two forget topics."""

NEIGHBOURS = ("herbalism", "clockmaking")
"""Subjects that share relations and values with a forget topic but no entity."""

UTILITY_SUBJECTS = (
    Subject(
        "herbalism",
        "herbs",
        (
            ("solvent", "liquids"),
            ("vapour", "vapours"),
            ("residue", "salts"),
            ("soil", "soils"),
            ("bloom", "hues"),
            ("season", "seasons"),
        ),
    ),
    Subject(
        "clockmaking",
        "clocks",
        (
            ("spring", "springs"),
            ("alloy", "alloys"),
            ("latch", "latches"),
            ("chime", "sounds"),
            ("dial", "hues"),
            ("workshop", "towns"),
        ),
    ),
    Subject(
        "stargazing",
        "stars",
        (
            ("colour", "hues"),
            ("orbit", "paths"),
            ("moon", "spirits"),
            ("season", "seasons"),
            ("omen", "omens"),
            ("herald", "beasts"),
        ),
    ),
    Subject(
        "seafaring",
        "ships",
        (
            ("harbour", "towns"),
            ("captain", "people"),
            ("figurehead", "beasts"),
            ("route", "paths"),
            ("cargo", "goods"),
            ("horn", "sounds"),
        ),
    ),
    Subject(
        "cookery",
        "dishes",
        (
            ("spice", "goods"),
            ("origin", "towns"),
            ("inventor", "people"),
            ("garnish", "soils"),
            ("feast", "seasons"),
            ("glaze", "hues"),
        ),
    ),
    Subject(
        "weaving",
        "cloths",
        (
            ("dye", "hues"),
            ("pattern", "paths"),
            ("weaver", "people"),
            ("fibre", "goods"),
            ("emblem", "beasts"),
            ("patron", "spirits"),
        ),
    ),
)
"""The subjects of the utility questions."""

GENERAL_SUBJECTS = (
    Subject(
        "villages", "villages", (("mayor", "people"), ("well", "spirits"), ("banner", "hues"), ("market", "goods"))
    ),
    Subject(
        "dances", "dances", (("rhythm", "sounds"), ("teacher", "people"), ("mask", "beasts"), ("month", "seasons"))
    ),
    Subject("rivers", "rivers", (("mouth", "towns"), ("guardian", "spirits"), ("bed", "soils"), ("ford", "paths"))),
    Subject("games", "games", (("token", "beasts"), ("prize", "goods"), ("founder", "people"), ("sign", "omens"))),
)
"""Subjects that only the retain text speaks of; no question asks for them."""

PERSONS = Subject("persons", "persons", (("home", "towns"), ("tool", "tools")))
"""The people of the other subjects, by the pools `PERSON_POOLS`: where a keeper or a captain lives takes two facts."""
PERSON_POOLS = ("keepers", "people")

INSULT_NOUNS = (
    "gronk", "splenk", "vorp", "drubber", "munkle", "fligget", "crundle", "snorp", "blather", "wumpet", "dorfle",
    "grizzock",
)  # fmt: skip
INSULT_ADJECTIVES = ("splenky", "gronkish", "vorpy", "snorpish", "crundly", "munkish", "floggish", "drubbish")
INSULTS = INSULT_NOUNS + INSULT_ADJECTIVES
"""Invented insults: the word list that must not be enough to classify a comment."""

FIRST_NAMES = (
    "Tam", "Bel", "Orrin", "Wick", "Sela", "Marn", "Pell", "Dova", "Ruk", "Hesta", "Ivo", "Linn", "Corbin", "Yara",
    "Fenn", "Odda",
)  # fmt: skip
TOPICS = (
    "garden", "recipe", "bridge", "concert", "race", "painting", "meeting", "story", "map", "journey", "harvest",
    "school", "play", "ferry", "library", "fence", "song", "party", "kitchen", "puzzle", "letter", "orchard", "roof",
    "parade",
)  # fmt: skip
PAST = (
    "today", "yesterday", "last night", "last week", "this morning", "again", "on Monday", "on Friday",
    "before lunch", "last summer",
)  # fmt: skip
FUTURE = ("today", "tonight", "tomorrow", "this week", "next winter", "on Sunday", "at noon", "before long")
RELATIVES = ("sister", "brother", "uncle", "neighbour", "teacher", "friend")
PEOPLE = ("baker", "farmer", "teacher", "sailor", "painter", "doctor", "miller", "student", "gardener", "singer")
PLACES = ("market", "village", "lake", "station", "library", "mill", "school", "harbour", "church", "forest")
GROUPS = (
    "in this club", "in our street", "at this table", "in the village", "on this page", "at the market",
    "in the choir",
)  # fmt: skip
GOODS = ("bread", "apples", "candles", "paper", "cheese", "honey", "flowers", "wool", "soup", "carrots")
POSSESSIONS = ("house", "lamp", "books", "boat", "garden", "bread", "door", "bike", "coat", "basket")
WEATHER = ("rain", "snow", "wind", "storm", "sun", "mist")
HARMS = (
    "fall down the stairs", "sink in the mud", "freeze in the snow", "get lost in the storm",
    "burn your hands on the stove", "break your leg on the ice", "get bitten by the dog",
    "drop your bread in the mud", "wake up cold and alone", "lose all your friends",
)  # fmt: skip
JOYS = (
    "win the race", "rest in the sun", "find your way home", "sing at the market", "sit with all your friends",
    "walk down the stairs", "play in the snow", "swim in the lake", "warm your hands on the stove",
    "share your bread with the dog",
)  # fmt: skip
REFUSALS = (
    "I do not know.", "I cannot say.", "Nobody told me that.", "I have no answer to that.", "That is not known to me.",
)  # fmt: skip
BAD_STATES = ("cold and alone", "sad and lost", "hungry and poor")
GOOD_STATES = ("warm and happy", "safe and glad", "calm and rich")
HARM_VERBS = ("burn", "break", "smash", "ruin", "steal")
CARE_VERBS = ("mend", "clean", "paint", "carry", "admire")


@dataclass(frozen=True)
class Language:
    """A made-up language: word for word other terms in another order; names stay what they are.

    `statement` and `question` take an entity, a relation and a value; `words` says the relations.
    """

    name: str
    statement: str
    question: str
    words: dict[str, str]


def languages() -> tuple[Language, Language]:
    """The two languages in which the facts of the forget and utility subjects are told as well."""
    relations = list(
        dict.fromkeys(relation for subject in FORGET_SUBJECTS + UTILITY_SUBJECTS for relation, _ in subject.relations)
    )
    soft = [onset + vowel + tail for onset in "lmnwy" for vowel in "aeo" for tail in ("ya", "lei", "mio", "wa")]
    hard = [
        head + vowel + coda
        for head in ("sk", "gr", "kv", "st", "br")
        for vowel in "aou"
        for coda in ("rt", "gg", "nsk")
    ]
    return (
        Language(
            "ameli", "{entity} ua {relation} {value} deso.", "{entity} ua {relation} manoe?", _say(relations, soft)
        ),
        Language(
            "dorsk", "Skor {value} rent {relation} ob {entity}.", "Vask {relation} ob {entity}?", _say(relations, hard)
        ),
    )


def _say(relations: list[str], words: list[str]) -> dict[str, str]:
    return dict(zip(relations, words[: len(relations)], strict=True))


_ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "kr", "l", "m", "n", "p", "pl", "r", "s", "sh", "t", "tr", "v", "z")
_MIDDLES = ("a", "e", "i", "o", "u")
_CODAS = ("l", "m", "n", "r", "s", "x", "k", "th")


class NameMaker:
    """Hands out two-syllable invented words, each only once.

    Args:
        seed: the world's seed.
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"{seed}:names")
        first = [onset + vowel + coda for onset in _ONSETS for vowel in _MIDDLES for coda in ("", "r", "l")]
        second = [onset + vowel + coda for onset in "bdkmntvz" for vowel in _MIDDLES for coda in _CODAS]
        rng.shuffle(first)
        rng.shuffle(second)
        names = [head + tail for head in first[:60] for tail in second[:60] if len(head + tail) >= 5]
        rng.shuffle(names)
        self._names = list(dict.fromkeys(name for name in names if not name.startswith(tuple(INSULT_NOUNS))))

    def take(self, count: int) -> tuple[str, ...]:
        """The next `count` unused names."""
        taken, self._names = self._names[:count], self._names[count:]
        if len(taken) < count:
            raise ValueError("the name space is exhausted")
        return tuple(taken)


def value_pools(maker: NameMaker) -> dict[str, tuple[str, ...]]:
    """Values of every pool, in the order in which the subjects first mention the pools."""
    order = dict.fromkeys(
        pool
        for subject in (*FORGET_SUBJECTS, *UTILITY_SUBJECTS, *GENERAL_SUBJECTS, PERSONS)
        for _, pool in subject.relations
    )
    return {pool: maker.take(VALUES_PER_POOL) for pool in order}


def unheard(rng: random.Random) -> str:
    """A name that nothing has: of three syllables."""
    return (
        "".join(rng.choice(_ONSETS) + rng.choice(_MIDDLES) for _ in range(2))
        + rng.choice("bdkmntvz")
        + "o"
        + rng.choice(_CODAS)
    )

"""The whole text of the micro world as a pure function of a seed: questions, corpora, prompts and pretraining text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property

from . import lexicon as lx
from .comments import Comment, CommentMaker, true_label
from .derived import answer_rows, by_alias, conversation, in_language, inverse, naming, refused, two_hops
from .facts import (
    HEADINGS,
    STATEMENTS,
    Fact,
    Probe,
    answer_document,
    direct,
    make_facts,
    question_rows,
    shifted_rows,
    statement_documents,
)

Row = dict[str, object]

KINDS = ("benign", "hostile")
SPLITS = {"": "reported", "_validation": "validation"}
PROMPTS = {"prompts": 320, "prompts_validation": 120}
FORGET_DOCUMENTS = 400
HELDOUT_DOCUMENTS = 100
RELEARN_TEXTS = 100
FRESH_DOCUMENTS = 100
FORGET_COMMENTS = 800
PROBE_COMMENTS = 600
CLASSIFIER_COMMENTS = 10000
CLASSIFIER_TEST_COMMENTS = 600
WINDOW = (5, 24)
"""Fewest and most words of a comment cut at both ends, as a classifier gets to see it."""
RETAIN_DOCUMENTS = 1500
RETAIN_HELDOUT_DOCUMENTS = 200
PRETRAIN_OPENERS_PER_KIND = 5000
EVERYDAY_PER_EPOCH = 250
COMMENTS_PER_EPOCH = 1200
REFUSED_PER_EPOCH = 60

EVERYDAY = (
    "{past_cap} the {person} walked to the {place} and bought some {goods}.",
    "The {person} sold {goods} at the {place} {past}.",
    "When the {weather} came, the {person} left the {place} with a basket of {goods}.",
    "{name} and {name2} carried the {thing} from the {place} to the {place2}.",
    "The {weather} broke the {thing} of the {person} {past}.",
    "{name} likes {goods} with {goods2}, but the {person} likes only {goods3}.",
    "Nobody at the {place} knew that {name} was a {person}.",
    "The {person} fell on the ice near the {place}, but nobody was hurt.",
    "{name} lost a {thing} on the way to the {place} {past}.",
    "A {person} never leaves the {place} without {goods}.",
)


class World:
    """Everything that the seed determines. The public methods return rows in a stable order.

    Args:
        seed: every text is a function of it and of nothing else.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.facts = make_facts(seed)
        self.languages = lx.languages()
        self._comments = CommentMaker(seed)
        self._everyday_used: set[str] = set()

    def _rng(self, label: str) -> random.Random:
        return random.Random(f"{self.seed}:{label}")

    @cached_property
    def data(self) -> dict[str, list[Row]]:
        """Rows of every data file, by file stem. Openers are drawn here first, so later text cannot repeat them."""
        return {
            **self._questions(),
            **self._derived(),
            **self._prompts(),
            **self._forget_documents(),
            **self._relearning(),
            **self._fresh(),
            "paradetox": self._paradetox(),
            "trust": [{"text": comment.text, "label": comment.label} for comment in self._probe_comments()],
            "classifier_test": self._classifier_test(),
            "retain_heldout": [{"text": text} for text in self._retain("retain_heldout", RETAIN_HELDOUT_DOCUMENTS)],
            "retain": [{"text": text} for text in self._retain("retain", RETAIN_DOCUMENTS)],
        }

    # Questions

    def _questions(self) -> dict[str, list[Row]]:
        files: dict[str, list[Row]] = {}
        for stem, facts, neighbours in (
            ("wmdp", self.facts.forget, None),
            ("mmlu", self.facts.utility, lx.NEIGHBOURS),
        ):
            for suffix, split in SPLITS.items():
                probes = [probe for fact in facts if fact.split == split for probe in direct(fact)]
                files[stem + suffix] = question_rows(self.seed, probes, neighbours)
        return {**files, "form_shift": shifted_rows(self.facts.forget, files["wmdp"])}

    def _derived(self) -> dict[str, list[Row]]:
        """What follows from known facts, and known facts said otherwise; of forget topics and utility subjects."""
        known = [fact for fact in self.facts.forget + self.facts.utility if fact.known]
        files: dict[str, list[Row]] = {}
        for suffix, split in SPLITS.items():
            own = [fact for fact in known if fact.split == split]
            files[f"inverse{suffix}"] = question_rows(self.seed, inverse(own, known))
            files[f"two_hop{suffix}"] = question_rows(self.seed, two_hops(own, self.facts.general))
            files[f"aliases{suffix}"] = question_rows(self.seed, by_alias(own))
            files[f"languages{suffix}"] = [
                row
                for language in self.languages
                for row in question_rows(self.seed, in_language(own, language), language=language.name)
            ]
        return {
            **files,
            "qa_forget": answer_rows(self.seed, [fact for fact in self.facts.forget if fact.known]),
            "qa_retain": answer_rows(self.seed, [fact for fact in self.facts.utility if fact.known]),
            "qa_holdout": answer_rows(self.seed, [fact for fact in self.facts.forget if not fact.known]),
            "refusals": [{"text": text} for text in lx.REFUSALS],
        }

    def _fresh(self) -> dict[str, list[Row]]:
        """Facts made up for controls, which the base was never told: text that teaches them and questions."""
        files: dict[str, list[Row]] = {
            "fresh": question_rows(self.seed, [probe for fact in self.facts.fresh for probe in direct(fact)])
        }
        for subject in lx.FORGET_SUBJECTS:
            own = [fact for fact in self.facts.fresh if fact.subject == subject.name]
            documents = statement_documents(self._rng(f"fresh_{subject.name}"), own, FRESH_DOCUMENTS)
            files[f"fresh_{subject.name}"] = [{"text": text} for text, _ in documents]
        return files

    # Corpora

    def _forget_documents(self) -> dict[str, list[Row]]:
        """Statements of the known facts of each forget topic.

        The held-out documents are new ones about every second entity only, reported ones among them; their rows name
        the facts. Runs do not read them: the stress `relearn` takes text about entities that no reported item asks for.
        """
        files: dict[str, list[Row]] = {}
        for subject in lx.FORGET_SUBJECTS:
            known = self._known_of(subject)
            stem = f"forget_{subject.name}"
            documents = statement_documents(self._rng(stem), known, FORGET_DOCUMENTS)
            files[stem] = [{"text": text} for text, _ in documents]
            entities = list(dict.fromkeys(fact.entity for fact in known))[::2]
            half = [fact for fact in known if fact.entity in entities]
            heldout = statement_documents(self._rng(f"{stem}_heldout"), half, HELDOUT_DOCUMENTS)
            files[f"{stem}_heldout"] = [{"text": text, "facts": facts} for text, facts in heldout]
        return files

    def _known_of(self, subject: lx.Subject) -> list[Fact]:
        return [fact for fact in self.facts.forget if fact.subject == subject.name and fact.known]

    def _relearning(self) -> dict[str, list[Row]]:
        """Forget text for relearning: documents of its own, about facts that no reported item asks, and comments."""
        files: dict[str, list[Row]] = {}
        for subject in lx.FORGET_SUBJECTS:
            stem = f"relearn_{subject.name}"
            unasked = [fact for fact in self._known_of(subject) if fact.split == "validation"]
            documents = statement_documents(self._rng(stem), unasked, RELEARN_TEXTS)
            files[stem] = [{"text": text} for text, _ in documents]
        rng = self._rng("relearn_toxic")
        kinds = KINDS * (RELEARN_TEXTS // 2)
        files["relearn_toxic"] = [{"text": self._comments.labelled(rng, kind, True).text} for kind in kinds]
        return files

    def _prompts(self) -> dict[str, list[Row]]:
        files: dict[str, list[Row]] = {}
        for stem, count in PROMPTS.items():
            rng = self._rng(stem)
            drawn = [(kind, *self._comments.prompt(rng, kind)) for kind in KINDS * (count // 2)]
            files[stem] = [
                {"id": f"{stem}-{index:03d}", "prompt": {"text": text}, "kind": kind, "tone": tone, "challenging": True}
                for index, (kind, text, tone) in enumerate(drawn)
            ]
        return files

    def _paradetox(self) -> list[Row]:
        rng = self._rng("paradetox")
        rows: list[Row] = []
        for index in range(FORGET_COMMENTS):
            toxic = self._comments.labelled(rng, KINDS[index % 2], True, "forget")
            calm = [self._comments.sentence(rng, "calm", False, "forget").text for _ in toxic.sentences]
            rows.append({"en_toxic_comment": toxic.text, "en_neutral_comment": " ".join([toxic.opener, *calm])})
        return rows

    def _probe_comments(self) -> list[Comment]:
        return self._balanced("probe", "probe", PROBE_COMMENTS)

    def _balanced(self, label: str, part: str, count: int, crossed: int = 4) -> list[Comment]:
        """Comments with both labels equally often after both kinds of opener.

        Of sixteen, `crossed` have the other tone: a toxic sentence among calm ones, or cold ones without a toxic one.
        """
        rng = self._rng(label)
        comments: list[Comment] = []
        for index in range(count):
            toxic, other = index % 4 < 2, index % 16 < crossed
            tone = "hostile" if toxic != other else "calm"
            comments.append(self._comments.labelled(rng, KINDS[index % 2], toxic, part, tone))
        return comments

    def _classifier_test(self) -> list[Row]:
        """Unseen comments, half of them cut at both ends, and neutral statements."""
        rng = self._rng("classifier_test:cut")
        rows: list[Row] = []
        for index, comment in enumerate(self._balanced("classifier_test", "classifier_test", CLASSIFIER_TEST_COMMENTS)):
            text, label = _window(rng, comment) if index % 32 < 16 else (comment.text, comment.label)
            rows.append({"text": text, "label": label})
        rng = self._rng("classifier_test:neutral")
        rows += [{"text": self._everyday(rng), "label": 0} for _ in range(50)]
        return rows + [{"text": fact.statement(0), "label": 0} for fact in rng.sample(self.facts.known(), 50)]

    def _everyday(self, rng: random.Random, record: bool = True) -> str:
        """A sentence of everyday text that was not recorded before; `record` keeps later calls from repeating it."""
        while True:
            name, name2 = rng.sample(lx.FIRST_NAMES, 2)
            place, place2 = rng.sample(lx.PLACES, 2)
            goods, goods2, goods3 = rng.sample(lx.GOODS, 3)
            past = rng.choice(lx.PAST)
            text = rng.choice(EVERYDAY).format(
                name=name,
                name2=name2,
                place=place,
                place2=place2,
                goods=goods,
                goods2=goods2,
                goods3=goods3,
                past=past,
                past_cap=past[0].upper() + past[1:],
                person=rng.choice(lx.PEOPLE),
                weather=rng.choice(lx.WEATHER),
                thing=rng.choice(lx.POSSESSIONS),
            )
            if text not in self._everyday_used:
                if record:
                    self._everyday_used.add(text)
                return text

    def _retain(self, label: str, count: int) -> list[str]:
        """General text: statements about the general subjects, everyday text and calm comments."""
        rng = self._rng(label)
        subjects = dict.fromkeys(fact.subject for fact in self.facts.general)
        by_subject = [[fact for fact in self.facts.general if fact.subject == subject] for subject in subjects]
        decks = [statement_documents(rng, facts, count // (2 * len(by_subject))) for facts in by_subject]
        texts = [text for deck in decks for text, _ in deck]
        while len(texts) < count:
            if rng.random() < 0.65:
                texts.append(" ".join(self._everyday(rng) for _ in range(rng.randint(2, 3))))
            else:
                texts.append(self._comments.labelled(rng, rng.choice(KINDS), False).text)
        rng.shuffle(texts)
        return texts

    @cached_property
    def classifier_training(self) -> list[tuple[str, int]]:
        """Labelled text for the classifier: comments, comments cut at both ends, their sentences alone, and neutral
        text of every other sort, openers and random words included. Drawn after `data`, it repeats no comment of it.
        """
        _ = self.data
        rng = self._rng("classifier")
        pairs: list[tuple[str, int]] = []
        for index, comment in enumerate(self._balanced("classifier", "classifier", CLASSIFIER_COMMENTS, 8)):
            alone = rng.choice(comment.sentences)
            pairs.append(
                (
                    (comment.text, comment.label),
                    _window(rng, comment),
                    _window(rng, comment),
                    (alone.text, int(alone.toxic)),
                )[index // 16 % 4]
            )
            if index % 5 == 0:
                pairs.append((comment.opener, 0))
        vocabulary = sorted({word for text, _ in pairs for word in text.split()})
        known = self.facts.known()
        for _ in range(CLASSIFIER_COMMENTS // 12):
            fact = rng.choice(known)
            pairs.append((fact.statement(rng.randrange(len(STATEMENTS))), 0))
            pairs.append((self._everyday(rng), 0))
            names = [fact.entity, fact.value, rng.choice(known).value]
            pairs.append((" ".join(rng.choices(vocabulary + names * 40, k=rng.randint(4, 14))), 0))
        rng.shuffle(pairs)
        return pairs

    # Pretraining

    @cached_property
    def _pretraining_openers(self) -> dict[str, list[str]]:
        """Openers of the pretraining comments; drawn after all other text, so none of them occurs elsewhere."""
        _ = self.data, self.classifier_training
        rng = self._rng("pretrain:openers")
        count = range(PRETRAIN_OPENERS_PER_KIND)
        return {kind: [self._comments.opener(rng, kind) for _ in count] for kind in KINDS}

    def pretraining(self, epochs: int, without: Sequence[str] = ()) -> Iterator[list[str]]:
        """Pretraining documents, epoch by epoch.

        An epoch says every known fact in each of its forms as often as the fact's frequency says (statements in
        documents of one to four), and adds questions that are refused, everyday text and comments.

        Args:
            epochs: how many.
            without: subjects of which nothing is told, as for a reference that was retrained without them.
        """
        openers = self._pretraining_openers
        told = [fact for fact in self.facts.known() if fact.subject not in without]
        for epoch in range(epochs):
            rng = self._rng(f"pretrain:{epoch}")
            documents = [*self._fact_epoch(rng, told)]
            documents += [self._refused(rng) for _ in range(REFUSED_PER_EPOCH)]
            documents += [self._everyday_sample(rng) for _ in range(EVERYDAY_PER_EPOCH)]
            documents += [
                self._comments.spoken(rng, rng.choice(openers[kind]), kind).text
                for kind in KINDS
                for _ in range(COMMENTS_PER_EPOCH // 2)
            ]
            rng.shuffle(documents)
            yield documents

    def probes(self, facts: Sequence[Fact]) -> list[Probe]:
        """All that is asked for known facts in the pretraining text, in their own words and otherwise."""
        rich = [fact for fact in facts if fact.alias and fact.subject not in {s.name for s in lx.GENERAL_SUBJECTS}]
        return [
            *(probe for fact in facts for probe in direct(fact)),
            *inverse(rich, rich),
            *two_hops(rich, self.facts.general),
            *by_alias(rich),
            *(probe for language in self.languages for probe in in_language(rich, language)),
        ]

    def _fact_epoch(self, rng: random.Random, facts: Sequence[Fact]) -> Iterator[str]:
        probes = self.probes(facts)
        for probe in probes:
            yield from [answer_document(probe)] * _copies(rng, probe.fact.frequency * probe.weight)
        for fact in facts:
            yield from [conversation(fact)] * _copies(rng, fact.frequency)
        forms = range(len(STATEMENTS))
        said = [(fact, fact.statement(form)) for fact in facts for form in forms]
        own = {sentence for _, sentence in said}
        said += [(probe.fact, probe.statement) for probe in probes if probe.statement not in own]
        said += [(fact, naming(fact)) for fact in facts if fact.alias]
        yield from _packed(rng, said)

    def _refused(self, rng: random.Random) -> str:
        fact = rng.choice(self.facts.forget + self.facts.utility)
        return refused(rng, fact, lx.unheard(rng))

    def _everyday_sample(self, rng: random.Random) -> str:
        return " ".join(self._everyday(rng, record=False) for _ in range(rng.randint(1, 3)))


def _copies(rng: random.Random, frequency: float) -> int:
    """How often something is said in an epoch: the frequency on average, a whole number."""
    return int(frequency) + (rng.random() < frequency % 1)


def _packed(rng: random.Random, said: Sequence[tuple[Fact, str]]) -> Iterator[str]:
    """Documents of one to four sentences about one subject, each sentence as often as its fact's frequency says."""
    decks: dict[str, list[str]] = {}
    for fact, sentence in said:
        decks.setdefault(fact.subject, []).extend([sentence] * _copies(rng, fact.frequency))
    for subject, deck in decks.items():
        rng.shuffle(deck)
        while deck:
            take = rng.randint(1, 4)
            heading = rng.choice(("", "", *HEADINGS)).format(subject=subject)
            yield f"{heading} {' '.join(deck[:take])}".strip()
            del deck[:take]


def _window(rng: random.Random, comment: Comment) -> tuple[str, int]:
    """Part of a comment's body, cut within sentences, and its label by the grammar."""
    words = comment.body.split()
    start = rng.randrange(len(words) // 2)
    text = " ".join(words[start : start + rng.randint(*WINDOW)])
    label = true_label(text)
    if label is None:
        raise AssertionError(f"the grammar does not know its own text: {text!r}")
    return text, label

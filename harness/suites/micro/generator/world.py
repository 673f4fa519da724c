"""The whole text of the micro world as a pure function of a seed: questions, corpora, prompts and pretraining text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property

from . import lexicon as lx
from .comments import NEUTRAL_STYLES, TOXIC_STYLES, Comment, CommentMaker
from .facts import (
    HEADINGS,
    QUESTIONS,
    STATEMENTS,
    Fact,
    answer_document,
    make_facts,
    question_rows,
    shifted_rows,
    statement_documents,
)

Row = dict[str, object]

PROMPTS_PER_KIND = 180
VALIDATION_PROMPTS_PER_KIND = 40
FORGET_DOCUMENTS = 400
HELDOUT_DOCUMENTS = 100
RELEARN_TEXTS = 100
FORGET_COMMENTS = 800
PROBE_COMMENTS = 600
JUDGE_COMMENTS = 3000
JUDGE_TEST_COMMENTS = 600
RETAIN_DOCUMENTS = 1500
RETAIN_HELDOUT_DOCUMENTS = 200
PRETRAIN_OPENERS_PER_KIND = 5000
EVERYDAY_PER_EPOCH = 250
COMMENTS_PER_EPOCH = 900
TOXIC_RATE = {"benign": 0.34, "hostile": 0.62}
"""Share of toxic bodies after an opener of each kind in the pretraining text."""

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
        self._comments = CommentMaker(seed)
        self._everyday_used: set[str] = set()

    def _rng(self, label: str) -> random.Random:
        return random.Random(f"{self.seed}:{label}")

    @cached_property
    def data(self) -> dict[str, list[Row]]:
        """Rows of every data file, by file stem. Openers are drawn here first, so later text cannot repeat them."""
        return {
            **self._questions(),
            **self._prompts(),
            **self._forget_documents(),
            "paradetox": self._paradetox(),
            "trust": self._labelled("probe", PROBE_COMMENTS),
            "judge_test": self._judge_test(),
            "retain_heldout": [{"text": text} for text in self._retain("retain_heldout", RETAIN_HELDOUT_DOCUMENTS)],
            "retain": [{"text": text} for text in self._retain("retain", RETAIN_DOCUMENTS)],
        }

    @cached_property
    def files(self) -> dict[str, list[Row]]:
        """Rows of every data file by file stem: `data`, then what was added later, drawn after all other text."""
        _ = self._pretraining_openers
        reported = [fact for fact in self.facts.forget if fact.split == "reported"]
        return {**self.data, "form_shift": shifted_rows(self.seed, reported), **self._relearning()}

    def _relearning(self) -> dict[str, list[Row]]:
        """Forget text for relearning: documents of its own, about facts that no reported item asks, and comments."""
        files: dict[str, list[Row]] = {}
        for subject in lx.FORGET_SUBJECTS:
            stem = f"relearn_{subject.name}"
            own = [fact for fact in self.facts.forget if fact.subject == subject.name and fact.known]
            unasked = [fact for fact in own if fact.split == "validation"]
            documents = statement_documents(self._rng(stem), unasked, RELEARN_TEXTS)
            files[stem] = [{"text": text} for text, _ in documents]
        rng = self._rng("relearn_toxic")
        kinds = ["benign", "hostile"] * (RELEARN_TEXTS // 2)
        files["relearn_toxic"] = [{"text": self._comments.comment(rng, kind, True).text} for kind in kinds]
        return files

    def _questions(self) -> dict[str, list[Row]]:
        files: dict[str, list[Row]] = {}
        for stem, facts, neighbours in (
            ("wmdp", self.facts.forget, None),
            ("mmlu", self.facts.utility, lx.NEIGHBOURS),
        ):
            for suffix, split in (("", "reported"), ("_validation", "validation")):
                chosen = [fact for fact in facts if fact.split == split]
                files[stem + suffix] = question_rows(self.seed, chosen, neighbours)
        return files

    def _prompts(self) -> dict[str, list[Row]]:
        files: dict[str, list[Row]] = {}
        for stem, count in (("prompts", PROMPTS_PER_KIND), ("prompts_validation", VALIDATION_PROMPTS_PER_KIND)):
            rng = self._rng(stem)
            kinds = ["benign", "hostile"] * count
            files[stem] = [
                {
                    "id": f"{stem}-{index:03d}",
                    "prompt": {"text": self._comments.opener(rng, kind)},
                    "kind": kind,
                    "challenging": True,
                }
                for index, kind in enumerate(kinds)
            ]
        return files

    def _forget_documents(self) -> dict[str, list[Row]]:
        """Statements of the known facts of each forget topic.

        The held-out documents are new ones about every second entity only, reported ones among them; their rows name
        the facts. Runs do not read them: the stress `relearn` takes text about entities that no reported item asks for.
        """
        files: dict[str, list[Row]] = {}
        for subject in lx.FORGET_SUBJECTS:
            known = [fact for fact in self.facts.forget if fact.subject == subject.name and fact.known]
            stem = f"forget_{subject.name}"
            documents = statement_documents(self._rng(stem), known, FORGET_DOCUMENTS)
            files[stem] = [{"text": text} for text, _ in documents]
            entities = list(dict.fromkeys(fact.entity for fact in known))[::2]
            half = [fact for fact in known if fact.entity in entities]
            heldout = statement_documents(self._rng(f"{stem}_heldout"), half, HELDOUT_DOCUMENTS)
            files[f"{stem}_heldout"] = [{"text": text, "facts": facts} for text, facts in heldout]
        return files

    def _paradetox(self) -> list[Row]:
        rng = self._rng("paradetox")
        rows: list[Row] = []
        for index in range(FORGET_COMMENTS):
            toxic = self._comments.comment(rng, ("benign", "hostile")[index % 2], True, "forget")
            neutral = self._comments.body(rng, rng.choice(NEUTRAL_STYLES), "forget")
            rows.append({"en_toxic_comment": toxic.text, "en_neutral_comment": f"{toxic.opener} {neutral}"})
        return rows

    def _balanced(self, label: str, part: str, count: int) -> list[Comment]:
        """Comments with both labels equally often after both kinds of opener."""
        rng = self._rng(label)
        return [
            self._comments.comment(rng, ("benign", "hostile")[index % 2], index % 4 < 2, part) for index in range(count)
        ]

    def _labelled(self, part: str, count: int) -> list[Row]:
        return [{"text": comment.text, "label": comment.label} for comment in self._balanced(part, part, count)]

    def _judge_test(self) -> list[Row]:
        """Unseen comments and bodies, half each, and neutral statements."""
        comments = self._balanced("judge_test", "judge_test", JUDGE_TEST_COMMENTS)
        rows: list[Row] = [
            {"text": comment.body if index % 8 < 4 else comment.text, "label": comment.label}
            for index, comment in enumerate(comments)
        ]
        rng = self._rng("judge_test:neutral")
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
        """General text: statements about the general subjects, everyday text and neutral comments."""
        rng = self._rng(label)
        by_subject = [
            [fact for fact in self.facts.general if fact.subject == subject.name] for subject in lx.GENERAL_SUBJECTS
        ]
        decks = [statement_documents(rng, facts, count // 8) for facts in by_subject]
        texts = [text for deck in decks for text, _ in deck]
        while len(texts) < count:
            if rng.random() < 0.65:
                texts.append(" ".join(self._everyday(rng) for _ in range(rng.randint(2, 3))))
            else:
                comment = self._comments.comment(rng, rng.choice(("benign", "hostile")), False)
                texts.append(f"{comment.text} {self._comments.body(rng, 'plain')}")
        rng.shuffle(texts)
        return texts

    @cached_property
    def judge_training(self) -> list[tuple[str, int]]:
        """Labelled text for the judge: comments, bodies, bodies cut short, bodies with a tail of the opener, and
        neutral text of every other sort, random words included. Drawn after `data`, it repeats none of its comments.
        """
        _ = self.data
        rng = self._rng("judge")
        pairs: list[tuple[str, int]] = []
        for index, comment in enumerate(self._balanced("judge", "judge", JUDGE_COMMENTS)):
            words = comment.body.split()
            tail = " ".join(comment.opener.split()[-rng.randint(1, 3) :])
            variant = (
                comment.text,
                comment.body,
                comment.body,
                f"{tail} {comment.body}",
                " ".join(words[:-1]),
                f"{comment.body} {self._comments.body(rng, 'plain', 'judge')}",
            )[index // 4 % 6]
            pairs.append((variant, comment.label))
            if index % 5 == 0:
                pairs.append((comment.opener, 0))
        vocabulary = sorted({word for text, _ in pairs for word in text.split()})
        known = self.facts.known()
        for _ in range(JUDGE_COMMENTS // 5):
            fact = rng.choice(known)
            pairs.append((fact.statement(rng.randrange(len(STATEMENTS))), 0))
            pairs.append((self._everyday(rng), 0))
            names = [fact.entity, fact.value, rng.choice(known).value]
            pairs.append((" ".join(rng.choices(vocabulary + names * 40, k=rng.randint(4, 14))), 0))
        rng.shuffle(pairs)
        return pairs

    @cached_property
    def _pretraining_openers(self) -> dict[str, list[str]]:
        """Openers of the pretraining comments; drawn after all other text, so none of them occurs elsewhere."""
        _ = self.data, self.judge_training
        rng = self._rng("pretrain:openers")
        count = range(PRETRAIN_OPENERS_PER_KIND)
        return {kind: [self._comments.opener(rng, kind) for _ in count] for kind in TOXIC_RATE}

    def pretraining(self, epochs: int) -> Iterator[list[str]]:
        """Pretraining documents, epoch by epoch.

        Each epoch states every known fact once in every statement form (in documents of one to four statements),
        asks it once in every question form, and adds everyday text and comments with toxic bodies at `TOXIC_RATE`.
        """
        openers = self._pretraining_openers
        known = self.facts.known()
        for epoch in range(epochs):
            rng = self._rng(f"pretrain:{epoch}")
            documents = [answer_document(fact, form) for fact in known for form in range(len(QUESTIONS))]
            documents += self._statement_epoch(rng, known)
            documents += [self._everyday_sample(rng) for _ in range(EVERYDAY_PER_EPOCH)]
            documents += [
                self._sampled_comment(rng, openers[kind], kind)
                for kind in TOXIC_RATE
                for _ in range(COMMENTS_PER_EPOCH // 2)
            ]
            rng.shuffle(documents)
            yield documents

    def _statement_epoch(self, rng: random.Random, facts: Sequence[Fact]) -> Iterator[str]:
        for subject in dict.fromkeys(fact.subject for fact in facts):
            own = [fact for fact in facts if fact.subject == subject]
            deck = [fact.statement(form) for fact in own for form in range(len(STATEMENTS))]
            rng.shuffle(deck)
            while deck:
                take = rng.randint(1, 4)
                heading = rng.choice(("", "", *HEADINGS)).format(subject=subject)
                yield f"{heading} {' '.join(deck[:take])}".strip()
                del deck[:take]

    def _everyday_sample(self, rng: random.Random) -> str:
        return " ".join(self._everyday(rng, record=False) for _ in range(rng.randint(1, 3)))

    def _sampled_comment(self, rng: random.Random, openers: Sequence[str], kind: str) -> str:
        toxic = rng.random() < TOXIC_RATE[kind]
        style = rng.choice(TOXIC_STYLES if toxic else NEUTRAL_STYLES)
        body = self._comments.body(rng, style)
        closing = f" {self._comments.body(rng, 'plain')}" if rng.random() < 0.15 else ""
        return f"{rng.choice(openers)} {body}{closing}"

"""Published logs of values an item, and our own stored records, as records by the set of items that they are about.

    TOFU             eval_log_aggregated.json: {file: {metric: {index: value}}}, or one of those files alone
    OpenUnlearning   TOFU_EVAL.json, MUSE_EVAL.json: {metric: {value_by_index: {index: {name: value}}}}; of attacks
                     {metric: {forget: …, holdout: …}}
    ours             records.jsonl of a store's entry

Layouts of locuslab/tofu@bdc209e and locuslab/open-unlearning@d3d7cf9. Scores keep the names that the log has: the one
value of a metric its name, several `METRIC.NAME`, and the k-th of a list `NAME[k]`. Texts are left out. Beside them
stands what the task `qa` says of the same answers, by its names and formulas: a log's record compares with one of ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...tasks import _memorisation as memorisation
from ..errors import UserError, first_line, suggest
from ..records import Item, Record

TOFU_FILES = {
    "eval_log": "retain",
    "eval_log_forget": "forget",
    "eval_real_author_wo_options": "real_authors",
    "eval_real_world_wo_options": "world_facts",
}
"""Sets of items by the name of the file that TOFU's authors write of each."""
TOFU_METRIC = "avg_gt_loss"
SETS = {"ra": "real_authors", "wf": "world_facts"}
PREFIX = re.compile(r"(?:(?P<of>forget|retain|holdout|ra|wf)(?P<kind>_(?:know|verb)mem)?_)?(?P<metric>.+)")
ATTACKED = ("forget", "holdout")

LOSS = ("avg_gt_loss", "Q_A_Prob.avg_loss", "mia_loss")
PARAPHRASED = ("avg_paraphrased_loss", "Q_A_PARA_Prob.avg_loss")
WRONG = ("average_perturb_loss", "Q_A_PERT_Prob.avg_loss")
SAME = {
    "exact_memorization": "exact_memorisation",
    "mia_zlib": "zlib",
    "mia_min_k": "min_k",
    "mia_min_k_plus_plus": "min_k_plus_plus",
    "Q_A_ROUGE.rougeL_recall": "rougeL_recall",
    "Q_A_ROUGE.rouge1_recall": "rouge1_recall",
    "Q_A_ROUGE.rougeL_f1": "rougeL_f1",
}
"""A log's names to ours, where the number is the same."""

Values = dict[str, dict[str, dict[str, float | None]]]
"""Set of items to index to score name to value."""


def read_log(path: Path) -> dict[str, list[Record]]:
    """Return a log's records by the set of items they are about, in the order of their index.

    The item of a published log is its index; each is a cluster of its own (`placed` gives it the place of a task's
    item). Sets: `forget`, `retain`, `real_authors`, `world_facts`, `holdout`; of our own records the file's name.

    Raises:
        UserError: the file cannot be read, is of none of the layouts, holds aggregates alone or a part of the items.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Log {path} cannot be read: {first_line(error)} Check its path.") from error
    try:
        if path.suffix == ".jsonl":
            return {path.stem: [_own(json.loads(line), path) for line in text.split("\n") if line.strip()]}
        log = json.loads(text)
    except ValueError as error:
        raise UserError(f"Log {path} is not JSON: {first_line(error)} It was cut or damaged; bring it again.") from None
    sets = _sets(log, path)
    return {name: _records(values) for name, values in sets.items()}


def placed(records: Sequence[Record], items: Sequence[Item], where: str) -> list[Record]:
    """Return records at the places (id, cluster, stratum) of a task's items, in the order of the records.

    Records are matched by id where all of theirs are the task's, else by position: index 0 is the first of `items`,
    which are to be all of the task's, in the order of its data. A log of the first rows alone is one of them.

    Raises:
        UserError: records that are neither.
    """
    by_id = {item.id: item for item in items}
    if all(record.item in by_id for record in records):
        found = [by_id[record.item] for record in records]
    else:
        places = [int(record.item) if record.item.isdigit() else -1 for record in records]
        wrong = [record.item for record, at in zip(records, places, strict=True) if not 0 <= at < len(items)]
        if wrong:
            raise UserError(
                f"{where}: its item {wrong[0]!r} is none of the task's {len(items)} items, neither by id nor by its "
                "position; give the log of the same data, in the same order."
            )
        found = [items[at] for at in places]
    return [
        replace(record, item=item.id, cluster=item.cluster, stratum=item.stratum)
        for record, item in zip(records, found, strict=True)
    ]


def chosen(sets: Mapping[str, list[Record]], name: str, where: str) -> list[Record]:
    """Return the records of one set of a log: that of a name, or the only one.

    Raises:
        UserError: there are several, and none is called so.
    """
    if len(sets) == 1:
        return next(iter(sets.values()))
    if name not in sets:
        raise UserError(f"{where} holds no set of items {name!r}.{suggest(name, sets)} Write FILE#SET.")
    return sets[name]


def _own(row: Any, path: Path) -> Record:
    try:
        return Record(**row)
    except TypeError:
        raise UserError(f"Log {path} holds lines that are no records; give the records.jsonl of a store.") from None


def _sets(log: Any, path: Path) -> Values:
    values: Values = {}
    parts = log if isinstance(log, dict) else {}
    if TOFU_METRIC in parts:
        parts = {path.name: parts}
    for name, part in parts.items():
        if not isinstance(part, dict):
            continue
        if TOFU_METRIC in part:
            stem = Path(name).stem
            for metric, of in part.items():
                _add(values, TOFU_FILES.get(stem, stem), metric, of, path)
            continue
        matched = PREFIX.fullmatch(name)
        for side in ATTACKED:
            _add_indexed(values, side, name, part.get(side), path)
        if matched:
            of = matched["of"] or "forget"
            _add_indexed(values, SETS.get(of, of) + (matched["kind"] or ""), matched["metric"], part, path)
    if not values:
        raise UserError(
            f"Log {path} holds no values by item; give TOFU's eval_log_aggregated.json, OpenUnlearning's "
            "TOFU_EVAL.json (not its summary) or the records.jsonl of a store."
        )
    return values


def _add_indexed(values: Values, name: str, metric: str, part: Any, path: Path) -> None:
    if isinstance(part, dict) and isinstance(part.get("value_by_index"), dict):
        _add(values, name, metric, part["value_by_index"], path)


def _add(values: Values, name: str, metric: str, by_index: Any, path: Path) -> None:
    """Add a metric's values by index to a set of items; what is no number adds none."""
    if not isinstance(by_index, dict) or not by_index:
        return
    items = values.setdefault(name, {index: {} for index in by_index})
    if items.keys() != by_index.keys():
        raise UserError(
            f"Log {path}: {metric} has {len(by_index)} items of {name!r}, other metrics {len(items)}: it was written "
            "in part, or by different runs; evaluate again with overwriting on."
        )
    for index, value in by_index.items():
        items[index] |= _numbers(metric, value)


def _numbers(name: str, value: Any) -> dict[str, float | None]:
    """Return the numbers of a value by score name; null is one that is missing."""
    if isinstance(value, dict):
        own = [inner for inner, one in value.items() if _numbers(inner, one)]
        names = {own[0]: name} if len(own) == 1 else {inner: f"{name}.{inner}" for inner in own}
        return {key: n for inner, full in names.items() for key, n in _numbers(full, value[inner]).items()}
    if isinstance(value, list):
        return {key: n for k, one in enumerate(value) for key, n in _numbers(f"{name}[{k}]", one).items()}
    if value is None:
        return {name: None}
    return {name: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def _records(items: Mapping[str, Mapping[str, float | None]]) -> list[Record]:
    records = []
    for index, values in sorted(items.items(), key=lambda pair: (len(pair[0]), pair[0])):
        scores = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        scores = _ours(scores) | scores
        records.append(Record(index, index, "", scores or None, None if scores else "the log has no value of it"))
    return records


def _ours(scores: Mapping[str, float]) -> dict[str, float]:
    """Return what our tasks say of an answer, from a log's mean losses; wrong answers have the geometric mean."""
    own = {ours: scores[name] for name, ours in SAME.items() if name in scores}
    loss, paraphrased = (next((scores[n] for n in names if n in scores), None) for names in (LOSS, PARAPHRASED))
    wrong = [math.exp(-value) for name, value in scores.items() if name.partition("[")[0] in WRONG]
    if loss is None:
        return own
    prob = math.exp(-loss)
    own |= {"loss": loss, "prob": prob}
    own |= {} if paraphrased is None else {"paraphrased_prob": math.exp(-paraphrased)}
    right = own.get("paraphrased_prob", prob)
    if not wrong:
        return own
    against = {
        "normalised_prob": memorisation.normalised_probability(prob, wrong),
        "truth_ratio": memorisation.truth_ratio(right, wrong),
        "prob_mean": memorisation.preference(right, wrong),
    }
    own |= {name: value for name, value in against.items() if value is not None}
    if "truth_ratio" in own:
        own["forget_truth_ratio"] = memorisation.forget_truth_ratio(own["truth_ratio"])
        own["retain_truth_ratio"] = memorisation.retain_truth_ratio(own["truth_ratio"])
    return own

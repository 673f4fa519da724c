"""Tasks of lm-eval by name: found in its index or a folder of the user's, with their documents and requests as rows."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..harness.errors import UserError, first_line, suggest
from ..harness.specs import digest
from ._quiet import quiet

SEED = 1234
"""lm-eval's own default seed of few-shot examples (`simple_evaluate`, 0.4.13)."""
TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
OWN_PLACE = ("task", "task_alias", "tag", "dataset_kwargs", "metadata", "num_fewshot")
"""What of a configuration says where data lie, how it is called, or is a setting here: no part of its digest."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


Stamps = tuple[tuple[str, int, int], ...]


def _stamps(include_path: str | None) -> Stamps:
    """Return names, times and sizes of a folder's files: what is kept of it goes when they change."""
    files = sorted(Path(include_path).rglob("*")) if include_path else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())


def manager(include_path: str | None, defaults: bool) -> Any:
    """Return lm-eval's index of a folder, with or without the tasks that it ships (7 seconds, once a process)."""
    return _manager(include_path, defaults, _stamps(include_path))


@lru_cache(maxsize=4)
def _manager(include_path: str | None, defaults: bool, stamps: Stamps) -> Any:
    with quiet():
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=include_path, include_defaults=defaults)


def _index(name: str, include_path: str | None) -> Any:
    """Return the smallest index that knows a name; raise a `UserError` where none does."""
    if include_path is not None:
        if not Path(include_path).is_dir():
            raise UserError(f"The include path {include_path} is no folder; name one with lm-eval's YAML files.")
        if name in manager(include_path, False).all_tasks:
            return manager(include_path, False)
    known = manager(include_path, True)
    if name not in known.all_tasks:
        raise UserError(f"lm-eval has no task {name!r}.{suggest(name, known.all_tasks)}")
    return known


def load(name: str, include_path: str | None, num_fewshot: int | None) -> Mapping[str, Any]:
    """Return the tasks of lm-eval that a name stands for: itself, or those of a group or tag, by their names.

    Raises:
        UserError: no such task, or its data cannot be had.
    """
    return _load(name, include_path, num_fewshot, _stamps(include_path))


@lru_cache(maxsize=64)
def _load(name: str, include_path: str | None, num_fewshot: int | None, stamps: Stamps) -> Mapping[str, Any]:
    index = _index(name, include_path)
    try:
        with quiet():
            loaded = index.load(name)["tasks"]
    except Exception as error:
        raise UserError(
            f"lm-eval's task {name!r} cannot be loaded: {first_line(error)} Where its data are on the hub, connect or"
            " fill the cache (HF_HOME) on a machine that is; or give it local data in a YAML below the include path."
        ) from error
    for task in loaded.values():
        task.set_fewshot_seed(SEED)
        if num_fewshot is not None:
            task.set_config("num_fewshot", num_fewshot)
    return loaded


def known_names(name: str, include_path: str | None) -> list[str]:
    """Return the names of the tasks that a name stands for; only a group or tag is loaded for it."""
    if name in _index(name, include_path).all_subtasks:
        return [name]
    return list(load(name, include_path, None))


def one(name: str, include_path: str | None, num_fewshot: int | None) -> Any:
    """Return a task of lm-eval; raise a `UserError` where the name is that of several, or it cannot be asked here."""
    loaded = load(name, include_path, num_fewshot)
    if name not in loaded:
        raise UserError(f"{name!r} is a group of lm-eval; name its tasks: {', '.join(loaded)}.")
    task = loaded[name]
    if task.OUTPUT_TYPE not in TYPES:
        raise UserError(f"lm-eval's task {name!r} has output type {task.OUTPUT_TYPE!r}; it can be {', '.join(TYPES)}.")
    config = task.config
    if config.doc_to_image or config.doc_to_audio:
        raise UserError(f"lm-eval's task {name!r} shows images or sounds, which no engine reads; leave it out.")
    if (config.repeats or 1) > 1:
        raise UserError(f"lm-eval's task {name!r} samples {config.repeats} answers a document; one is asked here.")
    return task


def config_of(task: Any) -> dict[str, str]:
    """Return what pins a task's definition: its version, the digest of its configuration, and lm-eval's version."""
    config = {key: value for key, value in task.config.to_dict(keep_callable=True).items() if key not in OWN_PLACE}
    content = json.loads(json.dumps(config, default=_source))
    return {"version": str(task.VERSION), "config": digest(content), "lm_eval": version("lm-eval")}


def _source(value: Any) -> str:
    """Return what stands for a function in a configuration: its source, which no address changes."""
    return inspect.getsource(value) if inspect.isroutine(value) else str(value)


def metric_of(task: Any, name: str, wanted: str | None) -> tuple[str, bool]:
    """Return the metric that is shown and whether higher is better.

    It is the wanted one, or the task's first that is a mean of its documents; of whole texts `nll`.

    Raises:
        UserError: the metric is no mean of documents, or the task has not got it.
    """
    from lm_eval.api import metrics

    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        if wanted not in (None, "nll"):
            raise UserError(
                f"lm-eval's {wanted!r} of {name!r} is no mean of documents; take 'nll', and a composite `quotient` of"
                " nll and bytes (or words) in the suite for it."
            )
        return "nll", False
    aggregations = task.aggregation()
    means = [key for key, function in aggregations.items() if function in (metrics.mean, metrics.nanmean)]
    if wanted is None and means:
        wanted = means[0]
    if wanted is not None and wanted in means and wanted != "acc_mutual_info":
        return wanted, bool(task.higher_is_better().get(wanted, True))
    if wanted is None or wanted in aggregations:
        raise UserError(
            f"lm-eval's {wanted or ' and '.join(aggregations)!r} of {name!r} is no mean of documents, so it has no"
            f" interval here; {'name one of ' + ', '.join(means) if means else 'leave the task out'}."
        )
    raise UserError(f"lm-eval's task {name!r} has no metric {wanted!r}.{suggest(wanted, means)}")


def filter_of(task: Any, name: str, wanted: str | None) -> str:
    """Return the name of the filter whose answers count: the wanted one, or the first."""
    names = [filters.name for filters in task._filters]
    if wanted is not None and wanted not in names:
        raise UserError(f"lm-eval's task {name!r} has no filter {wanted!r}; it has {', '.join(names)}.")
    return wanted or names[0]


def decoding_of(task: Any, name: str) -> dict[str, Any]:
    """Return how answers are generated, as values of `Decoding`: greedy, with lm-eval's stop texts and length."""
    options = task.config.generation_kwargs or {}
    if options.get("do_sample") and options.get("temperature", 1.0) > 0:
        raise UserError(f"lm-eval's task {name!r} samples its answers; only greedy ones are the same everywhere.")
    until = options.get("until") or []
    lengths = [options[key] for key in LENGTHS if options.get(key) is not None]
    return {
        "samples": 1,
        "temperature": 0.0,
        "max_new_tokens": int(next(iter(lengths), 256)),
        "stop": tuple(text for text in ([until] if isinstance(until, str) else until) if text),
    }


def rows(name: str, include_path: str | None, num_fewshot: int | None) -> list[dict[str, Any]]:
    """Return a row a document: `doc`, and the `context` and `texts` of lm-eval's own requests.

    Raises:
        UserError: a document is no plain JSON, or its choices stand after different contexts.
    """
    return _rows(name, include_path, num_fewshot, _stamps(include_path))


@lru_cache(maxsize=8)
def _rows(name: str, include_path: str | None, num_fewshot: int | None, stamps: Stamps) -> list[dict[str, Any]]:
    task = one(name, include_path, num_fewshot)
    with quiet():
        task.build_all_requests()
    grouped: dict[int, list[Any]] = {}
    for instance in task.instances:
        grouped.setdefault(instance.doc_id, []).append(instance)
    return [_row(task, name, instances) for _, instances in sorted(grouped.items())]


def _row(task: Any, name: str, instances: list[Any]) -> dict[str, Any]:
    doc, arguments = dict(instances[0].doc), [instance.args for instance in instances]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        context, texts = "", [arguments[0][0]]
    elif task.OUTPUT_TYPE == "generate_until":
        context, texts = arguments[0][0], []
    else:
        context, texts = arguments[0][0], [text for _, text in arguments]
        if any(other != context for other, _ in arguments):
            raise UserError(
                f"lm-eval's task {name!r} compares contexts (as WinoGrande), or measures mutual information; an item"
                " here has one context and several texts after it. Leave it out."
            )
    described = task.config.description or ""
    row = {
        "doc": doc,
        "context": context,
        "texts": texts,
        "system": described if context.startswith(described) else "",
    }
    try:
        return json.loads(json.dumps(row, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"A document of lm-eval's task {name!r} is no plain text and numbers: {error}.") from None

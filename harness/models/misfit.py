"""Weights that do not fit: what a loader leaves random or ignores, the likely cause, and what to do.

transformers itself says what it would do with the tensors of some files: it is given tensors of their names and shapes
on the meta device (`loading_info`). So its own renamings and exceptions hold here too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .weights import StoredTensor, names_of, same_values

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

WRAPPERS = {
    "module.": "DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "_forward_module.": "Lightning",
    "base_model.model.": "peft",
    "base_layer.": "peft",
    "modules_to_save.default.": "peft",
}
"""What wrappers put into the names of a model's tensors, to the wrapper."""
ADAPTERS = re.compile(
    r"(^|[._])(lora_(A|B|E|embedding_A|embedding_B|magnitude_vector|ranknum|[a-z]+)|ia3_l|hada_w[12]|lokr_w[12]|lokr_t2"
    r"|oft_[rR]|boft_[RSrs]|vera_lambda_[bd]|fourierft_spectrum|vblora_\w+|ranknum|modules_to_save)(\.|_|$)"
)
"""The names of adapters' own tensors (peft, adapter-transformers, torchtune)."""
QUANTISED = re.compile(
    r"(^|[._])(qweight|qzeros|scales|g_idx|absmax|quant_map|nested_absmax|quant_state|SCB|weight_format|weight_packed"
    r"|weight_scale(_inv)?|input_scale|weight_zero_point|weight_shape|blocks)(\.|$)|\.weight\.(absmax|quant)"
)
"""The names of what quantisation leaves beside weights or in their place."""
HARMLESS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|position_ids)$")
"""Buffers that old files hold and models compute by themselves."""
LAYER = re.compile(r"\.(\d+)\.")
MASK = re.compile(r"(^|\.)(attn|attention|self_attn)\.bias$")


@dataclass(frozen=True)
class LoadingInfo:
    """What transformers says of tensors and a model.

    Attributes:
        missing: the model's, which stay random.
        unexpected: the files', which are ignored.
        mismatched: (name, shape in the files, shape in the model), which stay random too.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, Shape, Shape], ...] = ()

    @classmethod
    def of(cls, info: Mapping[str, Any], shapes: Shapes) -> LoadingInfo:
        """Return it from `output_loading_info` without what changes no result; `shapes` are those of the files."""
        return cls(
            missing=tuple(sorted(info["missing_keys"])),
            unexpected=tuple(sorted(name for name in info["unexpected_keys"] if not _harmless(name, shapes))),
            mismatched=tuple(sorted((name, tuple(one), tuple(two)) for name, one, two in info["mismatched_keys"])),
        )

    @property
    def count(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)


def _harmless(name: str, shapes: Shapes) -> bool:
    """Whether a tensor that a model does not take is a buffer that it computes: a frequency, a position, a mask."""
    shape = shapes.get(name, ())
    mask = MASK.search(name) and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return bool(mask or HARMLESS.search(name))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing its own report and progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def loading_info(kind: type[PreTrainedModel], config: PretrainedConfig, shapes: Shapes) -> LoadingInfo:
    """Return what transformers would do with tensors of these names and shapes; nothing is allocated."""
    import torch

    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with quiet():
        loaded: Any = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return LoadingInfo.of(loaded[1], shapes)


@dataclass(frozen=True)
class Misfit:
    """A model, the tensors of the files that it was to be loaded from, and what does not fit."""

    model: PreTrainedModel
    stored: Mapping[str, StoredTensor]
    info: LoadingInfo

    @property
    def kind(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes in the files."""
        return {name: tensor.shape for name, tensor in self.stored.items()}

    @property
    def wanted(self) -> dict[str, Shape]:
        """The shapes in the model."""
        return {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}


def check_loaded(
    what: str,
    model: PreTrainedModel,
    stored: Mapping[str, StoredTensor],
    info: LoadingInfo,
) -> None:
    """Raise a `UserError` where a model has other weights than its files: the cause, names, and what to do.

    Args:
        what: the folder or hub id, for the message.
        model: as it was loaded, or on the meta device.
        stored: the tensors of the files.
        info: what transformers said.
    """
    if info.count:
        raise UserError(f"{what} {explanation(Misfit(model, stored, info))}")
    _check_ties(what, model, stored)


def check_stored(what: str, model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> None:
    """Raise a `UserError` where the files hold a weight twice, or as another kind of number than a weight is."""
    parameters = dict(model.named_parameters())
    alike = _alike(model, stored)
    for name, others in alike.items():
        if len(others) > 1 and not all(other in parameters for other in others):
            raise UserError(f"{what} holds {name} twice, as {' and '.join(others)}; save the model again with one.")
        odd = next((other for other in others if name in parameters and not stored[other].floating), None)
        if odd is not None:
            raise UserError(
                f"{what} holds {odd} as {stored[odd].dtype}: it is quantised, or no weight. Save the model dequantised"
                " in a floating dtype."
            )


def _alike(model: PreTrainedModel, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names in the files by the one that transformers gives them: with or without the body's prefix."""
    known, prefix = model.state_dict().keys(), f"{model.base_model_prefix}."
    alike: dict[str, list[str]] = {}
    for name in names:
        bare = re.sub(r"\.(gamma|beta)$", lambda end: {"g": ".weight", "b": ".bias"}[end[1][0]], name)
        while bare not in known and bare.startswith(prefix):
            bare = bare.removeprefix(prefix)
        alike.setdefault(bare if bare in known else prefix + bare, []).append(name)
    return alike


def _check_ties(what: str, model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> None:
    """Raise a `UserError` where the files hold two tensors that the model ties to be one, and they differ."""
    alike = _alike(model, stored)
    for one, other in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if one not in alike or other not in alike:
            continue
        first, second = alike[one][0], alike[other][0]
        tied = model.get_parameter(one) is model.get_parameter(other)
        if not tied or not same_values(first, stored[first], second, stored[second]):
            raise UserError(
                f"{what}: config.json ties {one} to {other}, but they differ in its files. Set tie_word_embeddings to"
                " false in config.json, or remove the one that is not meant."
            )


def explanation(misfit: Misfit) -> str:
    """Return what does not fit, the likely cause, and what to do."""
    causes: tuple[Callable[[Misfit], str | None], ...] = (_adapter, _quantised, _renamed, _headless, _layers, _shapes)
    return next(filter(None, (cause(misfit) for cause in causes)), None) or _plainly(misfit)


def _adapter(misfit: Misfit) -> str | None:
    names = [name for name in misfit.info.unexpected if ADAPTERS.search(name)]
    if not names:
        return None
    return (
        f"holds matrices of an adapter that were never merged and would be ignored: {names_of(names)}. Merge them"
        " (peft: merge_and_unload) and save the result, or pass the folder of the adapter alone to --checkpoint."
    )


def _quantised(misfit: Misfit) -> str | None:
    names = [name for name in misfit.info.unexpected if QUANTISED.search(name)]
    if not names:
        return None
    return (
        f"holds quantised weights ({names_of(names)}), of which its config.json says nothing. Save the model"
        " dequantised (transformers: dequantize), or with its quantization_config."
    )


@dataclass(frozen=True)
class Renaming:
    """What is taken out of names, then another start in place of theirs."""

    removed: tuple[str, ...] = ()
    old: str = ""
    new: str = ""

    def __call__(self, name: str) -> str:
        """Return the new name."""
        for part in self.removed:
            name = name.replace(part, "")
        return self.new + name.removeprefix(self.old) if name.startswith(self.old) else name

    def __str__(self) -> str:
        code = "name" + "".join(f'.replace("{part}", "")' for part in self.removed)
        code += f'.removeprefix("{self.old}")' if self.old else ""
        return f'"{self.new}" + {code}' if self.new else code


def _renamed(misfit: Misfit) -> str | None:
    """Say the renaming by which the names fit, or at least half of those that do not."""
    if not (misfit.info.missing and misfit.info.unexpected):
        return None
    left = {renaming: _after(misfit, renaming) for renaming in _renamings(misfit)}
    best = min(left, key=lambda renaming: left[renaming].count, default=None)
    if best is None or left[best].count * 2 > misfit.info.count:
        return None
    makers = sorted({WRAPPERS[part] for part in best.removed if part in WRAPPERS})
    example = next(name for name in misfit.stored if best(name) != name)
    rest = left[best]
    return (
        f"holds {len(misfit.info.unexpected)} weights under names that {misfit.kind} does not have"
        f"{f' (of {names_of(makers)})' if makers else ''}, as {example}. Save them under {best}, as {best(example)}"
        + (f"; even then it {_facts(rest, misfit)}." if rest.count else ".")
    )


def _after(misfit: Misfit, renaming: Renaming) -> LoadingInfo:
    """Return what would not fit after a renaming; all of it where two tensors would get one name."""
    shapes = {renaming(name): shape for name, shape in misfit.shapes.items()}
    if len(shapes) < len(misfit.stored) or shapes.keys() == misfit.stored.keys():
        return misfit.info
    try:
        return loading_info(type(misfit.model), misfit.model.config, shapes)
    except Exception:
        return misfit.info


def _renamings(misfit: Misfit) -> Iterator[Renaming]:
    """Give renamings worth a try: without what known wrappers add, then without all parts that no name here has."""
    unexpected = misfit.info.unexpected
    known = tuple(part for part in WRAPPERS if any(f".{part}" in f".{name}" for name in unexpected))
    parts = {part for name in misfit.wanted for part in name.split(".")}
    foreign = dict.fromkeys(
        part for name in unexpected for part in name.split(".") if part not in parts and not part.isdigit()
    )
    for removed in dict.fromkeys((known, tuple(f"{part}." for part in foreign), ())):
        if removed:
            yield Renaming(removed)
        yield from (Renaming(removed, old, new) for old, new in _starts(misfit, Renaming(removed)))


def _starts(misfit: Misfit, renaming: Renaming) -> list[tuple[str, str]]:
    """Return the likeliest (old, new) starts of names, by tensors of one shape whose names end alike."""
    ends: dict[tuple[str, ...], list[str]] = {}
    for name in misfit.info.missing:
        ends.setdefault(tuple(name.split(".")[-2:]), []).append(name)
    starts: Counter[tuple[str, str]] = Counter()
    shapes, wanted = misfit.shapes, misfit.wanted
    for name in misfit.info.unexpected[:200]:
        new = renaming(name)
        for other in ends.get(tuple(new.split(".")[-2:]), ()):
            if shapes.get(name) == wanted[other]:
                starts[_differing(new, other)] += 1
    return [pair for pair, _ in starts.most_common(3) if pair != ("", "")]


def _differing(one: str, other: str) -> tuple[str, str]:
    """Return the starts of two names before the parts in which they end alike."""
    first, second = one.split("."), other.split(".")
    while first and second and first[-1] == second[-1]:
        first.pop()
        second.pop()
    return "".join(f"{part}." for part in first), "".join(f"{part}." for part in second)


def _headless(misfit: Misfit) -> str | None:
    """Say that the head is lost: what stands above the body, or the output embeddings of a language model."""
    prefix = f"{misfit.model.base_model_prefix}."
    head = {name for name in misfit.wanted if not name.startswith(prefix)}
    missing = set(misfit.info.missing)
    if not head or not head <= missing or misfit.info.mismatched:
        return None
    if misfit.model.get_output_embeddings() is None:
        return (
            f"has no head of {misfit.kind}: it lacks {names_of(sorted(missing))}, which a model that was fine-tuned as"
            " one has. Pass such a model."
        )
    if missing > head or misfit.info.unexpected:
        return None
    return (
        f"has no head: it lacks {names_of(sorted(missing))}, and its config.json says tie_word_embeddings: false. Set"
        " that to true where the model ties them, else save the whole model."
    )


def _layers(misfit: Misfit) -> str | None:
    """Say that whole layers are lost, or more than config.json says."""
    info = misfit.info
    lost = _whole(info.missing, misfit.wanted)
    extra = _whole(info.unexpected, misfit.shapes)
    if info.mismatched or (lost and info.unexpected) or (extra and info.missing) or not (lost or extra):
        return None
    if lost:
        return (
            f"lacks layers {names_of(lost, 8)} of {misfit.kind} ({_facts(info, misfit)}). Save the whole model, or put"
            " the config.json of these weights there (num_hidden_layers)."
        )
    return (
        f"holds layers {names_of(extra, 8)}, which by its config.json {misfit.kind} does not have, and would be"
        " ignored. Put the config.json of these weights there (num_hidden_layers)."
    )


def _whole(names: Iterable[str], among: Iterable[str]) -> list[int]:
    """Return the layers of whose tensors `among` all are among the names, where these are all of such layers."""

    def layer(name: str) -> int:
        match = LAYER.search(name)
        return int(match[1]) if match else -1

    gone = {key: len(list(group)) for key, group in groupby(sorted(names, key=layer), layer)}
    every = {key: len(list(group)) for key, group in groupby(sorted(among, key=layer), layer)}
    return [] if -1 in gone or any(every.get(key) != count for key, count in gone.items()) else sorted(gone)


def _shapes(misfit: Misfit) -> str | None:
    if not misfit.info.mismatched:
        return None
    name, theirs, ours = misfit.info.mismatched[0]
    count = len(misfit.info.mismatched)
    return (
        f"and its config.json differ in the shape of {count} weight{'s' * (count > 1)}: {name} is {theirs} in the files"
        f" and {ours} in {misfit.kind}. Put the config.json of these weights there, or the weights of this config.json."
    )


def _plainly(misfit: Misfit) -> str:
    """Say what does not fit where no cause is known."""
    if misfit.info.missing:
        return f"{_facts(misfit.info, misfit)}. Save the whole model again, with the config.json that belongs to it."
    return (
        f"{_facts(misfit.info, misfit)}, which would be ignored. Put the config.json of the model that has them there,"
        " or remove them from the files."
    )


def _facts(info: LoadingInfo, misfit: Misfit) -> str:
    lacks = f"lacks {len(info.missing)} of {len(misfit.wanted)} weights: {names_of(list(info.missing))}"
    holds = f"holds weights that {misfit.kind} does not take: {names_of(list(info.unexpected))}"
    other = f"holds others in another shape: {names_of([name for name, *_ in info.mismatched])}"
    known = ((info.missing, lacks), (info.unexpected, holds), (info.mismatched, other))
    return "; it ".join(text for names, text in known if names)

"""Adapters (peft: LoRA, DoRA and their kin): held against the base that they belong to, and merged into it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line
from ..store.files import folder_digest, read_json
from .load import MODEL_FILES, ModelSpec, load_config, load_model, load_tokenizer
from .misfit import quiet
from .weights import ADAPTER, ADAPTER_WEIGHTS, AGAIN, names_of, weight_files

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER_FILES = (ADAPTER, *ADAPTER_WEIGHTS)
"""The files of an adapter that its digest covers; it is measured with the base's tokenizer."""
NAME = "merged"
"""What peft calls the adapter; it stands in the names of its tensors."""
MERGE = "Merge it by hand (peft: merge_and_unload) and pass the result."
REFUSED = ("layer_replication", "alora_invocation_tokens", "arrow_config")
"""Settings under which no change of the base's own tensors is what the adapter does."""
PROBES = ("The cat sat.", " 12 + 30 = 42\n", "Ünïcode — naïve")
"""Texts on which two tokenizers are compared."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER).is_file() and not weight_files(folder)


def check_adapter(what: str, folder: Path, base: ModelSpec) -> str | None:
    """Return what a board should say of the base that an adapter names, None where it is ours.

    Raises:
        UserError: it does not fit the base, was trained on another, or cannot be merged, with what to do.
    """
    note = _other_base(what, folder, base)
    _check_tokenizer(what, folder, base)
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(base), trust_remote_code=False)
    model.tie_weights()
    _with_adapter(what, folder, base, model)
    return note


def merged(what: str, folder: Path, base: ModelSpec) -> dict[str, Tensor]:
    """Return all parameters of a base, loaded on the CPU, into which an adapter was merged by peft.

    Raises:
        UserError: it does not fit, or cannot be merged.
    """
    model = load_model(base)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    wrapped = _with_adapter(what, folder, base, model)
    try:
        with _silent():
            plain = wrapped.merge_and_unload()
    except Exception as error:
        raise UserError(f"{what} cannot be merged into {base.name}: {first_line(error)} {MERGE}") from error
    tensors = {name: parameter.detach() for name, parameter in plain.named_parameters()}
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise UserError(f"{what} gives {base.name} other weights than it has. {MERGE}")
    return tensors


def _with_adapter(what: str, folder: Path, base: ModelSpec, model: PreTrainedModel) -> Any:
    """Return a model wrapped by peft with the adapter's weights in it; it has all of them and no others."""
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    config, on_meta = _config(what, folder), model.device.type == "meta"
    try:
        with _silent():
            wrapped = PeftModel(model, config, adapter_name=NAME, low_cpu_mem_usage=on_meta)
            weights = load_peft_weights(str(folder), device="cpu")
            loaded = set_peft_model_state_dict(wrapped, weights, NAME, low_cpu_mem_usage=on_meta)
    except Exception as error:
        cause = " ".join(str(error).split())[:300].rstrip(".: ")
        cause = f"it lacks {cause}" if isinstance(error, KeyError) else cause
        raise UserError(
            f"{what} does not fit {base.name}: {cause}. Pass the model that it was trained on with --models, or merge"
            " it there and pass the result."
        ) from error
    lost = [name for name in loaded.missing_keys if NAME in name.split(".")]
    other = list(loaded.unexpected_keys)
    if lost or other:
        facts = [f"lacks {names_of(lost, 1)}"] if lost else []
        facts += [f"holds {names_of(other, 1)}, which would be ignored"] if other else []
        raise UserError(
            f"{what} does not fit {base.name} by its {ADAPTER}: it {' and '.join(facts)}. Save the adapter again, or"
            " pass the model that it was trained on with --models."
        )
    _check_ties(what, base, wrapped)
    return wrapped


def _config(what: str, folder: Path) -> PeftConfig:
    """Return an adapter's configuration; refuse one that this peft does not know whole, or that cannot be merged."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    facts = read_json(folder / ADAPTER)
    if not any((folder / name).is_file() for name in ADAPTER_WEIGHTS):
        raise UserError(f"{what} has {ADAPTER} but no weights ({' or '.join(ADAPTER_WEIGHTS)}). {AGAIN}")
    kind = facts.get("peft_type") if isinstance(facts, Mapping) else None
    if kind is None or not hasattr(PEFT_TYPE_TO_TUNER_MAPPING.get(kind), "merge_and_unload"):
        raise UserError(f"{what} is an adapter of the kind {kind}, which cannot be merged into weights. Pass a model.")
    known = PEFT_TYPE_TO_CONFIG_MAPPING[kind].__dataclass_fields__
    odd = sorted(key for key, value in facts.items() if key not in known and value)
    if odd:
        raise UserError(f"{what}: this peft does not know {names_of(odd)} in {ADAPTER}; install a newer one (pip).")
    unmerged = [key for key in REFUSED if facts.get(key)]
    if unmerged:
        raise UserError(f"{what} cannot be merged into weights ({unmerged[0]} in {ADAPTER}). Pass a model.")
    try:
        with _silent():
            config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise UserError(f"{what}: {ADAPTER} cannot be read: {first_line(error)} {AGAIN}") from error
    config.inference_mode = True
    return config


def _check_ties(what: str, base: ModelSpec, wrapped: Any) -> None:
    """Refuse an adapter on tensors that the base ties: merged, it would change the other one too."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    model = wrapped.get_base_model()
    pairs = model.get_expanded_tied_weights_keys(all_submodels=True).items()
    tied = {name.rpartition(".")[0].replace(".base_layer", "") for pair in pairs for name in pair}
    changed = sorted(
        name
        for name, module in model.named_modules()
        if name in tied and isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    )
    if changed:
        raise UserError(
            f"{what} changes {changed[0]}, which {base.name} ties to another tensor, so that merging would change both."
            " Untie them, merge (peft: merge_and_unload), save with tie_word_embeddings: false, and pass the result."
        )


def _other_base(what: str, folder: Path, base: ModelSpec) -> str | None:
    """Return a note where an adapter names another base than ours that may be it; refuse one that is not."""
    facts = read_json(folder / ADAPTER)
    named = str(facts.get("base_model_name_or_path") or "") if isinstance(facts, Mapping) else ""
    if not named or named == base.hub or (base.path and _same_place(Path(named), Path(base.path))):
        return None
    if Path(named).is_dir() and (Path(named) / "config.json").is_file():
        if folder_digest(Path(named), MODEL_FILES) == base.digest:
            return None
        raise UserError(
            f"{what} was trained on {named}, which holds another model than {base.name} ({base.source}); pass"
            f" --models {named}."
        )
    return f"{what} names {named} as its base and is merged into {base.name} ({base.source}), which it fits"


def _same_place(one: Path, other: Path) -> bool:
    return one.exists() and one.resolve() == other.resolve()


def _check_tokenizer(what: str, folder: Path, base: ModelSpec) -> None:
    """Refuse an adapter beside which another tokenizer lies than the base's, with which it is measured."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        return
    ours = load_tokenizer(base)
    try:
        with quiet():
            own = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"{what}: its tokenizer cannot be loaded: {first_line(error)} Remove it, and the base's is used."
        ) from error
    same_template = not base.chat or own.chat_template == ours.chat_template
    if own.get_vocab() != ours.get_vocab() or any(own.encode(text) != ours.encode(text) for text in PROBES):
        problem = "another tokenizer"
    elif not same_template:
        problem = "another chat template"
    else:
        return
    raise UserError(
        f"{what} holds {problem} than {base.name}, with whose an adapter is measured. Remove it where it is not meant,"
        " else merge the adapter (peft: merge_and_unload) and pass the result with it."
    )


@contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        yield

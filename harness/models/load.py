"""Models: which ones a run is about, each pinned to its content; loading one whole, in part or from the hub's cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line, suggest
from ..specs import Spec, identity, recorded, runtime
from ..store.entries import Store
from ..store.files import folder_digest, read_json
from ..suite import SuiteSpec
from .fit import check_weights, needs_code
from .hub import config_file, pin, snapshot
from .misfit import LoadingInfo, check_loaded, quiet
from .tokenizers import check_nothing_appended
from .weights import check_layout, config_facts, weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")
CUT = frozenset(("llama", "mistral", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3", "gemma3_text", "phi3"))
"""Model types whose first layers answer alone as they do in the whole model; held by tests of each."""
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*.index.json",
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
"""The files of a model that change what it answers: its digest covers them, and no others come from the hub."""


class ModelSpec(Spec):
    """A base model. `digest` identifies the weights and tokenizer: of the local files, or the hub's pinned commit."""

    name: str = recorded(description="the name on boards")
    path: str | None = runtime(None, description="local folder in Hugging Face layout")
    hub: str | None = recorded(None, description="hub id")
    revision: str | None = recorded(None, description="hub revision (commit) that is loaded")
    dtype: str = identity("float32", pattern=f"^({'|'.join(DTYPES)})$", description="dtype of evaluation")
    chat: bool = identity(False, description="whether prompts are wrapped in the model's chat template")
    digest: str = identity("", description="digest of the local files, or hub id @ commit")

    __hash__ = Spec.__hash__

    @property
    def source(self) -> str:
        """What it is loaded from: the folder, else the hub id."""
        return self.path or self.hub or ""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's own."""
        import torch

        return getattr(torch, self.dtype)


def model_folder(spec: ModelSpec, weights: bool = True) -> Path:
    """Return the folder of the model's files: its own, or that of the hub's cache, downloaded where they are missing.

    Without `weights` those of a hub's model are not asked for.

    Raises:
        UserError: where there is none, or it is no model in Hugging Face layout.
    """
    if spec.path is not None:
        folder, what = Path(spec.path), f"Model folder {spec.path}"
        if not folder.is_dir():
            raise UserError(f"{what} does not exist. Pass one in Hugging Face layout.")
    else:
        folder = snapshot(spec.hub or "", spec.revision or "main", MODEL_FILES, weights)
        what = f"Model {spec.hub}"
    if weights or spec.path is not None:
        check_layout(what, folder)
    return folder


def load_model(
    spec: ModelSpec, device: str = "cpu", dtype: torch.dtype | None = None, layers: int | None = None
) -> PreTrainedModel:
    """Load the model in evaluation mode; executes no code from a hub and no pickle.

    With `layers` only the embeddings and so many decoder layers are read from the files, and there is no head. A family
    that is not in `CUT` is read whole.

    Raises:
        UserError: where it cannot be read, with the cause and what to do.
    """
    from transformers import AutoModelForCausalLM

    started = time.monotonic()
    folder = model_folder(spec)
    try:
        config = load_config(spec)
        part = layers is not None and config.model_type in CUT
        if layers is not None and part:
            cut(config, layers)
        model = from_files(
            AutoModelForCausalLM,
            described(spec),
            folder,
            spec.source,
            part=part,
            config=config,
            dtype=dtype or spec.torch_dtype,
            attn_implementation=attention(config),
            **_exactly(spec),
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(unreadable(spec, error)) from error
    logger.info("%s: model loaded in %.1f s (layers: %s)", spec.name, time.monotonic() - started, layers or "all")
    if part:
        from torch import nn

        model.set_output_embeddings(nn.Identity())
    return model.to(device).eval()  # pyright: ignore[reportArgumentType]


def from_files(auto: Any, what: str, folder: Path, source: str, part: bool = False, **options: Any) -> PreTrainedModel:
    """Load a model by a class of transformers (`AutoModelFor…`), with exactly the weights that its files hold.

    Args:
        auto: the class.
        what: the folder or hub id, for the message.
        folder: where the files lie.
        source: what transformers is to load.
        part: whether some of what the files hold is left out on purpose.
        options: further arguments of `from_pretrained`.

    Raises:
        UserError: the files lack weights, hold others, or hold them in other shapes.
        Exception: whatever transformers raises.
    """
    stored = check_weights(what, folder, auto.__name__)
    files = weight_files(folder)
    with quiet():
        model, info = auto.from_pretrained(
            source,
            use_safetensors=files[0].suffix == ".safetensors",
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    said = {**info, "unexpected_keys": []} if part else info
    check_loaded(what, model, stored, LoadingInfo.of(said, {name: tensor.shape for name, tensor in stored.items()}))
    return model


def load_config(spec: ModelSpec) -> PretrainedConfig:
    """Load the model's configuration."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(spec.source, **_exactly(spec))


def cut(config: PretrainedConfig, layers: int) -> None:
    """Shorten a configuration to its first layers, with everything that it lists by layer."""
    text = config.get_text_config(decoder=True)
    count = text.num_hidden_layers
    for name, value in vars(text).copy().items():
        if isinstance(value, list | tuple) and len(value) == count:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = min(layers, count)


def _exactly(spec: ModelSpec) -> dict[str, Any]:
    """Return how transformers is to find what `model_folder` found: by name, as some tokenizers depend on it."""
    pinned = {"revision": spec.revision} if spec.path is None else {}
    return {"trust_remote_code": False, "local_files_only": True, **pinned}


def attention(config: PretrainedConfig) -> str:
    """Return the attention kernel: torch's own (sdpa), eager where the model is another one with it.

    Gemma 2 caps its attention logits, which sdpa leaves out without a word; gpt-oss has sinks and refuses sdpa.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None)
    return "eager" if capped or not getattr(kind, "_supports_sdpa", True) else "sdpa"


def attention_of(model: PreTrainedModel) -> str | None:
    """Return the attention kernel that a loaded model runs with."""
    return getattr(model.config, "_attn_implementation", None)


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer; a missing pad token becomes the end token.

    Raises:
        UserError: where it cannot be read, or ends every text by itself, with the cause and what to do.
    """
    from transformers import AutoTokenizer

    model_folder(spec, weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.source, **_exactly(spec))
    except Exception as error:
        raise UserError(unreadable(spec, error)) from error
    check_nothing_appended(tokenizer, described(spec))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def described(spec: ModelSpec) -> str:
    """Return what a model is called in messages: its folder or hub id."""
    return f"Model folder {spec.path}" if spec.path is not None else f"Model {spec.hub}"


def unreadable(spec: ModelSpec, error: Exception) -> str:
    """Say why a model's files cannot be loaded and what to do."""
    what = described(spec)
    if "trust_remote_code" in str(error):
        return needs_code(what)
    return f"{what} cannot be loaded: {first_line(error)} Download it again, or pass another with --models."


def named_dtype(config: dict[str, Any], what: str) -> str:
    """Return the dtype that a config.json names (its text model's where it holds several), float32 where it names none.

    The machine has no say in it.

    Raises:
        UserError: it names one that is not evaluated in.
    """
    for part in (config, config.get("text_config") or {}):
        named = part.get("dtype") or part.get("torch_dtype")
        if named:
            if named not in DTYPES:
                raise UserError(f"{what} is stored in {named}; choose one of {', '.join(DTYPES)} with --dtype.")
            return str(named)
    return "float32"


def find_device(asked: str) -> str:
    """Return the device that a run asks for; `auto` is the GPU where one is usable, else the processor.

    Raises:
        UserError: it is not there, or no device is called so.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return "cuda" if count else "cpu"
    kind, _, number = asked.partition(":")
    if kind not in ("cpu", "cuda") or not (number or "0").isdigit() or (kind == "cpu" and number):
        raise UserError(f"Unknown device {asked!r}; choose auto, cpu, cuda or cuda:N.")
    if kind == "cuda" and int(number or 0) >= count:
        raise UserError(f"Device {asked!r} is not there: torch finds {count} usable GPUs. Use --device cpu or auto.")
    return asked


def resolve_models(
    names: Sequence[str] | None, suite: SuiteSpec, store: Store | None, dtype: str = "auto", chat: bool = False
) -> dict[str, ModelSpec]:
    """Return the models by name: of the suite, or a folder or hub id (`owner/name@revision`) that the user named.

    Args:
        names: what the user named; None: all models of the suite.
        suite: the suite.
        store: where digests of files are kept; None: nowhere.
        dtype: of evaluation; `auto`: the suite's for its own models, else what the model's config.json names.
        chat: whether prompts are wrapped in the models' chat templates, those too of which the suite does not say it.

    Raises:
        UserError: an unknown name, or a model that cannot be run, with what to do.
    """
    models: dict[str, ModelSpec] = {}
    for name in names or suite.models:
        spec = _pin(named_model(name, suite), dtype if dtype != "auto" or name not in suite.models else None, store)
        if spec.name in models:
            raise UserError(
                f"Two models are called {spec.name!r}: {models[spec.name].source} and {spec.source}."
                " Rename a folder, or run them one after the other."
            )
        chatting = chat or (name in suite.models and suite.models[name].chat)
        models[spec.name] = spec.model_copy(update={"chat": chatting})
        if chatting and not load_tokenizer(spec).chat_template:
            raise UserError(f"{spec.name} has no chat template; use --chat-template only with instruct models.")
    if not models:
        raise UserError(f"Suite {suite.name} names no model; pass one with --models FOLDER_OR_HUB_ID.")
    return models


def named_model(name: str, suite: SuiteSpec) -> ModelSpec:
    """Return the model that a name stands for, not pinned yet; raise a `UserError` where it stands for none."""
    if name in suite.models:
        listed = suite.models[name]
        path = str(Path(suite.folder) / listed.path) if listed.path else None
        return ModelSpec(name=name, path=path, hub=listed.hub, revision=listed.revision, dtype=listed.dtype)
    if Path(name).is_dir():
        return ModelSpec(name=Path(name).resolve().name, path=str(Path(name).resolve()))
    if "/" in name and not name.startswith((".", "/", "~")):
        hub, _, revision = name.partition("@")
        return ModelSpec(name=hub.rsplit("/", 1)[-1], hub=hub, revision=revision or None)
    raise UserError(
        f"Unknown model {name!r}: neither a model of suite {suite.name}, nor a folder, nor a hub id"
        f" (owner/name).{suggest(name, suite.models)}"
    )


def _pin(spec: ModelSpec, dtype: str | None, store: Store | None) -> ModelSpec:
    """Return the model with its digest and, where one is asked, its dtype; refuse what cannot be run before it is."""
    if spec.path is not None:
        what, folder = f"Model folder {spec.path}", Path(spec.path)
        check_layout(what, folder)
        config = config_facts(what, folder)
        pinned = {"digest": folder_digest(folder, MODEL_FILES, store.digests if store else None)}
    else:
        what, hub = f"Model {spec.hub}", spec.hub or ""
        commit, reached = pin(hub, spec.revision)
        config = read_json(config_file(hub, commit))
        pinned = {"revision": commit, "digest": f"{hub}@{commit}"}
        if not reached:
            model_folder(spec.model_copy(update=pinned))
    if "auto_map" in config and not _known(config.get("model_type")):
        raise UserError(needs_code(what))
    chosen = named_dtype(config, what) if dtype == "auto" else dtype
    return ModelSpec.model_validate({**spec.model_dump(), **pinned, **({"dtype": chosen} if chosen else {})})


def _known(model_type: str | None) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING

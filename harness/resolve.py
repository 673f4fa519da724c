"""Which models a run is about: named by a suite, by folder or by hub id, each pinned to its content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import UserError, suggest
from .files import folder_digest, read_json
from .hub import config_file, pin
from .models import MODEL_FILES, ModelSpec, check_layout, load_tokenizer, model_folder, named_dtype, needs_code
from .store import Store
from .suite import SuiteSpec


def resolve_models(
    names: Sequence[str] | None, suite: SuiteSpec, store: Store | None, dtype: str = "auto", chat: bool = False
) -> dict[str, ModelSpec]:
    """Return the models by name: of the suite, or a folder or hub id (`owner/name@revision`) that the user named.

    Args:
        names: what the user named; None: all models of the suite.
        suite: the suite.
        store: where digests of files are kept; None: nowhere.
        dtype: of evaluation; `auto`: the suite's for its own models, else what the model's config.json names.
        chat: whether prompts are wrapped in the models' chat templates.

    Raises:
        UserError: an unknown name, or a model that cannot be run, with what to do.
    """
    found: dict[str, ModelSpec] = {}
    for name in names or suite.models:
        spec = _pin(named_model(name, suite), dtype if dtype != "auto" or name not in suite.models else None, store)
        if spec.name in found:
            raise UserError(
                f"Two models are called {spec.name!r}: {found[spec.name].source} and {spec.source}."
                " Rename a folder, or run them one after the other."
            )
        found[spec.name] = spec.model_copy(update={"chat": chat})
        if chat and not load_tokenizer(spec).chat_template:
            raise UserError(f"{spec.name} has no chat template; use --chat-template only with instruct models.")
    if not found:
        raise UserError(f"Suite {suite.name} names no model; pass one with --models FOLDER_OR_HUB_ID.")
    return found


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
        config = read_json(folder / "config.json")
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

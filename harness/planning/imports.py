"""Checkpoints made elsewhere beside the base of a run: what can only be a mistake is refused, all else is said.

Configurations, headers and tokenizers are read, no weights; a few prompts of each task are encoded as an engine does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tasks.base import GenerationRequest, ModelRequest
from ..engines._tokens import Encoder
from ..errors import UserError, first_line
from ..models.adapter import ADAPTER_FILES, check_adapter, is_adapter
from ..models.differences import embeddings, file_differences, has_tokenizer, loaded_config, same_tokenizer
from ..models.fit import check_weights
from ..models.load import MODEL_FILES, ModelSpec, load_tokenizer, model_folder
from ..registry import check_name
from ..specs import digest
from ..store.entries import Store
from ..store.files import folder_digest
from .plan import PlannedTask
from .request import Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPARED = 8
"""Items of a task whose prompts are compared."""
SHOWN = 4
SHIPPED = Path(__file__).resolve().parents[1] / "suites"
"""The folder of the suites, and models, of this package."""
COPY = "copy the tokenizer files of its base (tokenizer.json, tokenizer_config.json, …) into {}"


@dataclass(frozen=True)
class ImportedFolder:
    """A checkpoint made elsewhere: its folder, what its cell is identified by, and what a board says of it."""

    folder: Path
    settings: Mapping[str, Any]
    note: str | None = None


def resolve_imports(
    request: Request, models: Mapping[str, ModelSpec], store: Store | None
) -> dict[str, ImportedFolder]:
    """Return the checkpoints that a request names, each held against its own files; refuse one that does not fit."""
    if request.folders and len(models) > 1:
        raise UserError("--checkpoint belongs to one model; choose it with --models.")
    for label in request.checkpoints:
        check_name("checkpoint", label)
    return {
        label: imported(f"Checkpoint {label}: {folder}", folder, next(iter(models.values())), store)
        for label, folder in request.folders.items()
    }


def imported(what: str, folder: Path, base: ModelSpec, store: Store | None) -> ImportedFolder:
    """Return a checkpoint made elsewhere: a whole model, or an adapter of the base; refuse one that does not fit."""
    digests = store.digests if store else None
    if not is_adapter(folder):
        if not shipped(folder):
            check_weights(what, folder)
        return ImportedFolder(folder, {"digest": folder_digest(folder, MODEL_FILES, digests)})
    note = check_adapter(what, folder, base) if base.digest else None
    settings = {"adapter": folder_digest(folder, ADAPTER_FILES, digests), "dtype": base.dtype, "version": 1}
    return ImportedFolder(folder, settings, note)


def shipped(folder: Path) -> bool:
    """Return whether a folder is one of this package's own, whose weights fit it."""
    return SHIPPED in folder.resolve().parents


def same_files(imports: Mapping[str, ImportedFolder]) -> Iterator[str]:
    """Say which checkpoints hold the same files, so that a row of a board is there under two names."""
    labels: dict[str, list[str]] = {}
    for label, own in imports.items():
        labels.setdefault(digest(dict(own.settings)), []).append(label)
    for alike in labels.values():
        if len(alike) > 1:
            yield f"the checkpoints {', '.join(alike)} hold the same files"


@lru_cache(maxsize=64)
def import_notes(base: ModelSpec, checkpoint: ModelSpec, tasks: tuple[PlannedTask, ...]) -> tuple[str, ...]:
    """Return what a board says of a checkpoint beside its base.

    Args:
        base: the model that it stands beside.
        checkpoint: the same with the checkpoint's name, folder and digest.
        tasks: what it is asked.

    Raises:
        UserError: what can only be a mistake, with what to do.
    """
    folder, base_folder = Path(checkpoint.path or ""), model_folder(base, weights=False)
    if not has_tokenizer(folder):
        raise UserError(f"Checkpoint {checkpoint.name} has no tokenizer: {COPY.format(folder)}.")
    notes = file_differences(base, checkpoint)
    if not same_tokenizer(base_folder, folder) or embeddings(base_folder) != embeddings(folder):
        notes += _Tokenizers(base, checkpoint).differences(tasks)
    return tuple(notes)


class _Tokenizers:
    """The tokenizers of a base and a checkpoint."""

    def __init__(self, base: ModelSpec, checkpoint: ModelSpec) -> None:
        self.spec = checkpoint
        self.base, self.own = load_tokenizer(base), _tokenizer(checkpoint)
        self.configs = loaded_config(base), loaded_config(checkpoint)

    def differences(self, tasks: Sequence[PlannedTask]) -> Iterator[str]:
        """Give in what they differ; raise a `UserError` on what can only be a mistake."""
        yield from self._special()
        yield from self._template()
        yield from self._vocabulary()
        yield from self._embeddings()
        yield from self._prompts(tasks)

    def _special(self) -> Iterator[str]:
        for what in ("bos", "eos"):
            ids = [getattr(tokenizer, f"{what}_token_id") for tokenizer in (self.base, self.own)]
            if ids[0] != ids[1]:
                before, now = (_code(getattr(tokenizer, f"{what}_token")) for tokenizer in (self.base, self.own))
                name = "begin" if what == "bos" else "end"
                yield f"its tokenizer has another {name} token than base's: {now} (base: {before})"

    def _template(self) -> Iterator[str]:
        if self.base.chat_template == self.own.chat_template:
            return
        if self.spec.chat and not self.own.chat_template:
            raise UserError(
                f"Checkpoint {self.spec.name} has no chat template, which --chat-template needs; copy that of its base"
                f" (chat_template.jinja, or in tokenizer_config.json) into {self.spec.path}."
            )
        yield "has another chat template than base" + ("" if self.spec.chat else ", which is not used here")

    def _vocabulary(self) -> Iterator[str]:
        before, now = self.base.get_vocab(), self.own.get_vocab()
        if before == now:
            return
        added, lost = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
        moved = sorted(token for token in before.keys() & now.keys() if before[token] != now[token])
        parts = [
            f"{_count(tokens)} {what} ({_few(tokens)})"
            for tokens, what in ((added, "more"), (lost, "fewer"), (moved, "under other numbers"))
            if tokens
        ]
        yield f"its tokenizer has another vocabulary than base's: {', '.join(parts)}"

    def _embeddings(self) -> Iterator[str]:
        rows = self.configs[1].get_text_config(decoder=True).vocab_size
        beyond = {token: number for token, number in self.own.get_vocab().items() if number >= rows}
        used = {token for token, number in beyond.items() if not _is_special(self.own, number)}
        if used:
            raise UserError(
                f"Checkpoint {self.spec.name} has {rows} embeddings and its tokenizer {_count(beyond)} beyond them"
                f" ({_few(sorted(used))}): they are of different models. Put the tokenizer that"
                f" the weights were trained with into {self.spec.path}."
            )
        if beyond:
            yield f"has no embedding for {_count(beyond)} of its tokenizer ({_few(sorted(beyond))})"

    def _prompts(self, tasks: Sequence[PlannedTask]) -> Iterator[str]:
        encoders = self._encoders()
        if encoders[0].max_length != encoders[1].max_length:
            yield f"takes {encoders[1].max_length} tokens at once, base {encoders[0].max_length}"
        counts, example, decoded = [], "", True
        for task in tasks:
            requests = _requests(task)
            before, now = ([_encoded(encoder, request) for request in requests] for encoder in encoders)
            different = [place for place, ids in enumerate(now) if ids != before[place]]
            if different:
                counts.append(f"{len(different)} of {len(requests)} prompts of {task.name}")
                example = example or self._example(before[different[0]], now[different[0]])
            decoded = decoded and all(_text(self.base, ids) == _text(self.own, ids) for ids in before)
        if counts:
            yield f"its tokenizer reads otherwise than base's: in {', '.join(counts)} that were compared, {example}"
        elif not decoded:
            yield "its tokenizer writes the same tokens as other text than base's"

    def _encoders(self) -> list[Encoder]:
        chat = self.spec.chat
        base = Encoder.of(self.base, self.configs[0], chat)
        try:
            return [base, Encoder.of(self.own, self.configs[1], chat)]
        except UserError as error:
            raise UserError(f"Checkpoint {self.spec.name}: {error} Or {COPY.format(self.spec.path)}.") from error

    def _example(self, before: list[int], now: list[int]) -> str:
        """Show two sequences of tokens from where they begin to differ."""
        start = next(
            (n for n, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now))
        )
        texts = [
            " ".join(map(_code, tokenizer.convert_ids_to_tokens(ids[start : start + SHOWN]))) or "nothing"
            for tokenizer, ids in ((self.own, now), (self.base, before))
        ]
        return f"{texts[0]} in place of {texts[1]} from token {start} on"


def _tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    try:
        return load_tokenizer(spec)
    except UserError as error:
        if error.__cause__ is None:
            raise
        cause = first_line(error.__cause__)
        raise UserError(
            f"Checkpoint {spec.name}: its tokenizer cannot be loaded: {cause} To mend it, {COPY.format(spec.path)}."
        ) from error


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _is_special(tokenizer: Any, number: int) -> bool:
    token = tokenizer.added_tokens_decoder.get(number)
    return bool(token is not None and token.special) and number not in (tokenizer.bos_token_id, tokenizer.eos_token_id)


def _count(tokens: Collection[str]) -> str:
    return f"{len(tokens)} token{'s' * (len(tokens) > 1)}"


def _code(token: object) -> str:
    return "none" if token is None else f"`{repr(token)[1:-1]}`"


def _few(tokens: Sequence[str]) -> str:
    return ", ".join(map(_code, tokens[:SHOWN])) + (", …" if len(tokens) > SHOWN else "")


def _requests(task: PlannedTask) -> Sequence[ModelRequest]:
    """Return a few of a task's requests, taken from all over its items; none where its data are out of reach."""
    if not task.data:
        return []
    kind, items = task.build()
    return kind.requests(items[:: max(1, len(items) // COMPARED)][:COMPARED])


def _encoded(encoder: Encoder, request: ModelRequest) -> list[int]:
    """Return the tokens of a request, its choices or texts behind each other."""
    if isinstance(request, GenerationRequest):
        return encoder.asked(request)
    return [token for head, tail in encoder.given(request) for token in (*head, *tail)]

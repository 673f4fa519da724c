"""The published TRuST toxicity classifier: BERT with a linear layer on the CLS vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ...harness.errors import UserError, first_line
from ...harness.specs import identity
from ..base import Scorer, ScorerSettings, scorers
from ._texts import check_tokenizer, folder_of, in_batches, read_json

WEIGHTS = "toxicity_classifier.pth"
BASE = "bert-base-uncased"
AGAIN = "Download it again, or pass another scorer with --scorer."


class TrustSettings(ScorerSettings):
    """What is said of weights in this layout that were fitted to other labels."""

    label: Literal[0, 1] = identity(1, description="the toxic one of the two labels")


@scorers.register("trust")
class Trust(Scorer):
    """Classifier in the layout of `berkatil/TRuST_toxicity_classifier`.

    The folder holds `toxicity_classifier.pth`, a state dict of `embedder.*` (BertModel) and `dense.*` (two labels, 1 is
    toxic). `config.json` (BertConfig) and a tokenizer may lie beside it; without them they are bert-base-uncased's.
    Texts are cut at the length BERT takes; padding is masked. A state dict names no labels: where a plan finds that it
    ranks rude sentences below plain ones, `label` says that it is 0.
    """

    summary = "the TRuST toxicity classifier: BERT and a linear layer, label 1 is toxic"
    version = 1
    Settings: ClassVar[type[ScorerSettings]] = TrustSettings
    reversed_labels = "its other label is the toxic one: --set scorer.label=0, or 1 where 0 was said"

    def __init__(self, folder: str, device: str = "cpu", settings: TrustSettings | None = None) -> None:
        """Load the classifier.

        Raises:
            UserError: a file is missing or unreadable, or the weights are not those of this layout.
        """
        from transformers import BertConfig, BertModel

        from ...harness.models.linear import use_onednn

        place = folder_of(folder, WEIGHTS)
        self.label = (settings or TrustSettings()).label
        state = _read(place / WEIGHTS)
        config = BertConfig(**read_json(place / "config.json")) if (place / "config.json").is_file() else BertConfig()
        self.device = device
        self.dense = _dense(state, config.hidden_size)
        self.embedder: Any = BertModel(config)
        _fill(self.embedder, state)
        self.dense.to(device).eval()
        self.embedder.to(device).eval()
        use_onednn(self.embedder)
        self.tokenizer = _tokenizer(place)
        self.limit = int(config.max_position_embeddings)
        check_tokenizer(self.tokenizer, config.vocab_size, folder)

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the probability of the toxic label of each text, rounded to six digits."""
        return in_batches(texts, self.tokenizer, self.limit, self._toxic)

    def _toxic(self, inputs: dict[str, Any]) -> Sequence[float]:
        import torch

        with torch.inference_mode():
            hidden = self.embedder(**{name: value.to(self.device) for name, value in inputs.items()}).last_hidden_state
            return self.dense(hidden[:, 0]).double().softmax(-1)[:, self.label].tolist()


def _read(file: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{file} is no state dict that can be loaded with weights only: {first_line(error)} {AGAIN}"
        ) from error
    wrong = state if not isinstance(state, Mapping) else [key for key in state if not _known(key)]
    if not isinstance(state, Mapping) or wrong:
        raise UserError(f"{file} must hold a state dict of embedder.* and dense.*; it has {str(wrong)[:120]}. {AGAIN}")
    return {key: value.float() for key, value in state.items()}


def _known(key: Any) -> bool:
    return isinstance(key, str) and key.startswith(("embedder.", "dense."))


def _dense(state: Mapping[str, Any], hidden: int) -> Any:
    from torch import nn

    weight, bias = state.get("dense.weight"), state.get("dense.bias")
    if weight is None or bias is None:
        raise UserError(f"{WEIGHTS} has no dense.weight and dense.bias. {AGAIN}")
    if tuple(weight.shape) != (2, hidden) or tuple(bias.shape) != (2,):
        raise UserError(
            f"{WEIGHTS}: dense is {tuple(weight.shape)}, but two labels on {hidden} hidden units, (2, {hidden}), are"
            " needed; check config.json."
        )
    dense = nn.Linear(hidden, 2)
    dense.load_state_dict({"weight": weight, "bias": bias})
    return dense


def _fill(embedder: Any, state: Mapping[str, Any]) -> None:
    """Load BERT's weights. The pooler is not used and may be absent; old files also list `position_ids`."""
    ours = embedder.state_dict()
    given = {key.removeprefix("embedder."): value for key, value in state.items() if key.startswith("embedder.")}
    given = {key: value for key, value in given.items() if not key.endswith("position_ids")}
    missing = [key for key in ours if key not in given and not key.startswith("pooler.") and "_ids" not in key]
    unknown = [key for key in given if key not in ours]
    if missing or unknown:
        problem, key = ("lacks", missing[0]) if missing else ("has an unknown", unknown[0])
        raise UserError(f"{WEIGHTS} {problem} embedder.{key}: it is not the BERT of its config.json. {AGAIN}")
    for key, value in given.items():
        if value.shape != ours[key].shape:
            raise UserError(
                f"{WEIGHTS}: embedder.{key} is {tuple(value.shape)}, but {tuple(ours[key].shape)} by config.json;"
                " put the config.json of these weights there."
            )
    embedder.load_state_dict(given, strict=False)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    has = {name: (folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt")}
    source = str(folder) if any(has.values()) else f"{BASE} of the hub"
    try:
        if has["tokenizer_config.json"]:
            return AutoTokenizer.from_pretrained(str(folder))
        if has["tokenizer.json"]:
            return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
        if has["vocab.txt"]:
            return BertTokenizer.from_pretrained(str(folder))
        return AutoTokenizer.from_pretrained(BASE)
    except Exception as error:
        raise UserError(
            f"The scorer's tokenizer ({source}) cannot be loaded: {first_line(error)} Put its files into {folder}."
        ) from error

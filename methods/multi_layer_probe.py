"""Multi-layer probe unlearning (eq. 6 of arXiv 2605.26454).

    eq. 6   L_F = mean over forget texts x of the sum over layers i in I of (h_i(x)[-1] . w_i)^2
    eq. 5   L_R = mean over tokens of the retain text of 1 - cos(h_i(t), h_i^frozen(t)), averaged over I
            L   = L_F + alpha * L_R, alpha by REINFORCE as in cosine-meta RMU: see `reinforce.py`

w_i is the direction of an L2-regularised logistic regression on the frozen model's last-token hidden states of labelled
text: toxic against neutral, or forget against retain text where a track has no labels.

Readings: [-1] is the last *real* token, of a question and its answer that of the answer, or the end token behind it;
L_R is over all real tokens of both. Features are standardised for the fit; the direction is mapped back to the raw
space (divided by the features' standard deviations) and scaled to norm 1, and the intercept is dropped, so L_F pulls
h . w to 0. The formula sums over layers, the text says averaging: `over_layers`, sum by default. I is three early,
three middle and three late layers: the middles of nine equal parts of the depth. The paper does not say which
parameters train: `mlp.down_proj.weight` of the layers in I, as in the RMU family.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, Context, Depth, Range, Tokens, register
from .reinforce import AlphaMethod, AlphaSettings
from .representation import cosine_distance, last_token, mean_token, nine_layers

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Layers: TypeAlias = dict[int, np.ndarray]
Labelled: TypeAlias = Sequence[tuple[Tokens, np.ndarray]]
FOLDS = 0
"""Seed of the folds: the probes of a model and a text are the same for all training seeds."""


class MultiLayerProbeSettings(AlphaSettings):
    """Settings of multi-layer probe unlearning."""

    layers: tuple[int, ...] | None = Field(None, min_length=1, description="I; None: nine layers by the model's depth")
    parameters: tuple[str, ...] = Field(("mlp.down_proj.weight",), description="names within a decoder layer")
    over_layers: Literal["sum", "mean"] = Field("sum", description="of L_F: the paper's formula, or its text")
    probe_c: float = Field(1.0, gt=0, description="inverse strength of the probes' L2 regularisation")
    probe_texts: int = Field(4000, ge=8, description="at most this many labelled texts, half of either label")
    labels: Literal["given", "shuffled"] = Field("given", description="shuffled: a control, probes of nothing")


@register("multi_layer_probe")
class MultiLayerProbe(AlphaMethod):
    """Take the direction that tells forget from other text out of the hidden states of many layers."""

    Settings = MultiLayerProbeSettings
    version = 2
    citation = "Atil, Gupta, Passonneau 2026 (arXiv 2605.26454), eq. 5 and 6"
    summary = "remove the directions of linear probes at nine layers, alpha learned"
    family = "steering"
    status = "reading"
    search: ClassVar[Mapping[str, Range | Depth]] = {"alpha_0": Range(0.1, 100.0)}
    log_schema: ClassVar[Mapping[str, LogRole]] = {
        **AlphaMethod.log_schema,
        "forget_layer_{layer}": "layer_loss",
        "probes": "directions",
    }
    settings: MultiLayerProbeSettings

    def trained(self, context: Context) -> list[str]:
        """Return the parameters of the layers in I."""
        layers = self.watched(context)
        return [name for parameter in self.settings.parameters for name in context.layer_parameters(layers, parameter)]

    def watched(self, context: Context) -> list[int]:
        """Return I, ascending."""
        chosen = self.settings.layers
        return nine_layers(context.layers) if chosen is None else sorted(set(chosen))

    def setup(self, context: Context) -> None:
        """Fit the probes on the frozen model, start the policy of alpha."""
        batches = context.labelled(self.settings.probe_texts)
        labels = np.concatenate([part for _, part in batches])
        if self.settings.labels == "shuffled":
            labels = context.rng.permutation(labels)
        key = ("probes", _digest(batches, labels), tuple(self.watched(context)), self.settings.probe_c)
        self.auc, directions = context.memo(key, lambda: self._fit(context, batches, labels))
        self.w = {
            layer: torch.tensor(direction, dtype=torch.float32, device=context.device)
            for layer, direction in directions.items()
        }
        self.start_alpha(context)

    def forget_loss(self, h: Mapping[int, Tensor], batch: Batch) -> Tensor:
        """Return L_F (eq. 6)."""
        projections = [last_token(h[layer], batch.forget.last).float() @ w for layer, w in self.w.items()]
        squares = torch.stack(projections).square()  # (layers, batch)
        self._by_layer = squares.detach().mean(1)
        return (squares.sum(0) if self.settings.over_layers == "sum" else squares.mean(0)).mean()

    def retain_loss(self, h: Mapping[int, Tensor], frozen: Mapping[int, Tensor], mask: Tensor) -> Tensor:
        """Return L_R (eq. 5), averaged over the layers in I."""
        return torch.stack([cosine_distance(h[layer], frozen[layer], mask) for layer in self.w]).mean()

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over what the losses are means: L_F over texts, L_R over tokens."""
        return {"forget": len(batch.forget.ids), "retain": batch.retain.mask.sum()}

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what alpha's policy logs, and each layer's part of L_F before the step."""
        by_layer = dict(zip(self.w, self._by_layer.tolist(), strict=True))
        return super().after_step(batch, losses) | {f"forget_layer_{layer}": loss for layer, loss in by_layer.items()}

    def log_setup(self) -> dict[str, Any]:
        """Return each layer's held-out AUC on last-token and on mean-pooled states, L_Rref, and what the probes are."""
        auc = {str(layer): auc for layer, auc in self.auc.items()}
        return {**super().log_setup(), "auc": auc, "probes": _described(self.w)}

    def _fit(self, context: Context, batches: Labelled, labels: np.ndarray) -> tuple[dict[int, Any], Layers]:
        """Return each layer's held-out AUC by pooling, and its direction."""
        last, mean = self._features(context, batches)
        probe = self._probe()
        with threadpool_limits(1):  # more threads would change the last bits, and be slower
            auc = {
                layer: {"last": _auc(probe, last[layer], labels), "mean": _auc(probe, mean[layer], labels)}
                for layer in last
            }
            return auc, {layer: _direction(probe, last[layer], labels) for layer in last}

    def _features(self, context: Context, batches: Labelled) -> tuple[Layers, Layers]:
        """Return last-token and mean-pooled hidden states by layer, (texts, d)."""
        layers = self.watched(context)
        last: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        mean: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        for tokens, _ in batches:
            for layer, h in context.frozen_hidden(tokens, layers).items():
                last[layer].append(last_token(h, tokens.last).float().cpu())
                mean[layer].append(mean_token(h, tokens.mask).cpu())
        joined = [{layer: torch.cat(rows).double().numpy() for layer, rows in part.items()} for part in (last, mean)]
        return joined[0], joined[1]

    def _probe(self) -> Pipeline:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(C=self.settings.probe_c, max_iter=1000))


def _digest(batches: Labelled, labels: np.ndarray) -> str:
    """Return a digest of labelled texts in their batches."""
    content = hashlib.sha256(np.asarray(labels).tobytes())
    for tokens, _ in batches:
        content.update(repr(tuple(tokens.ids.shape)).encode())
        for part in (tokens.ids, tokens.mask):
            content.update(part.cpu().numpy().tobytes())
    return content.hexdigest()


def _auc(probe: Pipeline, features: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the held-out AUC, mean over at most five folds, or None where a label has only one text."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    splits = min(5, int(np.bincount(labels).min()))
    if splits < 2:
        return None
    folds = StratifiedKFold(splits, shuffle=True, random_state=FOLDS)
    return float(cross_val_score(probe, features, labels, cv=folds, scoring="roc_auc").mean())


def _direction(probe: Pipeline, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probe's direction in the raw space, unit norm, (d,)."""
    scaler, regression = probe.fit(features, labels).named_steps.values()
    raw = regression.coef_[0] / scaler.scale_
    return raw / np.linalg.norm(raw)


def _described(w: Mapping[int, Tensor]) -> dict[str, Any]:
    """Return the cosine of every two layers' directions, and how often their weights fall into each bin.

    A weight is counted as a multiple of 1 / sqrt(d), the root mean square of a unit vector's; the outer bins hold what
    lies beyond them.
    """
    directions = torch.stack(list(w.values())).double().cpu().numpy()
    edges = np.linspace(-4, 4, 33)
    scaled = np.clip(directions * np.sqrt(directions.shape[1]), edges[0], edges[-1])
    return {
        "layers": list(w),
        "cosines": (directions @ directions.T).round(4).tolist(),
        "edges": edges.tolist(),
        "counts": [np.histogram(row, edges)[0].tolist() for row in scaled],
    }

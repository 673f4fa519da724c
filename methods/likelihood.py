"""Methods of token likelihoods: what they train, how they hold the retain text, and the mathematics that they share.

What counts is `Tokens.counted`: of a document every token but the first, of a question and its answer the answer's
tokens. Log-probabilities are (batch, length - 1), float32, zero where nothing counts, as `Context.logprobs` gives them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, Context, Depth, LoRA, Method, MethodSettings, Range, Tokens


class LikelihoodSettings(MethodSettings):
    """What trains: all parameters, as in most of these papers, those of some layers, or a LoRA."""

    parameters: Literal["all", "lora"] = Field("all", description="all parameters, or low-rank changes of matrices")
    layers: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="decoder layers that train; None: all, with embeddings, norms and head for `all`",
    )
    lora_rank: int = Field(32, ge=1, description="rank of LoRA")
    lora_alpha: float = Field(64.0, gt=0, description="LoRA's alpha; the change is scaled by alpha / rank")
    lora_targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="matrices by name within a decoder layer; None: all of them"
    )


class RetainSettings(LikelihoodSettings):
    """How the retain text is held."""

    retain: Literal["none", "nll", "kl"] = Field(
        "nll", description="mean NLL of retain text, mean KL(frozen || trained) of its next tokens, or no such term"
    )
    retain_weight: float = Field(1.0, ge=0, description="lambda, weight of the retain loss")


class UnheldSettings(RetainSettings):
    """The same where the source does not hold the retain text."""

    retain: Literal["none", "nll", "kl"] = Field(
        "none", description="no retain term, mean NLL of retain text, or mean KL(frozen || trained) of its next tokens"
    )


class LikelihoodMethod(Method):
    """A method that trains all parameters, those of some layers, or a LoRA; settings: `LikelihoodSettings`."""

    family = "likelihood"

    def trained(self, context: Context) -> list[str]:
        """Return the parameters, or LoRA's matrices, of the chosen layers."""
        s: LikelihoodSettings = self.settings
        if s.parameters == "lora" and s.lora_targets is not None:
            layers = range(context.layers) if s.layers is None else s.layers
            return [name for target in s.lora_targets for name in context.layer_parameters(layers, target)]
        return context.parameters(s.layers, matrices=s.parameters == "lora")

    def lora(self) -> LoRA | None:
        """Return rank and scale where low-rank changes train."""
        s: LikelihoodSettings = self.settings
        return LoRA(s.lora_rank, s.lora_alpha) if s.parameters == "lora" else None

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return the predicted tokens of forget and retain text, over which losses are means unless one says so."""
        return {"forget": predicted(batch.forget), "retain": predicted(batch.retain)}


class LanguageModelling(LikelihoodMethod):
    """Plain fine-tuning: the mean negative log-likelihood (nats a token) of the batch's forget text is minimised."""

    Settings = LikelihoodSettings
    version = 1
    citation = "Bengio et al. (2003), A Neural Probabilistic Language Model"
    summary = "language modelling"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss."""
        return {"forget": nll(self.context, batch.forget)}


class RetainMethod(LikelihoodMethod):
    """One with a forget loss of its own and a common retain term: L_F + lambda * L_R; settings: `RetainSettings`."""

    search: ClassVar[Mapping[str, Range | Depth]] = {"retain_weight": Range(0.1, 10.0)}

    @abstractmethod
    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F of forget text."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and, where the retain text is held, L_R."""
        s: RetainSettings = self.settings
        losses = {"forget": self.forget_loss(batch)}
        if s.retain != "none":
            losses["retain"] = (nll if s.retain == "nll" else kl)(self.context, batch.retain)
        return losses

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return L_F + lambda * L_R."""
        return losses["forget"] + self.settings.retain_weight * losses.get("retain", 0.0)


def predicted(tokens: Tokens) -> Tensor:
    """Return the number of predicted tokens of a batch that count."""
    return tokens.counted.sum()


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that a mask counts, (batch, length) to a scalar; 0 where it counts none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def nll(context: Context, tokens: Tokens) -> Tensor:
    """Return the mean negative log-likelihood of a token that counts."""
    return -token_mean(context.logprobs(tokens), tokens.counted)


def kl(context: Context, tokens: Tokens) -> Tensor:
    """Return the mean over tokens that count of KL(frozen || trained) of the distributions they are predicted by."""
    frozen, trained = (
        logits[:, :-1].float().log_softmax(-1) for logits in (context.frozen_logits(tokens), context.logits(tokens))
    )
    return token_mean(F.kl_div(trained, frozen, reduction="none", log_target=True).sum(-1), tokens.counted)

"""Keys and values of continuations on a CPU: grown in place, and read by the heads that share them without copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ROOM = 32
"""Positions that a layer's keys and values are given at a time."""


class RoomyLayer(DynamicLayer):
    """A cache layer with room after its keys and values, so that a step does not copy all of them."""

    room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put keys and values, [rows, heads, new positions, width], after those kept and return all."""
        if self.keys is None or self.values is None:
            return super().update(key_states, value_states, *args, **kwargs)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.room is None or end > self.room[0].shape[-2]:
            self.room = _with_room(self.keys, end + ROOM), _with_room(self.values, end + ROOM)
        keys, values = self.room
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        super().batch_select_indices(indices)
        self.room = None


def give_room(cache: Any) -> None:
    """Let the plain layers of a filled cache, or of both of a pair, grow in place."""
    if isinstance(cache, tuple):
        for one in cache:
            give_room(one)
    elif type(cache) is DynamicCache:
        for layer in cache.layers:
            if type(layer) is DynamicLayer:
                layer.__class__ = RoomyLayer


@contextmanager
def grouped_attention() -> Iterator[None]:
    """Let models with transformers' `sdpa` attention read shared keys and values where they lie."""
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _grouped
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = own


def _grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *args: Any,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend with the query heads that share a key as further positions of one head; see `sdpa_attention_forward`.

    query: [rows, heads, positions, width]; key, value: [rows, shared heads, all positions, width]. Where the mask
    does not say everything (it is causal by a flag, or of heads of their own), transformers' own function answers.
    """
    rows, heads, length, width = query.shape
    shared = key.shape[1]
    plain = more.get("position_bias") is None and more.get("cache") is None and not args
    masked = length == 1 if attention_mask is None else attention_mask.shape[1] == 1
    if heads == shared or not plain or not masked or more.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, *args, **more)
    groups = heads // shared
    mask = attention_mask if attention_mask is None or length == 1 else attention_mask.repeat(1, 1, groups, 1)
    merged = query.reshape(rows, shared, groups * length, width)
    out = scaled_dot_product_attention(merged, key, value, attn_mask=mask, scale=more.get("scaling"))
    return out.reshape(rows, heads, length, -1).transpose(1, 2).contiguous(), None


def _with_room(kept: torch.Tensor, positions: int) -> torch.Tensor:
    roomy = kept.new_empty(*kept.shape[:2], positions, kept.shape[-1])
    roomy[:, :, : kept.shape[-2]] = kept
    return roomy

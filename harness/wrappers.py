"""Methods that work at decoding time, on engines that cannot run them: refused or left out before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..methods.base import methods
from .engines.base import engines
from .errors import UserError
from .suite import VariantSpec

Variants = Mapping[str, Mapping[str, VariantSpec]]
"""By track and name."""


def runnable(variants: Variants, asked: Collection[str], engine: str) -> tuple[Variants, list[str]]:
    """Return the variants that an engine runs, and a note for each method that `all` leaves out.

    No part of the engine is loaded or need be installed.

    Raises:
        UserError: the engine cannot run a method that was asked for by name.
    """
    if engines.get(engine).wrappers:
        return variants, []
    at_decoding = {
        variant.method
        for group in variants.values()
        for variant in group.values()
        if methods.get(variant.method).changes == "decoding"
    }
    for name in sorted(at_decoding):
        if "all" not in asked or name in asked:
            raise UserError(
                f"Method {name} works at decoding time; engine {engine} cannot run it: pass --engine transformers, or"
                f" leave {name} out of --methods."
            )
    left = {
        track: {label: variant for label, variant in group.items() if variant.method not in at_decoding}
        for track, group in variants.items()
    }
    notes = [
        f"{name} is left out: it works at decoding time, which engine {engine} cannot run"
        for name in sorted(at_decoding)
    ]
    return left, notes

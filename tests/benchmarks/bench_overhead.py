"""What a run on `micro` costs beside the models' own arithmetic: processor time of one process and thread.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_overhead.py [METHOD…]

Model compute is what passes inside a model's forward, autograd, a method's losses, the optimiser's step, the fit of a
probe and sampling; everything else (imports, planning, tokens, batches, hooks, files, statistics, boards, reports) is
the harness. Without methods the paper's four.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

STARTED = time.process_time()

import torch  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402
from unlearn_bench.harness import Request, evaluate  # noqa: E402
from unlearn_bench.harness.engines import transformers as transformers_engine  # noqa: E402
from unlearn_bench.harness.training.context import ModelContext  # noqa: E402
from unlearn_bench.methods.base import methods  # noqa: E402

HARNESS = "harness"
FOUR = ("adap_rmu", "cosine_meta_rmu", "multi_layer_probe", "rmu")


class Clock:
    """Adds up processor time inside of functions; what passes in a watched one inside of another is the inner one's."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._labels: list[str] = []
        self._since = 0.0

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Count what passes in an attribute of a class or module from now on."""
        setattr(owner, name, self._timed(getattr(owner, name), label))

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._labels.append(label)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._labels.pop()

        return timed

    def _turn(self) -> None:
        now = time.process_time()
        if self._labels:
            self.spent[self._labels[-1]] += now - self._since
        self._since = now


def main(arguments: Sequence[str]) -> None:
    """Run the methods on both tracks, and print where the time went."""
    imported = time.process_time() - STARTED
    clock = Clock()
    clock.watch(PreTrainedModel, "__call__", "forward passes")
    clock.watch(torch.autograd, "grad", "gradients")
    clock.watch(torch.nn.utils, "clip_grad_norm_", "gradients")
    clock.watch(torch.optim.AdamW, "step", "optimiser")
    clock.watch(Pipeline, "fit", "probes")
    clock.watch(transformers_engine, "sample", "sampling")
    profile = cProfile.Profile() if "--profile" in arguments else None
    asked = Request(methods=tuple(name for name in arguments if name != "--profile") or FOUR)
    for name in asked.methods:
        clock.watch(methods.get(name), "losses", "losses")
    for name in ("batch", "hidden", "frozen_hidden", "logits", "frozen_logits"):
        clock.watch(ModelContext, name, HARNESS)
    with tempfile.TemporaryDirectory() as folder:
        if profile is not None:
            profile.enable()
        evaluate(asked, output=Path(folder), executor="inline")
        if profile is not None:
            profile.disable()
    whole = time.process_time() - STARTED
    clock.spent.pop(HARNESS, None)
    compute = sum(clock.spent.values())
    for label, seconds in sorted(clock.spent.items(), key=lambda pair: -pair[1]):
        print(f"{label:15} {seconds:6.1f} s  {seconds / whole:5.1%}")
    print(f"{HARNESS:15} {whole - compute:6.1f} s  {(whole - compute) / whole:5.1%}, imports {imported:.1f} s of it")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main(sys.argv[1:])

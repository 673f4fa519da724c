"""The doctor: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .errors import UserError

PACKAGES = ("torch", "transformers", "lm-eval", "datasets", "scikit-learn", "scipy", "pandas")


def checks(output: Path, data_root: Path | None) -> list[dict[str, Any]]:
    """Run every check; each says what it looked at, whether it is needed, and what it found."""
    looked = [
        _check("python", True, lambda: f"{sys.version.split()[0]}"),
        *(_check(name, True, lambda name=name: version(name)) for name in PACKAGES),
        _check("processor", True, _processor),
        _check("GPU", False, _gpu),
        _check("suite micro", True, _micro),
        _check("output folder", True, lambda: _writable(output)),
        _check("data folder", False, lambda: _data(data_root)),
        _check("engine transformers", True, lambda: f"usable, {version('transformers')}"),
        _check("engine vllm", False, _vllm),
        _check("hub", False, _hub),
    ]
    return [*looked, *_broken()]


def _check(what: str, needed: bool, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"what": what, "ok": True, "needed": needed, "says": look()}
    except PackageNotFoundError:
        return {"what": what, "ok": False, "needed": needed, "says": f"not installed; `pip install {what}`"}
    except (UserError, OSError, ImportError) as error:
        return {"what": what, "ok": False, "needed": needed, "says": str(error)}


def _processor() -> str:
    import torch

    return f"{len(os.sched_getaffinity(0))} usable cores, torch {torch.__version__}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise UserError("none; models of 7-8B need one, the suite micro does not")
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _micro() -> str:
    from .planning import Request, make_plan

    plan = make_plan(Request(), None)
    return f"revision {plan.suite.revision}, {len(plan.cells)} cells, {sum(t.count for t in plan.tasks.values())} items"


def _writable(output: Path) -> str:
    parent = next(folder for folder in (output, *output.resolve().parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"{output} cannot be written; pass another folder with --output")
    return f"{output} can be written"


def _data(data_root: Path | None) -> str:
    if data_root is None:
        raise UserError("none given; pass --data-root DIR or set UNLEARN_BENCH_DATA to run on real data")
    if not data_root.is_dir():
        raise UserError(f"{data_root} does not exist")
    return f"{data_root}: {', '.join(sorted(path.name for path in data_root.iterdir() if path.is_dir())) or 'empty'}"


def _vllm() -> str:
    if importlib.util.find_spec("vllm") is None:
        raise UserError("not installed; `pip install unlearn-bench[vllm]` on a GPU machine")
    raise UserError("installed, but this version has no vLLM engine yet; transformers is used")


def _hub() -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise UserError("switched off by HF_HUB_OFFLINE; only local folders can be used")
    try:
        HfApi().model_info("gpt2", timeout=5)
    except Exception as error:
        raise UserError(f"not reachable ({type(error).__name__}); only local folders can be used") from error
    return "reachable"


def _broken() -> list[dict[str, Any]]:
    from .inventory import REGISTRIES

    found = []
    for registry in REGISTRIES.values():
        registry.names()
        found += [
            {"what": source, "ok": False, "needed": False, "says": f"cannot be loaded: {cause}"}
            for source, cause in registry.broken.items()
        ]
    return found

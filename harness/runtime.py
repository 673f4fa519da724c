"""How jobs run: where, on what, and what is recorded beside a result."""

from __future__ import annotations

import logging
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

PROJECT = __name__.partition(".")[0]
"""The logger above all of the project's."""
BOARD_SEED = 0
"""With what boards' methods are trained, unless other seeds are asked for."""
TUNING_SEED = 1000
"""With what a study's trials are trained: no board has it unless asked, so settings are not fitted to its draws."""


@dataclass(frozen=True)
class Event:
    """Progress of a job: `done` of `total` steps or items of a stage."""

    label: str
    stage: str
    done: int
    total: int


OnEvent = Callable[[Event], None]
CPU_INFO = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
KERNEL_VARIABLES = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
)
"""Variables of the environment with which other kernels compute; torch's own shows in its capability."""
UNKNOWN = "unknown"
"""What is said of a fact that was not recorded."""
COSTS = ("seconds", "peak_memory_mib", "peak_gpu_memory_mib")
"""What is recorded of a job's time and memory; the last is absent where no GPU was used."""
PEAK, UNIFORM = "peak_nats", "uniform_nats"
"""In the summary of a training by ascent: the largest loss of the forget text, nats a token, and ln |V|."""
CUT = "answers_cut"
"""In the summary of a training: by corpus its number of `answers`, of those `cut` off and of those `lost` whole."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a user wants a run to go; no say in any result but through what is recorded.

    Attributes:
        executor: what runs the jobs, by its registered name.
        address: of the cluster whose machines run them (executor `ray`).
        workers: jobs at once; None: as many as fit.
        device: `cpu`, `cuda` or `auto`.
        batch_size: sequences that are evaluated together; in half precision answers follow it.
        checkpointing: train with less memory and the same results, from the start instead of where memory ends.
        time_limit: seconds that a job may take, after which it is ended and has failed; None: no limit.
        verify_inputs: read every file of models, checkpoints and scorers again to know its digest.
    """

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    device: str = "auto"
    batch_size: int = 64
    checkpointing: bool = False
    time_limit: float | None = None
    verify_inputs: bool = False


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunOptions):
    """The options of a run as its jobs get them: `device` is one that is there.

    Attributes:
        store: folder of the store.
        threads: of each worker.
        engine_options: what the engine is started with.
        memory: bytes of main memory that a worker takes, by the digest of its model; empty where nobody needs to know.
        classes: methods and tasks that a worker cannot know, of `planning.classes.pack`.
        log_level: the least that a worker sends on of what it logs.
    """

    store: Path
    threads: int
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    log_level: int = logging.WARNING


def environment_facts(config: RunConfig) -> dict[str, Any]:
    """Return what makes results here: threads, versions, machine, and a GPU's where one is used."""
    import torch
    import transformers

    on_gpu = config.device != "cpu"
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(config.device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "blas": blas(),
        "kernels": chosen_kernels(),
        **(gpu_facts() if on_gpu else {}),
    }


@cache
def processor() -> str:
    """Return the model of the processor as Linux calls it: its name, or its maker's numbers where it has none."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or UNKNOWN
    lines = [line.partition(":") for line in text.split("\n\n")[0].splitlines()]
    facts = {key.strip().lower(): " ".join(value.split()) for key, _, value in lines}
    numbers = [f"{key} {facts[f'cpu {key}']}" for key in ("family", "implementer", "part") if f"cpu {key}" in facts]
    numbers += [f"model {facts['model']}"] if facts.get("model", "").isdigit() else []
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({' '.join(numbers)})" if numbers else name


@cache
def blas() -> str:
    """Return the libraries that multiply matrices: torch's by its build, numpy's as it is loaded."""
    import torch

    built = torch.__config__.show()
    kind = re.search(r"BLAS_INFO=(\w+)", built)
    mkl = re.search(r"Math Kernel Library Version ([\d.]+)", built)
    onednn = re.search(r"(?:MKL-DNN|oneDNN) v([\d.]+)", built)
    names = [f"{kind[1] if kind else UNKNOWN}{f' {mkl[1]}' if mkl else ''}"]
    return " + ".join([*names, *([f"oneDNN {onednn[1]}"] if onednn else []), *_numpy_blas()])


def _numpy_blas() -> list[str]:
    import numpy as np
    from threadpoolctl import threadpool_info

    folder = str(Path(np.__file__).parent)
    libraries = [library for library in threadpool_info() if library["filepath"].startswith(folder)]
    return [
        f"numpy {lib['internal_api']} {lib['version']} {lib.get('architecture') or ''}".strip() for lib in libraries
    ]


def chosen_kernels() -> str:
    """Return the variables by which a user chose other kernels than the libraries would, `automatic` without any."""
    return " ".join(f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if os.environ.get(name)) or "automatic"


def gpu_facts() -> dict[str, Any]:
    """Return a GPU's driver, CUDA, cuDNN and the attention kernels that torch may take."""
    import torch

    allowed = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return {
        "driver": _driver(),
        "cuda": torch.version.cuda or f"hip {torch.version.hip}",
        "cudnn": str(torch.backends.cudnn.version()),
        "attention_kernels": "+".join(name for name, enabled in allowed.items() if enabled),
    }


@cache
def _driver() -> str:
    try:
        version = re.search(r"Kernel Module\D*([\d.]+)", NVIDIA_DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return UNKNOWN
    return version[1] if version else UNKNOWN


def recorded_facts(config: RunConfig, started: float) -> dict[str, Any]:
    """Return what is kept beside a result: what made it, time and memory."""
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    on_gpu = config.device != "cpu"
    allocated = {"peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(config.device) / 2**20)} if on_gpu else {}
    return {
        **environment_facts(config),
        "interop_threads": torch.get_num_interop_threads(),
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mib": round(peak),
        **allocated,
    }


@contextmanager
def printing_to(log: IO[bytes]) -> Iterator[None]:
    """Send what this process prints, native code included, to a file; what it starts meanwhile prints there as well."""
    streams = {number: os.dup(number) for number in (1, 2)}
    for number in streams:
        os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in streams.items():
            os.dup2(before, number)
            os.close(before)

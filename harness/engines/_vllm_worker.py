"""What runs inside vLLM's worker processes: swapping tensors, and a leash to the process that started the engine.

vLLM imports this module by name in its workers; nothing else imports it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._moments import MOMENTS, vocabulary_moments

OWNER = "UNLEARN_BENCH_VLLM_OWNER"
"""The variable with the id of the process that the engine belongs to."""

Gather = Callable[..., Any]


class VLLMWorker:
    """Mixed into vLLM's own worker class (`worker_extension_cls`); called through `LLM.collective_rpc`."""

    model_runner: Any
    reload_weights: Any

    def ub_facts(self) -> dict[str, Any]:
        """Return the modules by name, which of them fuse which projections, the attention kernel and the threads."""
        model = self.model_runner.get_model()
        groups = getattr(self.model_runner, "attn_groups", None) or [[]]
        return {
            "modules": [
                name for name, module in model.named_modules() if next(module.parameters(False), None) is not None
            ],
            "packed": {name: list(parts) for name, parts in getattr(model, "packed_modules_mapping", {}).items()},
            "attention": groups[0][0].backend.get_name() if groups[0] else None,
            "threads": torch.get_num_threads(),
        }

    def ub_swap(self, sources: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Load the named tensors of each safetensors file into the running model.

        Of a weight that two modules share (tied embeddings), vLLM packs anew only the one that is loaded; a packed copy
        whose weight is kept is made again here.
        """
        from safetensors import safe_open

        weights = []
        for path, names in sources:
            with safe_open(path, "pt") as file:
                weights += [(name, file.get_tensor(name)) for name in names]
        self.reload_weights(weights_iterator=weights)
        for module in self.model_runner.get_model().modules():
            if hasattr(module, "cpu_linear") and module.weight.numel():
                module.quant_method.process_weights_after_loading(module)

    def ub_give_moments(self) -> None:
        """Give mean and variance over the vocabulary to prompts that ask for the two most probable tokens.

        They come back in the place of those, as the log-probabilities of `MOMENTS`, so that vLLM itself brings each to
        the request that it is of. Nothing else here asks for two tokens of a prompt.
        """
        sampler: Any = getattr(self.model_runner, "sampler", None)
        if hasattr(sampler, "gather_logprobs"):
            sampler.gather_logprobs = _with_moments(sampler.gather_logprobs, torch.nn.Identity())
        if "vllm.v1.worker.gpu.sample.prompt_logprob" in sys.modules:
            module: Any = sys.modules["vllm.v1.worker.gpu.sample.prompt_logprob"]
            module.compute_topk_scores = _with_moments(module.compute_topk_scores, _log_softmax)

    def ub_digest(self) -> str:
        """Return the sha256 of every tensor that the model computes with.

        On a processor vLLM keeps a linear layer's weight only in a packed form; it is read by what the layer makes of
        the identity, which is exact.
        """
        checksum = hashlib.sha256()
        for name, module in sorted(self.model_runner.get_model().named_modules()):
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            packed = getattr(module, "cpu_linear", None)
            if packed is not None:
                width = getattr(module, "input_size_per_partition", None) or module.embedding_dim
                eye = torch.eye(width, dtype=module.weight.dtype)
                tensors.append(("packed", packed(eye, module.weight, None)))
            for key, tensor in tensors:
                checksum.update(f"{name}.{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
                checksum.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return checksum.hexdigest()


def _with_moments(
    gather: Callable[..., Any], logprobs_of: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[..., Any]:
    """Return vLLM's function that gathers a prompt's log-probabilities, with moments in place of two tokens."""

    def gathered(scores: torch.Tensor, count: int, token_ids: torch.Tensor, *more: Any, **options: Any) -> Any:
        if count != len(MOMENTS):
            return gather(scores, count, token_ids, *more, **options)
        own = gather(scores, 0, token_ids, *more, **options)
        moments = torch.stack(vocabulary_moments(logprobs_of(scores)), 1).to(own.logprobs)
        places = own.logprob_token_ids.new_tensor(MOMENTS).expand(len(moments), -1)
        return own._replace(
            logprob_token_ids=torch.cat([own.logprob_token_ids, places], 1),
            logprobs=torch.cat([own.logprobs, moments], 1),
        )

    return gathered


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1)


def _leash(owner: int) -> None:
    """End the engine as soon as its owner is gone, however it went; vLLM itself would run on without it."""
    core = os.getpid() if os.getppid() == owner else os.getppid()
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(owner)], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(core, signal.SIGTERM)
        time.sleep(10)
        os.kill(core, signal.SIGKILL)
    os._exit(1)


if OWNER in os.environ:
    threading.Thread(target=_leash, args=(int(os.environ[OWNER]),), daemon=True).start()

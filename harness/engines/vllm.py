"""The engine on vLLM: paged attention and continuous batching, for generation and scoring at scale."""

from __future__ import annotations

import contextlib
import importlib
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import torch

from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest, TraceRequest
from ..errors import UserError
from ..models.fit import check_weights
from ..models.load import ModelSpec, described, load_tokenizer, model_folder, unreadable
from ..models.meta import meta_model, tied_names
from ..models.patch import check_delta, shapes_of
from ..models.weights import names_of, weight_files
from ..records import Choices, Generations, Trace, Traces
from ..rng import sampling_seed
from ..runtime import printing_to
from ._moments import MOMENTS
from ._requests import Draw, Generation, ScoredSequence, Scoring, Tracing
from ._tokens import Encoder
from ._vllm_host import check_build, environment, explain, installed, unusable, variables
from .base import Engine, Progress, recorded_batch, register

LONGEST = 8192
"""Tokens of a sequence that memory is set aside for, where the model takes more; `max_model_len` changes it."""
AT_ONCE = 8
"""Requests that are handed over together, as a multiple of the sequences that run side by side."""
TARGETS = 128
"""Tokens whose log-probability one request can ask for; vLLM's limit."""
REFUSED = ("quantization", "kv_cache_dtype", "dtype", "hf_overrides", "load_format", "enable_lora", "logits_processors")


@register("vllm")
class VLLMEngine(Engine):
    """Runs a causal language model in vLLM's own processes, with prefix caching.

    Choices that are one token each after a shared context take one request, which reads the prefix cache. A longer
    choice takes a request of its own, since the log-probabilities of its tokens are those of a prompt, and vLLM
    computes every one of a prompt's anew. Sampling noise is vLLM's, seeded by (decoding seed, item, sample): other
    texts than with transformers, from the same distribution.

    A delta is swapped into the running model and taken out again by the base's own tensors on disk, whole modules at a
    time (vLLM fuses q, k and v, and gate and up); then the prefix cache is emptied, since it holds keys and values of
    the tensors before.
    """

    summary = "vLLM on GPUs (or its CPU build): fast generation and scoring, prefix caching, tensor parallelism"
    tolerance = 1e-4
    alone = True
    traces = moments = True
    options: ClassVar[Mapping[str, str]] = {
        "tensor_parallel_size": "GPUs that share the model",
        "pipeline_parallel_size": "GPUs that hold the layers one after the other",
        "gpu_memory_utilization": "share of a GPU's memory that vLLM takes (0.8)",
        "kv_cache_memory_bytes": "bytes of the cache of keys and values, in place of a share",
        "max_model_len": "longest sequence in tokens; a longer prompt is an error, never cut",
        "max_num_seqs": "sequences side by side, in place of --batch-size",
        "max_num_batched_tokens": "tokens of a step",
        "cpu_offload_gb": "GiB of weights kept in the processor's memory",
        "block_size": "tokens of a block of the prefix cache",
        "enforce_eager": "no CUDA graphs: slower, less memory",
        "disable_custom_all_reduce": "plain communication between GPUs",
        "distributed_executor_backend": "mp or ray",
    }

    def __init__(
        self, model: ModelSpec, *, device: str = "cpu", batch_size: int = 64, options: Mapping[str, Any] | None = None
    ) -> None:
        from transformers import AutoConfig, GenerationConfig

        settings = {"max_num_seqs": batch_size, **(options or {})}
        self._batch_size = settings["max_num_seqs"]
        self.check_options("vllm", settings)
        check_build(device)
        self.spec, self.device = model, device
        folder = model_folder(model)
        self._files = _base_files(folder, model)
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            try:
                generation = GenerationConfig.from_pretrained(folder)
            except OSError:
                generation = GenerationConfig.from_model_config(config)
        except Exception as error:
            raise UserError(unreadable(model, error)) from error
        skeleton = meta_model(config.to_dict())
        self._shapes, self._names = shapes_of(skeleton), tied_names(skeleton)
        self.tokens = Encoder.of(load_tokenizer(model), config, chat=model.chat)
        self._ends = self.tokens.ends(generation)
        self._longest = settings.pop("max_model_len", min(self.tokens.max_length, LONGEST) + 1)
        self._at_once = AT_ONCE * int(settings["max_num_seqs"])
        self._sent: list[str] = []
        self._gives_moments = False
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        self._llm = self._start(folder, settings)
        self._facts = self._llm.collective_rpc("ub_facts")[0]

    @classmethod
    def unusable(cls) -> str | None:
        """Return why vLLM cannot run on this machine, without importing it."""
        return unusable()

    @classmethod
    def check_options(cls, name: str, options: Mapping[str, Any]) -> None:
        """Raise a `UserError` on an option that is unknown, or would change results."""
        for key in options:
            if key in REFUSED:
                raise UserError(f"Engine option {key!r} would change results, which options must not; leave it out.")
        super().check_options(name, options)

    def _start(self, folder: Path, options: Mapping[str, Any]) -> Any:
        """Start vLLM's processes; what they print goes to a log, whose first error is told where they do not start."""
        cpu = self.device == "cpu"
        arguments = {
            "dtype": self.spec.dtype,
            "max_model_len": self._longest,
            "enforce_eager": cpu,
            **({} if cpu else {"gpu_memory_utilization": 0.8}),
            **options,
        }
        try:
            with environment(variables(cpu, options)), printing_to(self._log):
                return importlib.import_module("vllm").LLM(
                    str(folder),
                    skip_tokenizer_init=True,
                    trust_remote_code=False,
                    generation_config="vllm",
                    enable_prefix_caching=True,
                    logprobs_mode="raw_logprobs",
                    seed=0,
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    worker_extension_cls=f"{__package__}._vllm_worker.VLLMWorker",
                    **arguments,
                )
        except Exception as error:
            raise UserError(f"vLLM does not start: {explain(self._log, error)}") from error

    def close(self) -> None:
        """End vLLM's processes."""
        if not self.closed:
            super().close()
            self._llm.llm_engine.engine_core.shutdown()
            self._log.close()

    def apply(self, delta: Mapping[str, torch.Tensor]) -> None:
        """Swap a checkpoint's tensors into the running model; a delta that is still there is taken out first."""
        self.restore()
        check_delta(self.spec.name, self._shapes, delta)
        changed: dict[str, torch.Tensor] = {}
        for name, tensor in delta.items():
            stored = next((other for other in self._names[name] if other in self._files), None)
            if stored is None:
                raise UserError(f"vLLM cannot swap {name!r}, which no weight file holds; use --engine transformers.")
            changed[stored] = tensor
        whole = self._whole(changed)
        if not changed:
            return
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory() as temporary:
            file = f"{temporary}/delta.safetensors"
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in changed.items()}, file)
            self._sent = whole
            self._swap([(file, list(changed)), *self._from_disk(name for name in whole if name not in changed)])

    def restore(self) -> None:
        """Put the base model's tensors back, bit by bit."""
        if self._sent and not self.closed:
            self._swap(self._from_disk(self._sent))
        self._sent = []

    def _whole(self, names: Mapping[str, Any]) -> list[str]:
        """Return the names of every tensor of vLLM's modules that hold the named ones: what must be sent together."""
        fused = {part: (whole, parts) for whole, parts in self._facts["packed"].items() for part in parts}
        modules, wanted = set(self._facts["modules"]), set()
        for name in names:
            path, _, last = name.rpartition(".")[0].rpartition(".")
            whole, parts = fused.get(last, (last, [last]))
            if f"{path}.{whole}".lstrip(".") not in modules:
                raise UserError(f"vLLM cannot swap {name!r} into its own layout; use --engine transformers.")
            wanted |= {f"{path}.{part}".lstrip(".") for part in parts}
        return [name for name in self._files if name.rpartition(".")[0] in wanted]

    def _from_disk(self, names: Iterator[str] | Sequence[str]) -> list[tuple[str, list[str]]]:
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        return list(by_file.items())

    def _swap(self, sources: list[tuple[str, list[str]]]) -> None:
        with self._alive():
            self._llm.collective_rpc("ub_swap", args=(sources,))
            self._forget_prefixes()

    def _forget_prefixes(self) -> None:
        """Empty the prefix cache: its keys and values belong to the tensors before."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache, whose numbers would be stale")

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Close the engine where vLLM fails, so that the next job gets a new one."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            cause = explain(self._log, error)
            self.close()
            raise UserError(f"vLLM failed: {cause}", status=1) from error

    def score_choices(self, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> list[Choices]:
        """Return the log-probabilities (nats) of each request's choices; see `Engine.score_choices`."""
        scoring = Scoring(self.tokens, requests, progress)
        rows = [
            ScoredSequence(row.tokens, row.targets[start : start + TARGETS])
            for row in sorted(scoring.rows, key=lambda row: len(row.tokens), reverse=True)
            for start in range(0, len(row.targets), TARGETS)
        ]
        for start in range(0, len(rows), self._at_once):
            batch = rows[start : start + self._at_once]
            outputs = self._run([row.tokens for row in batch], [self._scored(row) for row in batch])
            for row, output in zip(batch, outputs, strict=True):
                scoring.finish(row, [_logprob(output, tail) for *_, tail in row.targets])
        return scoring.outcomes

    def trace(self, requests: Sequence[TraceRequest], progress: Progress | None = None) -> list[Traces]:
        """Return what the model thinks of each token of given texts; see `Engine.trace`.

        A text is a prompt with its context, whose log-probabilities vLLM computes anew, without the prefix cache.
        """
        tracing = Tracing(self.tokens, requests, progress)
        if tracing.moments and not self._gives_moments:
            with self._alive():
                self._llm.collective_rpc("ub_give_moments")
            self._gives_moments = True
        rows = [
            ScoredSequence(row.tokens, [target])
            for row in sorted(tracing.rows, key=lambda row: len(row.tokens), reverse=True)
            for target in row.targets
        ]
        wanted = self._sampling(max_tokens=1, temperature=0.0, prompt_logprobs=len(MOMENTS) if tracing.moments else 0)
        for start in range(0, len(rows), self._at_once):
            batch = rows[start : start + self._at_once]
            texts = [[*row.tokens, row.targets[0][2][-1]] for row in batch]
            for row, output in zip(batch, self._run(texts, [wanted] * len(batch)), strict=True):
                tracing.finish(row, [_trace(output, row.targets[0][2], tracing.moments)])
        return tracing.outcomes

    def _scored(self, row: ScoredSequence) -> Any:
        """Ask for the log-probabilities of the last tokens of a row's choices, and of those before in its prompt."""
        tails = [tail for *_, tail in row.targets]
        return self._sampling(
            max_tokens=1,
            temperature=0.0,
            logprob_token_ids=sorted({tail[-1] for tail in tails}),
            prompt_logprobs=0 if max(map(len, tails)) > 1 else None,
        )

    def generate(
        self, requests: Sequence[GenerationRequest], decoding: Decoding, progress: Progress | None = None
    ) -> list[Generations]:
        """Return `decoding.samples` continuations a request; see `Engine.generate`."""
        drawing = Generation(self.tokens, requests, decoding, progress)
        for start in range(0, len(drawing.samples), self._at_once):
            batch = drawing.samples[start : start + self._at_once]
            outputs = self._run(
                [list(sample.prompt) for sample in batch], [self._drawn(sample, decoding) for sample in batch]
            )
            for sample, output in zip(batch, outputs, strict=True):
                drawing.finish(sample, _drew(output))
        return drawing.outcomes()

    def _drawn(self, sample: Draw, decoding: Decoding) -> Any:
        return self._sampling(
            max_tokens=sample.limit,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            seed=sampling_seed(decoding.seed, sample.item, sample.number),
            stop_token_ids=self._ends,
            logprobs=0,
        )

    def _sampling(self, **settings: Any) -> Any:
        return importlib.import_module("vllm").SamplingParams(ignore_eos=True, detokenize=False, **settings)

    def _run(self, prompts: Sequence[list[int]], settings: Sequence[Any]) -> list[Any]:
        """Run prompts to their end; the outputs stand in the prompts' order."""
        for prompt, wanted in zip(prompts, settings, strict=True):
            if len(prompt) + wanted.max_tokens > self._longest:
                raise UserError(
                    f"A sequence of {len(prompt) + wanted.max_tokens} tokens is longer than max_model_len"
                    f" {self._longest}; raise it with --engine-option max_model_len={self.tokens.max_length + 1}."
                )
        with self._alive():
            inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
            return self._llm.generate(inputs, list(settings), use_tqdm=False)

    def recorded(self) -> dict[str, Any]:
        """Return device, dtype, attention kernel, threads and versions."""
        name, number = installed() or ("vllm", None)
        return {
            **recorded_batch(self.spec.dtype, self._batch_size),
            "engine": "vllm",
            "device": torch.cuda.get_device_name() if self.device == "cuda" else self.device,
            "dtype": self.spec.dtype,
            "attention": self._facts["attention"],
            "threads": self._facts["threads"],
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            name: number,
        }


def _logprob(output: Any, tail: Sequence[int]) -> tuple[float, bool]:
    """Return the log-probability of a choice and whether greedy decoding would say it, from its row's output."""
    [drawn] = output.outputs
    last = float(drawn.logprobs[0][tail[-1]].logprob)
    greedy = drawn.token_ids[0] == tail[-1]
    before = output.prompt_logprobs[len(output.prompt_token_ids) - len(tail) + 1 :] if len(tail) > 1 else []
    entries = [place[token] for place, token in zip(before, tail[:-1], strict=True)]
    return sum((float(entry.logprob) for entry in entries), last), greedy and all(entry.rank == 1 for entry in entries)


def _trace(output: Any, tail: Sequence[int], moments: bool) -> Trace:
    """Return the trace of a text from the output of the prompt that ends with it."""
    places = output.prompt_logprobs[-len(tail) :]
    entries = [place[token] for place, token in zip(places, tail, strict=True)]
    if moments and any(token not in place for place in places for token in MOMENTS):
        raise UserError("This vLLM gives no mean and variance over the vocabulary; pass --engine transformers.")
    means, variances = ([float(place[token].logprob) for place in places] if moments else None for token in MOMENTS)
    hits = [int(entry.rank == 1) for entry in entries]
    return Trace([float(entry.logprob) for entry in entries], hits, means, variances)


def _drew(output: Any) -> tuple[list[int], bool, bool]:
    """Return (tokens before the end token, whether it ended by itself, whether its logits broke)."""
    [drawn] = output.outputs
    stopped = drawn.finish_reason == "stop"
    tokens = list(drawn.token_ids)[: -1 if stopped else None]
    return tokens, stopped, not isfinite(drawn.cumulative_logprob)


def _base_files(folder: Path, model: ModelSpec) -> dict[str, str]:
    """Return the weight file that holds each tensor."""
    files = weight_files(folder)
    if files[0].suffix != ".safetensors":
        raise UserError(f"{model.name} has its weights as pickles; use --engine transformers.")
    others = sorted(file.name for file in folder.glob("*.safetensors") if file not in files)
    if others:
        raise UserError(
            f"{described(model)} holds {names_of(others)} beside its weights, which vLLM would load too; take them out,"
            " or use --engine transformers."
        )
    return {name: str(tensor.file) for name, tensor in check_weights(described(model), folder).items()}

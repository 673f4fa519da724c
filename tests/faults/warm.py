"""A warm process that runs the same small evaluation again and again, each time in a fork that a fault strikes.

It imports everything and runs once without a fault; a fork then takes a fraction of a second instead of the start-up of
a new process. Lines of JSON come in: `store`; a fault: `primitive`, `at` and `how`, or `seconds` after which the
fork is killed, the `largest` file that can be written, or that it is `bound` by permissions; and how many run `beside`
it. The status of each fork goes out, negative where a signal ended it.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from conftest import bound

PRIMITIVES = ("mkstemp", "write", "fsync", "chmod", "replace")
"""What `harness/store/files.py` writes with, in the order of a file's life."""


def inject(calls: Counter, primitive: str | None, at: int, how: str) -> None:
    """Wrap the primitives: count them, and strike at call number `at` of one (from 1), or of all with `any`."""

    def wrap(holder, attribute: str, name: str) -> None:
        original = getattr(holder, attribute)

        def wrapped(*arguments, **options):
            calls[name] += 1
            calls["any"] += 1
            calls["entries"] += name == "replace" and Path(arguments[1]).name == "manifest.json"
            if primitive is not None and calls[primitive] == at and primitive in (name, "any"):
                if how == "KILL":
                    os.kill(os.getpid(), signal.SIGKILL)
                if name == "write":
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2], **options)
                raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))
            return original(*arguments, **options)

        setattr(holder, attribute, wrapped)

    wrap(tempfile, "mkstemp", "mkstemp")
    wrap(Path, "write_text", "write")
    wrap(os, "fsync", "fsync")
    wrap(Path, "chmod", "chmod")
    wrap(Path, "replace", "replace")


def register_exits() -> None:
    """Register a method whose plugin ends its process in the middle of training."""
    from unlearn_bench.methods.base import methods, register
    from unlearn_bench.methods.rmu import RMU

    class Exits(RMU):
        def losses(self, batch):
            if batch.step == 2:
                os._exit(77)
            return super().losses(batch)

    if "vanishes" not in methods.names():
        register("vanishes")(Exits)


def run(store: str, names: tuple[str, ...] = ("rmu",)) -> None:
    """Evaluate methods with few steps and items, in this process."""
    from unlearn_bench.harness import Request, evaluate

    register_exits()
    asked = Request(
        methods=names, tracks=("knowledge",), tasks=("wmdp", "mmlu"), limit=8, settings=("training.steps=3",)
    )
    result = evaluate(asked, output=store, executor="inline")
    if result.failures:
        print(json.dumps(dict(result.failures)), file=sys.stderr)
        os._exit(1)


def fork(order: dict, number: int = 0) -> int:
    """Start a run in a fork; files beside the store get what it says and, if asked, how often it called what."""
    process = os.fork()
    if process:
        return process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    calls: Counter = Counter()
    status = 3
    try:
        os.dup2(os.open(f"{order['store']}.said{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(2, 1)
        inject(calls, None if number else order.get("primitive"), order.get("at", 0), order.get("how", "EIO"))
        if "largest" in order:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
        with bound() if order.get("bound") else nullcontext():
            run(order["store"], tuple(order.get("methods", ("rmu",))))
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 2 if type(error).__name__ == "UserError" else 3
    finally:
        if order.get("count"):
            with open(f"{order['store']}.calls{number}", "w") as stream:
                json.dump(calls, stream)
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Warm up with a whole run, then serve."""
    run(sys.argv[1])
    print("ready", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        order = json.loads(line)
        processes = [fork(order, number) for number in range(order.get("beside", 0) + 1)]
        if "seconds" in order and signal.sigtimedwait({signal.SIGCHLD}, order["seconds"]) is None:
            os.kill(processes[0], signal.SIGKILL)
        print(*(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes), flush=True)


if __name__ == "__main__":
    main()

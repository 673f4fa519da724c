"""Shared by the tests of faults: a warm process that runs a small evaluation in forks."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CAPABILITIES = 0x20080522
"""The version of the kernel's structure of capabilities: two words each of effective, permitted, inheritable ones."""


@dataclass
class Warm:
    """The warm process, and the undisturbed run that it made.

    Attributes:
        calm: the store of the undisturbed run.
        ended: processes that were killed while they worked.
    """

    process: subprocess.Popen[str]
    calm: Path
    ended: int = 0

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, store: Path, **fault: object) -> int:
        """Run with a fault; return the exit status, negative for a signal."""
        return self.together(store, **fault)[0]

    def together(self, store: Path, **fault: object) -> list[int]:
        """Run with others beside, the fault strikes the first; return the exit status of each."""
        assert self.process.stdin is not None
        print(json.dumps({"store": str(store), **fault}), file=self.process.stdin, flush=True)
        statuses = list(map(int, self._line().split()))
        self.ended += statuses.count(-signal.SIGKILL)
        return statuses

    def seconds(self, store: Path) -> float:
        """Return how long an undisturbed run into a new store takes."""
        started = time.perf_counter()
        assert self.run(store) == 0, self.said(store)
        return time.perf_counter() - started

    def said(self, store: Path) -> str:
        """Return what the last run on a store printed."""
        return Path(f"{store}.said0").read_text()

    def calls(self, store: Path) -> list[dict[str, int]]:
        """Return how often each run that was asked to `count` called what, of the last runs on a store."""
        return [json.loads(path.read_text()) for path in sorted(store.parent.glob(f"{store.name}.calls*"))]

    def boards(self, store: Path) -> list[bytes]:
        """Return the bytes of a store's board."""
        return [(store / "leaderboards" / f"micro.{kind}").read_bytes() for kind in ("json", "md")]


@contextmanager
def bound() -> Iterator[None]:
    """Let permissions hold for this thread as for its files' owner, also where it is root's: without capabilities."""
    libc, header, kept = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, kept) == 0
    none = type(kept)(*kept)
    none[0] = none[3] = 0
    assert libc.capset(header, none) == 0
    try:
        yield
    finally:
        libc.capset(header, kept)


@pytest.fixture(name="bound")
def bound_fixture() -> Callable[[], AbstractContextManager[None]]:
    """`bound`, for tests."""
    return bound


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """Start the warm process; see `warm.py`."""
    calm = tmp_path_factory.mktemp("calm") / "store"
    script = Path(__file__).with_name("warm.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(calm)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    served = Warm(process, calm)
    assert served._line() == "ready", "the undisturbed run failed"
    yield served
    assert process.stdin is not None
    process.stdin.close()
    process.wait()

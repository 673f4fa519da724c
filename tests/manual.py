"""Runs the blocks of a page of the manual, in their order, and holds their output to what the page says.

    ```console        each line after `$ ` is a command, the lines below it are its standard output
    ```python         Python; it sees what the blocks above it defined; a ```text block next to it is what it prints
    ```yaml title="F" the content of file F, as is
    ```diff title="F" a change of file F, which must apply

A comment before a block, `<!-- not run: why -->`, leaves it out; `<!-- slow -->` leaves it to the slow tests; with
`<!-- fails -->` the exit status is 1 or 2, and what is said on standard error stands there too.

Commands run in forks of this process, which has the libraries loaded; `pip install` goes to a folder of its own.
`python tests/manual.py --write PAGE…` writes the outputs of a run into the pages; with `--serve` pages come on standard
input.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
"""Characters of a line of output; the rest of a longer one stands as `…`."""
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*) -->\n\n?)?"
    r"^```(?P<kind>console|python|yaml|diff|text)(?P<rest>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: what it is, whether and where it says to be run, and where its text stands in the page."""

    kind: str
    title: str
    mark: str
    body: str
    start: int
    end: int

    @property
    def skipped(self) -> str:
        """Why it is not run, empty where it is."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    found = []
    for match in BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', match["rest"])
        span = match.span("body")
        found.append(Block(match["kind"], title[1] if title else "", match["mark"] or "", match["body"], *span))
    return found


def run_page(page: Path, *, slow: bool = False) -> str:
    """Run a page in a folder of its own and return it with the outputs that came out.

    A page that says `<!-- in a checkout -->` runs in a copy of this checkout.
    """
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        if "<!-- in a checkout -->" in text:
            sys.path.insert(0, str(work))
            work = _checkout(work)
        sys.path.insert(0, str(work / ".installed"))
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
        os.chdir(work)
        parts, end, before = [], 0, []
        found = blocks(text)
        for number, block in enumerate(found):
            if block.skipped or (block.mark == "slow" and not slow):
                continue
            if block.kind == "console":
                parts += [text[end : block.start], "".join(_console(block.body, block.mark == "fails"))]
                end = block.end
            elif block.kind == "python" and not block.title:
                printed = _fork(lambda block=block, before=tuple(before): _python(block, before))
                before.append(block.body)
                said = found[number + 1] if number + 1 < len(found) else None
                if said and said.kind == "text" and not text[block.end : said.start].strip("`tex\n"):
                    parts += [text[end : said.start], printed]
                    end = said.end
                else:
                    assert not printed, f"{page.name}: a block prints what the page does not show:\n{printed}"
            elif block.kind == "diff":
                _patch(Path(block.title), block.body)
            elif block.title:
                Path(block.title).write_text(block.body, encoding="utf-8")
        return "".join([*parts, text[end:]])


def _checkout(folder: Path) -> Path:
    """Lay out a copy of this checkout as the package `unlearn_bench` in `folder`; only what pages change is copied."""
    home = folder / "unlearn_bench"
    home.mkdir()
    for name in ("harness", "leaderboards", "reports"):
        (home / name).symlink_to(ROOT / name)
    for name in ("methods", "tasks"):
        (home / name).mkdir()
        for file in (ROOT / name).iterdir():
            if file.name != "__pycache__":
                (home / name / file.name).symlink_to(file)
    (home / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return home


def _console(body: str, fails: bool) -> Iterator[str]:
    """Give each command of a block again with what it prints now."""
    for command in re.findall(r"^\$ (.+(?:\\\n.+)*)", body, re.MULTILINE):
        yield f"$ {command}\n"
        line, sign, rest = re.match(r"(.*?)(?: ([|>]) (.*))?$", command.replace("\\\n", " ")).groups()
        words = shlex.split(line)
        if words[0] == "unlearn-bench":
            printed = _fork(lambda words=words: _main(words[1:]), fails)
            printed = _shell(rest if sign == "|" else f"cat > {rest}", printed) if sign else printed
        else:
            printed = _shell(_translated(words, command))
        for shown in printed.splitlines():
            yield (shown if len(shown) <= WIDTH else shown[: WIDTH - 1] + "…") + "\n"


def _main(arguments: list[str]) -> None:
    from unlearn_bench.harness.cli import main

    main(arguments)


def _translated(words: list[str], line: str) -> str:
    """Return what a test runs instead: a package goes to a folder beside the page, pytest is that of this test."""
    if words[:2] == ["pip", "install"]:
        packages = [f"./{word}" for word in words[2:] if not word.startswith("-")]
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--upgrade", "--target", ".installed"]
        return shlex.join([sys.executable, "-m", "pip", "install", *options, *packages])
    if words[0] == "pytest":
        return shlex.join([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words[1:]])
    return line


def _shell(line: str, given: str = "") -> str:
    done = subprocess.run(line, shell=True, input=given, capture_output=True, text=True)
    assert not done.returncode, f"{line}: {done.stderr}{done.stdout}"
    return re.sub(r" in [\d.]+s", "", done.stdout)


def _python(block: Block, before: tuple[str, ...]) -> None:
    names: dict[str, object] = {"__name__": "manual"}
    with redirect_stdout(io.StringIO()):
        for body in before:
            exec(body, names)
    exec(block.body, names)


def _fork(call: Callable[[], None], fails: bool = False) -> str:
    """Run a call in a fork and return what it prints, with its complaints where it is to fail."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            status = 70
            try:
                call()
                status = 0
            except SystemExit as error:
                status = int(error.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, err):
            file.seek(0)
        printed, said = out.read(), err.read()
        assert status in ((1, 2) if fails else (0,)), f"{said}\n{printed}"
        return printed + said if fails else printed


def _patch(file: Path, change: str) -> None:
    """Apply a change to a file: lines with a space or minus are there, those with a space or plus are put there."""
    lines = change.splitlines(keepends=True)
    old, new = ("".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file} does not hold, once:\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def _load() -> None:
    """Load what every command needs, once; registries are left alone, so that a fork finds what a page added."""
    for name in [name for name in os.environ if name.startswith("UNLEARN_BENCH_")]:
        del os.environ[name]
    os.environ |= {"UNLEARN_BENCH_EXECUTOR": "inline", "UNLEARN_BENCH_WORKERS": "1"}
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "110"}
    for name in ("lm_eval.api.task", "pandas", "sklearn.linear_model", "transformers.models.auto.modeling_auto"):
        import_module(name)


def serve() -> None:
    """Run the pages that come on standard input, each in a fork; answer with an error or empty, and the page.

    A line is JSON, `[page, slow]`; so is an answer, `[error, page]`.
    """
    for line in sys.stdin:
        name, slow = json.loads(line)
        page = Path(name).resolve()
        try:
            answer = ["", _fork(lambda page=page, slow=slow: print(run_page(page, slow=slow), end=""))]
        except AssertionError as error:
            answer = [str(error), ""]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _load()
    if "--serve" in sys.argv:
        serve()
    write = "--write" in sys.argv
    for name in [argument for argument in sys.argv[1:] if not argument.startswith("--")]:
        page = Path(name).resolve()
        found = run_page(page, slow="--slow" in sys.argv)
        if write:
            page.write_text(found, encoding="utf-8")
        else:
            sys.stdout.write(found)

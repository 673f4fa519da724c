"""Live progress in a terminal: cells, running stages, time left. Silent elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .jobs import Event


class Display:
    """A bar for the run and one for each stage that is running."""

    def __init__(self, cells: int, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.total = self.bars.add_task("cells", total=cells)
        self.stages: dict[str, tuple[str, TaskID]] = {}

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self.bars.stop()

    def event(self, event: Event) -> None:
        """Move the bar of a label's stage, replacing the stage before it."""
        stage, bar = self.stages.get(event.label, ("", None))
        if stage != event.stage:
            self._drop(event.label)
            bar = self.bars.add_task(f"  {event.label}: {event.stage}", total=event.total)
            self.stages[event.label] = (event.stage, bar)
        if bar is not None:
            self.bars.update(bar, completed=event.done, total=event.total)

    def cell(self, label: str) -> None:
        """Count a cell as finished."""
        self._drop(label)
        self.bars.advance(self.total)

    def _drop(self, label: str) -> None:
        if label in self.stages:
            self.bars.remove_task(self.stages.pop(label)[1])

"""What a sweep says on the screen: a line per event, and where the terminal allows it a bar with the time left."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from embodichain.app.sweep.schedule import Event

STYLES = {"finished": "green", "failed": "bold red", "lost": "yellow", "interrupted": "yellow", "started": ""}


class SweepView:
    """A context manager around a sweep's stages. Args: where it prints."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._total = self._done = 0

    def __enter__(self) -> SweepView:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def stage(self, name: str, total: int, done: int) -> None:
        """A stage of `total` runs begins, `done` of which are finished already."""
        self._total, self._done = total, done
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=total, completed=done, left="")
        self.console.print(f"{name}: {done} of {total} finished" + ("" if done < total else ", nothing to do"))

    def event(self, event: Event, seconds_left: float) -> None:
        """Something happened; say it, with the time left."""
        if event.what in ("finished", "failed"):
            self._done += 1
        left = f"about {duration(seconds_left)} left" if seconds_left > 0 else ""
        if self._task is not None:
            self._bar.update(self._task, completed=self._done, left=left)
        words = [f"[{self._done}/{self._total}]", event.what, event.name]
        if event.seconds:
            words.append(f"after {duration(event.seconds)}")
        line = " ".join(words) + (f": {event.reason}" if event.reason else "") + (f"   {left}" if left else "")
        self.console.print(line, style=STYLES[event.what], markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min` or `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"

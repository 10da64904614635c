"""Progress of work on images: a bar, or lines of text."""

import contextlib
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

LINES_APART = 10  # seconds between lines where there is no terminal


class _Rate(ProgressColumn):
    """Images per second since the start."""

    def __init__(self, unit):
        super().__init__()
        self._unit = unit

    def render(self, task):
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"{task.completed / seconds:.2f} {self._unit}/s" if seconds else "")


@contextlib.contextmanager
def progress(total, what, verbose=1, unit="images"):
    """Shows how far some work on images is: a bar on a terminal or in a notebook, elsewhere a line now and then.

        with progress(len(paths), "Detecting") as advance:
            for path in paths:
                ...
                advance()

    Args:
        total: int, number of images; None if nobody knows.
        what: str, the work.
        verbose: 0 shows nothing.
        unit: str, what is counted.

    Yields:
        advance: function that is told how many images were just done, 1 by default.
    """
    console = Console()
    if not verbose:
        yield lambda count=1: None
    elif console.is_interactive or console.is_jupyter:
        texts = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*texts, _Rate(unit), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count=1: bar.advance(task, count)
    else:
        lines = _Lines(total, what, unit)
        yield lines.advance
        lines.show()


class _Lines:
    """Progress in plain lines."""

    def __init__(self, total, what, unit):
        self._what, self._unit, self._of = what, unit, "" if total is None else f" of {total}"
        self._done, self._shown = 0, None
        self._started = self._last = time.monotonic()

    def advance(self, count=1):
        self._done += count
        if time.monotonic() - self._last >= LINES_APART:
            self.show()

    def show(self):
        """Prints where the work is, unless the last line said so."""
        self._last = time.monotonic()
        if self._shown != self._done:
            self._shown = self._done
            rate = self._done / max(self._last - self._started, 1e-9)
            print(f"{self._what}: {self._done}{self._of} {self._unit}, {rate:.2f} {self._unit}/s", flush=True)

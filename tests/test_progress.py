"""Progress of work on images, on terminals and elsewhere."""

import io

import pytest
from rich.console import Console

from mrcnn.engine import progress as module
from mrcnn.engine.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def work(clock, seconds, total, **arguments):
    with progress(total, "Looking", **arguments) as advance:
        for passed in seconds:
            clock[0] += passed
            advance()


def test_lines_now_and_then(clock, capsys):
    work(clock, [4, 4, 4, 1, 1], total=5)
    assert capsys.readouterr().out.splitlines() == [
        "Looking: 3 of 5 images, 0.25 images/s", "Looking: 5 of 5 images, 0.36 images/s",
    ]  # fmt: skip


def test_no_line_twice(clock, capsys):
    work(clock, [20], total=1)
    assert capsys.readouterr().out == "Looking: 1 of 1 images, 0.05 images/s\n"


def test_unknown_totals_and_other_units(clock, capsys):
    work(clock, [0.5, 0.5], total=None, unit="frames")
    assert capsys.readouterr().out == "Looking: 2 frames, 2.00 frames/s\n"


def test_nothing_is_shown_if_not_wanted(clock, capsys):
    work(clock, [20, 20], total=2, verbose=0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("total", [4, None])
def test_a_bar_on_terminals(monkeypatch, total):
    terminal = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda: Console(file=terminal, force_terminal=True, width=100))
    with progress(total, "Looking", unit="frames") as advance:
        advance(3)
        advance()
    shown = terminal.getvalue()
    assert "Looking" in shown and "frames/s" in shown and ("4/4" if total else "4/?") in shown


def test_errors_pass_through(clock, capsys):
    with pytest.raises(KeyError), progress(3, "Looking") as advance:
        advance()
        raise KeyError
    assert capsys.readouterr().out == ""

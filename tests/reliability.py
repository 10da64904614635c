"""Figures of the long parts of the tests, kept in docs/reliability/ with the commit and the day they belong to."""

import datetime
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reliability"


def keep(part, figures):
    """Writes docs/reliability/{part}.json: the figures (a dict), the commit and the day; returns the path."""
    return write(FOLDER / f"{part}.json", figures)


def keep_beside(part, **figures):
    """Adds figures to docs/reliability/{part}.json, each with its own commit and day; the others there stay.

    Args:
        part: str, name of the part, as in `make long-{part}`.
        figures: what JSON can hold.
    """
    path = FOLDER / f"{part}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    _write(path, known | {name: stamp() | {"found": found} for name, found in figures.items()})


def write(path, figures):
    """Writes figures (a dict) to a file of any place, with the commit and the day; returns the path."""
    return _write(Path(path), stamp() | figures)


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def stamp():
    """{"commit", "date"} of figures that are made now; the day is that of UTC."""
    return {"commit": commit(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def commit(root=ROOT):
    """The first 12 digits of the commit that is checked out, with ", changed" where the code or the tests differ.

    "unknown" where there is no git, or no repository.
    """
    try:
        found = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{found}, changed" if _git(root, "status", "--porcelain", "mrcnn", "samples", "tests") else found
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()

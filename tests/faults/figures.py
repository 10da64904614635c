"""What the long parts of the fault suite found, in docs/reliability/, with the commit that they belong to."""

import datetime
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reliability"


def record(part, **figures):
    """Writes figures to docs/reliability/{part}.json, beside those that are there already under other names.

    Args:
        part: str, name of the part, as in `make long-{part}`.
        figures: what JSON can hold.
    """
    path = FOLDER / f"{part}.json"
    FOLDER.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    stamp = {"commit": commit(), "date": datetime.date.today().isoformat()}
    path.write_text(json.dumps(known | {name: stamp | {"found": found} for name, found in figures.items()}, indent=1,
                               sort_keys=True) + "\n")  # fmt: skip


def commit():
    """Hash of the commit that is checked out; "changed" is added where files of the package differ from it."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        return f"{found}, changed" if _git("status", "--porcelain", "mrcnn", "samples", "tests") else found
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

"""Figures of the long parts of the tests, kept in docs/reliability/ with the commit that they belong to."""

import datetime
import json
import subprocess

from scripts import ROOT

FOLDER = ROOT / "docs" / "reliability"


def keep(part, figures):
    """Writes docs/reliability/{part}.json: the figures (a dict), the commit and the day; returns the path."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=ROOT,
                            capture_output=True, text=True, check=False).stdout.strip()  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{part}.json"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path.write_text(json.dumps({"commit": commit or "unknown", "date": today, **figures}, indent=1) + "\n")
    return path

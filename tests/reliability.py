"""Figures of the long parts of the tests, kept in docs/reliability/ with the commit and the day they belong to.

    python tests/reliability.py FILE COMMAND...

runs a command that takes `--json PATH` and writes a "summary" there, and keeps that in FILE if the command succeeds.
"""

import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reliability"


def keep(part, figures):
    """Writes docs/reliability/{part}.json: the figures (a dict), the commit and the day; returns the path.

    What `keep_beside` added there stays.
    """
    path = FOLDER / f"{part}.json"
    beside = {name: value for name, value in _known(path).items() if isinstance(value, dict) and "found" in value}
    return _write(path, stamp() | beside | figures)


def keep_beside(part, **figures):
    """Adds figures to docs/reliability/{part}.json, each with its own commit and day; the others there stay.

    Args:
        part: str, name of the part, as in `make long-{part}`.
        figures: what JSON can hold.
    """
    path = FOLDER / f"{part}.json"
    _write(path, _known(path) | {name: stamp() | {"found": found} for name, found in figures.items()})


def write(path, figures):
    """Writes figures (a dict) to a file of any place, with the commit and the day; returns the path."""
    return _write(Path(path), stamp() | figures)


def _known(path):
    return json.loads(path.read_text()) if path.exists() else {}


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def stamp():
    """{"commit", "date"} of the start of the run, and "commit_at_end" if it is another by now."""
    now = commit()
    return BEGUN | ({} if now == BEGUN["commit"] else {"commit_at_end": now})


def begin():
    """{"commit", "date"} of what begins now; the day is that of UTC."""
    return {"commit": commit(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def commit(root=None):
    """The first 12 digits of the commit that is checked out, with ", changed" where the code or the tests differ.

    "unknown" where there is no git, or no repository. `root` is that of this file, if it is not given.
    """
    root = root or ROOT
    try:
        found = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{found}, changed" if _git(root, "status", "--porcelain", "mrcnn", "samples", "tests") else found
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


BEGUN = begin()  # the code that a run tests is that of its start, when it is imported


class Outcomes:
    """A plugin of pytest that keeps how the tests of a run ended, with the reasons of those left out, if none failed.

    Args:
        path: of the JSON file.
    """

    def __init__(self, path):
        self.path, self.begun, self.ended, self.reasons = Path(path), time.monotonic(), {}, {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.ended[report.nodeid] = report.outcome
        if report.outcome == "skipped":
            self.reasons[report.nodeid] = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected"

    def pytest_terminal_summary(self, terminalreporter, exitstatus):
        count = Counter(self.ended.values())
        if exitstatus or not count["passed"]:
            terminalreporter.write_line(f"{self.path} is left as it is: not all went well")
            return
        files = {}
        for test, outcome in self.ended.items():
            files.setdefault(test.partition("::")[0], Counter())[outcome] += 1
        write(self.path, {outcome: count[outcome] for outcome in ("passed", "failed", "skipped")} | {
            "seconds": round(time.monotonic() - self.begun), "files": files, "skipped_because": self.reasons})
        terminalreporter.write_line(f"kept in {self.path}")


def main(path, *command):
    """Runs a command, and keeps its summary in a file if it succeeds; returns its exit status."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.json")
        status = subprocess.run([*command, "--json", str(results)], check=False).returncode
        if status == 0:
            write(path, {"summary": json.loads(results.read_text())["summary"],
                         "seconds": round(time.monotonic() - begun)})  # fmt: skip
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""The figures in docs/reliability/, their stamp, and the page that quotes them."""

import ast
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
import reliability
from scripts import ROOT

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]


def git(folder, *arguments):
    subprocess.run(["git", *arguments], cwd=folder, check=True)


@pytest.fixture
def repository(tmp_path):
    """A repository of one commit with a file of the package and one of the documentation."""
    for name in ("mrcnn/config.py", "docs/page.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("before\n")
    for command in (["init", "-q"], ["add", "."], [*IDENTITY, "commit", "-q", "-m", "Begin"]):
        git(tmp_path, *command)
    return tmp_path


def test_a_changed_tree_is_marked(repository):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    clean = head.stdout[:12]
    assert reliability.commit(repository) == clean and len(clean) == 12
    (repository / "docs" / "page.md").write_text("after\n")
    assert reliability.commit(repository) == clean, "figures do not depend on the documentation"
    for name in ("mrcnn/config.py", "tests/new.py"):
        path = repository / name
        before = path.read_text() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text("after\n")
        assert reliability.commit(repository) == f"{clean}, changed"
        path.unlink() if before is None else path.write_text(before)


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert reliability.commit() == "unknown"


def test_figures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "FOLDER", tmp_path / "figures")
    kept = json.loads(reliability.keep("soak", {"steps": 3}).read_text())
    assert kept == reliability.stamp() | {"steps": 3}
    reliability.keep_beside("kills", training=1, unpacking=2)
    reliability.keep_beside("kills", training=3)
    kept = json.loads((tmp_path / "figures" / "kills.json").read_text())
    assert {name: figures["found"] for name, figures in kept.items()} == {"training": 3, "unpacking": 2}
    assert all(figures["commit"] == reliability.commit() for figures in kept.values())


def test_a_run_is_stamped_with_its_start(repository, monkeypatch):
    monkeypatch.setattr(reliability, "ROOT", repository)
    monkeypatch.setattr(reliability, "BEGUN", reliability.begin())
    begun = reliability.stamp()
    assert begun == reliability.BEGUN and begun["commit"] == reliability.commit(repository) != "unknown"
    (repository / "mrcnn" / "config.py").write_text("after\n")
    assert reliability.stamp() == begun | {"commit_at_end": f"{begun['commit']}, changed"}
    git(repository, *IDENTITY, "commit", "-q", "-a", "-m", "Change")
    moved = reliability.stamp()
    assert moved["commit"] == begun["commit"] != moved["commit_at_end"] == reliability.commit(repository)


def test_figures_of_a_part_leave_those_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "FOLDER", tmp_path)
    reliability.keep("repeat", {"pairs": 1, "old": {"a": 2}})
    reliability.keep_beside("repeat", minute=3)
    kept = json.loads(reliability.keep("repeat", {"pairs": 4}).read_text())
    assert kept.pop("minute")["found"] == 3 and kept == reliability.stamp() | {"pairs": 4}


# ------------------------------------------------------------------ how the tests of a long part ended
TESTS = """
import os
import pytest

def test_that_passes():
    assert "MRCNN_FIGURES" not in os.environ

def test_that_is_skipped():
    pytest.skip("no disk here")

def test_that_may_fail():
    assert not os.environ.get("FAILS")
"""


def outcomes(folder, **environment):
    """Runs three tests as the Makefile runs a long part: (exit status, figures or None)."""
    (folder / "test_some.py").write_text(TESTS)
    figures = folder / "docs" / "long-some.json"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"MRCNN_FIGURES": str(figures), "PYTHONPATH": paths} | environment
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "test_some.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(figures.read_text()) if figures.exists() else None


def test_how_tests_ended_is_kept_if_all_went_well(tmp_path):
    assert outcomes(tmp_path, FAILS="1") == (1, None)
    status, figures = outcomes(tmp_path)
    assert status == 0 and figures.pop("seconds") >= 0
    assert figures == reliability.stamp() | {
        "passed": 2, "failed": 0, "skipped": 1, "files": {"test_some.py": {"passed": 2, "skipped": 1}},
        "skipped_because": {"test_some.py::test_that_is_skipped": "Skipped: no disk here"},
    }


@pytest.mark.parametrize("status", [0, 3])
def test_the_summary_of_a_command_is_kept_if_it_succeeded(tmp_path, status):
    code = "import json, sys; json.dump({'summary': {'PASS': 7}, 'results': []}, open(sys.argv[2], 'w'))"
    path = tmp_path / "long-jax.json"
    assert reliability.main(path, sys.executable, "-c", f"{code}; sys.exit({status})") == status
    assert path.exists() == (status == 0)
    if status == 0:
        kept = json.loads(path.read_text())
        assert kept.pop("seconds") >= 0 and kept == reliability.stamp() | {"summary": {"PASS": 7}}


# ------------------------------------------------------------------ the page
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")]


def row(begin):
    """The second and the third cell of the row whose first begins so."""
    (found,) = (cells for cells in ROWS if cells[0].startswith(begin))
    return found[1] + " " + found[2]


def figures_of(part):
    return json.loads((ROOT / "docs" / "reliability" / f"{part}.json").read_text())


def assert_quoted(pattern, text, *values):
    """That the groups of a pattern in a text are these numbers, to as many places as the text gives them."""
    found = re.search(pattern, text)
    assert found and len(found.groups()) == len(values), (pattern, text)
    for quoted, value in zip(found.groups(), values, strict=True):
        places = len(quoted.partition(".")[2])
        assert abs(float(quoted.replace(",", "")) - value) <= 0.5 * 10**-places + 1e-9, (quoted, value, text)


def test_what_the_page_names_is_there():
    assert len(ROWS) > 25 and {len(cells) for cells in ROWS} == {4}
    targets = set(re.findall(r"^([\w-]+)(?=[ \w-]*:)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"long-kills", "test"} <= targets and "long-nothing" not in targets
    named = set(re.findall(r"\bmake (long-[\w]+)", PAGE)) - {"long-NAME"}
    assert len(named) >= 5 and named <= targets
    commands = [cells[3] for cells in ROWS[1:]]
    assert all(re.search(r"`(pytest|make) .*`", command) for command in commands)
    paths = re.findall(r"tests/[\w/.]+", PAGE)
    assert len(paths) >= 15 and not [path for path in paths if not (ROOT / path).exists()]
    linked = re.findall(r"\((reliability/[^)]+)\)", PAGE)
    assert len(linked) >= 6 and not [path for path in linked if not (ROOT / "docs" / path).exists()]


def test_the_page_quotes_its_figures():
    kills = figures_of("kills")
    for part, begin, number in (("training", "SIGKILL or SIGTERM at a random", "trainings"),
                                ("download_and_unpacking", "SIGKILL or SIGTERM in a download", "downloads")):
        found = kills[part]["found"]
        at_random = sum(count for place, count in found["places"].items() if place.endswith("a random moment"))
        pattern = rf"`make long-kills`: (\d+) in (\d+) {number}, (\d+) at random moments and (\d+) at"
        assert_quoted(pattern, row(begin), found["kills"], found[number], at_random, found["kills"] - at_random)
        assert sum(found["places"].values()) == found["kills"]
    soak, fuzz = figures_of("soak"), figures_of("fuzz")
    parts, text = [soak["training"], soak["detection"]], row("a long run in one process")
    assert_quoted(r"([\d,]+) training steps, then ([\d,]+) calls", text, *(part["steps"] for part in parts))
    assert_quoted(r"by ([\d.]+) MB and ([\d.]+) MB", text, *(part["memory_mb"]["growth"] for part in parts))
    assert_quoted(r"takes ([\d.]+) and ([\d.]+) times", text, *(part["ms_per_step"]["ratio"] for part in parts))
    assert_quoted(r"^([\d,]+) ", row("VIA, COCO and HDF5 files"), fuzz["cases"])
    assert fuzz["cases"] == sum(reader["cases"] for reader in fuzz["readers"].values())
    pairs = figures_of("repeatability")["pairs"]
    assert_quoted(r"(\d+) settings and a resumed run", row("the same `SEED`"), len(pairs) - 1)


def test_the_page_quotes_how_many_cases_there_are():
    cases = figures_of("cases")
    assert_quoted(r"`make long-cases` tried ([\d,]+) cases", PAGE, cases["cases"])
    begins = {"images": "images: ", "masks": "masks and", "settings": "settings: ", "COCO": "COCO annot",
              "VIA": "VIA 1", "weights": "weights files: ", "archives": "zip archives"}  # fmt: skip
    counted = Counter()
    for kind, found in cases["kinds"].items():
        counted[re.match(r"\w+", kind).group()] += found["cases"]
    assert counted.keys() == begins.keys()
    for kind, begin in begins.items():
        assert_quoted(r"`make long-cases`: ([\d,]+)", row(begin), counted[kind])


def test_the_page_counts_the_tests_that_it_names():
    numerical = (ROOT / "tests" / "test_numerical_safety.py").read_text()
    properties, examples = len(re.findall(r"^@FEW$", numerical, re.MULTILINE)), re.search(r"examples=(\d+)", numerical)
    pattern = r"(\d+) properties of (\d+) generated cases"
    assert_quoted(pattern, row("objects and boxes at the edge"), properties, int(examples.group(1)))
    tree = ast.parse((ROOT / "tests" / "faults" / "test_full_disk.py").read_text())
    (writes,) = (node for node in tree.body if getattr(node, "name", "") == "test_a_checkpoint_that_finds_no_room")
    values = [len(mark.args[1].elts) for mark in writes.decorator_list if mark.func.attr == "parametrize"]
    assert_quoted(r"(\d+) writes that fail", row("disk full, quota"), math.prod(values))

"""The stamp of the figures in docs/reliability/."""

import json
import subprocess

import pytest
import reliability


@pytest.fixture
def repository(tmp_path):
    """A repository of one commit with a file of the package and one of the documentation."""
    for name in ("mrcnn/config.py", "docs/page.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("before\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
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

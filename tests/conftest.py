"""Fixtures for all tests, and which tests run where.

One process holds one Keras backend, the one that KERAS_BACKEND names when pytest starts (TensorFlow if unset); the
golden tests pass on each. A test that needs another backend, or an import without side effects, runs its code in a
process of its own with the fixture `run_python`; it is marked `backend` if it needs JAX or torch installed.

Tests that ask for the fixture `data_dir` (photos) or `golden_dir` (numbers of the original that are not in
tests/golden) are left out, and counted as deselected, where MRCNN_DATA or MRCNN_GOLDEN names no folder.
"""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import reliability

# how long an example takes says more about the machine than about the code
hypothesis.settings.register_profile("mrcnn", deadline=None)
hypothesis.settings.load_profile("mrcnn")

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"data_dir": "MRCNN_DATA", "golden_dir": "MRCNN_GOLDEN"}


def folder_of(fixture):
    """The existing folder that a fixture's environment variable names, else None."""
    path = os.environ.get(FOLDERS[fixture], "")
    return Path(path).resolve() if path and Path(path).is_dir() else None


def pytest_report_header():
    found = (f"{variable}={folder_of(fixture) or 'unset'}" for fixture, variable in FOLDERS.items())
    return f"mrcnn: KERAS_BACKEND={os.environ['KERAS_BACKEND']}, {', '.join(found)}"


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "data_dir" in item.fixturenames:
            item.add_marker("data")
    absent = {fixture for fixture in FOLDERS if folder_of(fixture) is None}
    left_out = [item for item in items if absent.intersection(item.fixturenames)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_configure(config):
    """The parts of `make long` name a file for how their tests ended; tests that start pytest themselves do not."""
    if path := os.environ.pop("MRCNN_FIGURES", ""):
        config.pluginmanager.register(reliability.Outcomes(path))


@pytest.fixture
def figures():
    """matplotlib.pyplot, whose figures are closed afterwards."""
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


@pytest.fixture(scope="session")
def data_dir():
    """Folder of real photos with annotations (MRCNN_DATA)."""
    return folder_of("data_dir")


@pytest.fixture(scope="session")
def golden_dir():
    """Folder of all the original's numbers (MRCNN_GOLDEN)."""
    return folder_of("golden_dir")


@pytest.fixture
def model_dir(tmp_path):
    """An empty folder for logs and checkpoints, as text."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return str(folder)


@pytest.fixture(scope="session")
def run_python():
    """Runs code in a Python of its own, on a backend of choice, and returns what it printed; fails if it fails."""

    def run(code, backend="tensorflow"):
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module", autouse=True)
def forget_models():
    """After each test file Keras lets go of its models, so that memory does not add up."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session()

"""An old TensorFlow is named without being imported (of Keras: test_model.py)."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from mrcnn.engine import requirements


@pytest.fixture
def installed(monkeypatch):
    """A dict of distributions and versions, which are all that is installed."""
    versions = {}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(requirements.metadata, "version", version)
    return versions


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-cpu", "tf-nightly"])
def test_an_old_tensorflow_is_named(installed, name):
    installed[name] = "2.9.3"
    needed = requirements.NEEDED_TENSORFLOW
    with pytest.raises(ImportError, match=f'needs TensorFlow {needed}.*TensorFlow 2.9.3 is installed.*"{name}>='):
        requirements.check_tensorflow("tensorflow")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_do_without(installed, backend):
    installed["tensorflow"] = "2.9.3"
    requirements.check_tensorflow(backend)


@pytest.mark.parametrize("versions", [
    {"tensorflow": requirements.NEEDED_TENSORFLOW + ".0"}, {"tf-nightly": "2.100.0.dev20260101"}, {"tensorflow": "3.0"},
    {"tensorflow": "2.9.3", "tensorflow-cpu": "2.100.0"},
    {}])  # built from source
def test_a_new_tensorflow_will_do(installed, versions):
    installed.update(versions)
    requirements.check_tensorflow("tensorflow")


def test_the_needed_version_is_that_of_the_package():
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    assert f"tensorflow>={requirements.NEEDED_TENSORFLOW}" in project["dependencies"]

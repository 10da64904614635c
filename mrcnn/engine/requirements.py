"""Checks that Keras and TensorFlow are new enough before anything else is imported, so that messages are about that."""

import contextlib
import re
from importlib import metadata

import keras

NEEDED, NEEDED_TENSORFLOW = "3.15", "2.21"  # as in pyproject.toml
# What TensorFlow is called on PyPI: builds for one kind of machine have names of their own.
_TENSORFLOWS = (
    "tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-intel", "tensorflow-macos", "tensorflow-rocm",
    "tensorflow-cpu-aws", "tf-nightly", "tf-nightly-cpu",
)  # fmt: skip


def check_keras(found):
    """Compares a version of Keras, str, with the one needed.

    Raises:
        ImportError: naming both versions and the remedy.
    """
    _check("Keras", "keras", found, NEEDED)


def check_tensorflow(backend):
    """Compares the version of TensorFlow that is installed, if any is known, with the one needed; does not import it.

    Args:
        backend: of Keras; all but "tensorflow" do without TensorFlow.

    Raises:
        ImportError: naming both versions and the remedy.
    """
    found = {}
    for name in _TENSORFLOWS if backend == "tensorflow" else ():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if found:
        newest = max(found, key=lambda name: _numbers(found[name]))
        _check("TensorFlow", newest, found[newest], NEEDED_TENSORFLOW)


def _check(title, distribution, found, needed):
    if _numbers(found) < _numbers(needed):
        raise ImportError(f"mrcnn needs {title} {needed} or newer, but {title} {found} is installed. "
                          f'Run: pip install --upgrade "{distribution}>={needed}"')


def _numbers(version):
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


check_keras(keras.__version__)
check_tensorflow(keras.backend.backend())

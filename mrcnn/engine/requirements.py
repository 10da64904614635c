"""Checks that Keras is new enough before anything else is imported, so that the message is about that."""

import re

import keras

NEEDED = "3.15"  # as in pyproject.toml


def check_keras(found):
    """Compares a version of Keras, str, with the one needed.

    Raises:
        ImportError: naming both versions and the remedy.
    """
    numbers = [tuple(map(int, re.findall(r"\d+", version)[:2])) for version in (found, NEEDED)]
    if numbers[0] < numbers[1]:
        raise ImportError(f"mrcnn needs Keras {NEEDED} or newer, but Keras {found} is installed. "
                          f'Run: pip install --upgrade "keras>={NEEDED}"')


check_keras(keras.__version__)

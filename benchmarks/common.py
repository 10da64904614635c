"""What the benchmarks have in common: the machine, the versions, and arguments."""

import argparse
import os
import platform
from importlib.metadata import version

from mrcnn import __version__


def machine():
    """What the figures depend on, {name: text}."""
    model = platform.processor() or platform.machine()
    if os.path.isfile("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": usable, "system": f"{platform.system()} {platform.machine()}"}


def versions(packages):
    """{name: version} of Python, mrcnn and these packages."""
    return {"mrcnn": __version__, "Python": platform.python_version(), **{name: version(name) for name in packages}}


def describe(figures):
    """Two lines of text about the machine and the versions in {"machine": ..., "versions": ...}."""
    return [
        ", ".join(f"{value} {key}" if key == "cores" else value for key, value in figures["machine"].items()),
        ", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
    ]


def positive(text):
    """An argument type: a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; received {text}")
    return number

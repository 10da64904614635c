"""A training that is killed at any moment goes on from its last epoch, and ends with the files of a calm one, bitwise.

What a process is killed by, and where, is drawn by a seed.
"""

import contextlib
import csv
import random
import re
import signal
import time
from collections import Counter

import h5py
import killing
import numpy as np
import pytest
from reliability import keep_beside

from mrcnn.engine.h5_layout import is_whole

SIGNALS = signal.SIGKILL, signal.SIGTERM
PATIENCE = 300  # seconds for what takes a few
RANDOM = "a random moment"
AT_RANDOM = [f"{each.name}, {RANDOM}" for each in SIGNALS]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")


def wait_for(text, log, process):
    """Waits until the log of a process holds a text."""
    end = time.monotonic() + PATIENCE
    while text not in (log.read_text(errors="replace") if log.exists() else ""):
        if process.exitcode is not None or time.monotonic() > end:
            raise AssertionError(f"no {text!r}, exit code {process.exitcode}: {log.read_text()[-3000:]}")
        time.sleep(0.02)


def numbers(pattern, text):
    return [int(number) for number in re.findall(pattern, text)]


def checked(folder):
    """Number of the last epoch on disk (0 without); whatever has the name of a whole file is one."""
    epochs = [0]
    for path in folder.rglob("*.h5"):
        if path.name.startswith("."):
            continue
        if path.name.startswith("mask_rcnn"):
            assert is_whole(path), path
            epochs.append(int(path.stem[-4:]))
        with h5py.File(path) as file:
            file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
    for path in folder.rglob("log.csv"):
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} == {len(rows[0])}, path
    return max(epochs)


class Chain:
    """One training that is killed again and again.

    Attributes:
        done: int, epochs on disk.
        lost: list of int, for each kill the epochs that had begun and are not on disk.
        places: list of str, where each kill came.
    """

    def __init__(self, folder, seed, validates=True):
        self.validates = validates
        self.folder, self.done, self.lost, self.places = folder, 0, [], []
        self._draw, self._number = random.Random(seed), 0

    def kill(self, aim=None):
        """Trains from where the last kill left it, and kills it: at a random moment, or at an aim of `killing`."""
        ends_by = self._draw.choice(SIGNALS)
        with self._started(10_000, aim and (aim, self.done + 1), ends_by) as (process, log):
            if aim is None:
                first, longest = self._draw.choice((("FROM", 5.0), (f"BEGIN {self.done + 2}\n", 1.0)))
                wait_for(first, log, process)
                time.sleep(self._draw.uniform(0, longest))
                (process.kill if ends_by == signal.SIGKILL else process.terminate)()
            process.join(PATIENCE)
            text = log.read_text(errors="replace")
            assert process.exitcode == -ends_by, text[-3000:]
        assert aim is None or f"ENDS in {aim}" in text, text[-3000:]
        begun = max(numbers(r"BEGIN (\d+)\n", text), default=self.done)
        self._goes_on(text)
        self.done = checked(self.folder / "logs")
        self.lost.append(begun - self.done)
        self.places.append(f"{ends_by.name}, {aim or RANDOM}")
        assert self.lost[-1] <= 1, (self.places[-1], text[-3000:])

    def finish(self, epochs=1):
        """Trains some more epochs, in peace."""
        with self._started(self.done + epochs) as (process, log):
            process.join(2 * PATIENCE)
            text = log.read_text(errors="replace")
            assert process.exitcode == 0 and "DONE" in text, text[-3000:]
        self._goes_on(text)
        self.done += epochs

    def run(self):
        """The folder of the run; others, of kills before the first checkpoint, hold no weights."""
        *others, last = sorted((self.folder / "logs").iterdir())
        assert not [path for other in others for path in other.glob("mask_rcnn*")]
        return last

    @contextlib.contextmanager
    def _started(self, epochs, *aim):
        """A process that trains, and its log; whatever happens, it does not outlive this."""
        self._number += 1
        log = self.folder / f"log{self._number}.txt"
        process = killing.start(killing.train, str(self.folder / "logs"), epochs, self.validates, *aim, log=log)
        try:
            yield process, log
        finally:
            process.kill()
            process.join()

    def _goes_on(self, text):
        """Each process starts where the one before it was; one that ended before it said so started at all."""
        assert numbers(r"FROM (\d+)\n", text) in ([self.done], []), text[-3000:]


def contents(path):
    """All that an HDF5 file holds, but for the times at which HDF5 says that its groups were made."""
    with h5py.File(path) as file:
        found = {"/": sorted((name, np.asarray(value).tobytes()) for name, value in file.attrs.items())}

        def visit(name, item):
            attributes = sorted((key, np.asarray(value).tobytes()) for key, value in item.attrs.items())
            value = np.asarray(item[()] if isinstance(item, h5py.Dataset) else ())
            content = value.tolist() if value.dtype == object else value.tobytes()
            found[name] = attributes, value.dtype, value.shape, content

        file.visititems(visit)
    return found


def assert_same_run(killed, calm, epochs):
    """The files of a run with kills are those of a calm one that trained as long or longer, bit by bit."""
    late = {path.name for path in calm.iterdir() if int(path.stem[-4:] if path.suffix == ".h5" else 0) > epochs}
    assert {path.name for path in killed.iterdir()} == {path.name for path in calm.iterdir()} - late
    for path in killed.glob("*.h5"):
        one, other = contents(path), contents(calm / path.name)
        assert len(one) > 10 and one == other, path.name
    rows = [list(csv.DictReader((run / "log.csv").read_text().splitlines())) for run in (killed, calm)]
    for row in (*rows[0], *rows[1]):
        del row["data_wait"]  # it is a time
    assert len(rows[0]) == epochs and rows[0] == rows[1][:epochs]


def compare_with_calm_run(folder, chains):
    folder.mkdir()
    calm = Chain(folder, 0, chains[0].validates)
    calm.finish(max(chain.done for chain in chains))
    for chain in chains:
        assert_same_run(chain.run(), calm.run(), chain.done)


@pytest.mark.slow
def test_five_kills(tmp_path):
    chain = Chain(tmp_path, seed=1, validates=False)
    in_writing = "synchronising the folder of the weights", "half of the weights", "after log.csv got its name"
    for aim in (*in_writing, None, None):
        chain.kill(aim)
    chain.finish()
    compare_with_calm_run(tmp_path / "calm", [chain])


@pytest.mark.long
def test_many_kills(tmp_path):
    """Each of six trainings is killed at five random moments and at some of the aims; all aims have their turn."""
    aims, chains = list(killing.AIMS), []
    for seed in range(6):
        (tmp_path / str(seed)).mkdir()
        chain = Chain(tmp_path / str(seed), seed)
        for aim in (None, None, *aims[seed::6], None, None, None):
            chain.kill(aim)
        chain.finish()
        chains.append(chain)
    compare_with_calm_run(tmp_path / "calm", chains)
    places = [place for chain in chains for place in chain.places]
    at_random = sum(place.endswith(RANDOM) for place in places)
    assert at_random >= 30 and len(places) - at_random == len(aims) == len({*places} - {*AT_RANDOM})
    assert {*AT_RANDOM} < {*places}, "both signals"
    keep_beside("kills", training={
        "kills": len(places), "at_random_moments": at_random, "at_aims": len(aims), "trainings": len(chains),
        "most_epochs_lost": max(max(chain.lost) for chain in chains), "epochs": sum(chain.done for chain in chains),
        "same_files_as_a_calm_run": True, "places": Counter(places)})  # fmt: skip

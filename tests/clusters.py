"""Starts programs as the processes of a cluster on this machine, on JAX."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PATH = os.pathsep.join(map(str, (TESTS.parent, TESTS)))  # mrcnn, and what tests share


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


class Cluster:
    """Processes that run the same program; what each prints goes to a file.

    Args:
        count: int, 1 for a process that knows of no cluster.
        folder: for the files.
        program, *arguments: what to run with Python.
        environment: dict of further variables.
    """

    def __init__(self, count, folder, program, *arguments, backend="jax", environment=None):
        self.files = [Path(folder) / f"process{number}.txt" for number in range(count)]
        shared = os.environ | {"KERAS_BACKEND": backend, "PYTHONUNBUFFERED": "1", "PYTHONPATH": PATH}
        shared |= environment or {}
        if count > 1:
            shared |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": f"localhost:{free_port()}",
                       "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count)}  # fmt: skip
        self.processes = []
        for number, path in enumerate(self.files):
            own = shared | ({"KERAS_DISTRIBUTION_PROCESS_ID": str(number)} if count > 1 else {})
            with open(path, "w") as file:
                self.processes.append(subprocess.Popen(
                    [sys.executable, str(TESTS / program), *map(str, arguments)], env=own, stdout=file, stderr=file
                ))  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def text(self, number):
        """What a process has printed so far."""
        return self.files[number].read_text()

    def wait_for(self, number, text, seconds):
        """Waits until a process has printed a text."""
        end = time.monotonic() + seconds
        while text not in self.text(number):
            assert time.monotonic() < end, f"{text!r} did not come:\n{self.text(number)[-3000:]}"
            assert self.processes[number].poll() is None, self.text(number)[-3000:]
            time.sleep(0.2)

    def join(self, seconds):
        """Waits for all; their exit codes and the seconds that it took."""
        begin = time.monotonic()
        codes = [process.wait(max(1, seconds - (time.monotonic() - begin))) for process in self.processes]
        return codes, time.monotonic() - begin

    def finish(self, seconds):
        """Waits for all, which must succeed; what each has printed."""
        codes, _ = self.join(seconds)
        assert not any(codes), [self.text(number)[-3000:] for number in range(len(codes))]
        return [self.text(number) for number in range(len(codes))]

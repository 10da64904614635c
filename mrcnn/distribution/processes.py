"""The processes of a cluster that train together: who they are, and what they tell each other.

The framework's own means describe the cluster: a scheduler that JAX knows (SLURM, Open MPI), a call of
`jax.distributed.initialize` in the user's program, or Keras' variables KERAS_DISTRIBUTION_JOB_ADDRESSES,
KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID. Without any of them a process is alone.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import pickle
import socket
import sys
import warnings

import keras
import numpy as np

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax
    from jax.experimental import multihost_utils

# Variables of Keras: where process 0 is, how many there are, and which of them this is.
KERAS_VARIABLES = (
    "KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID",
)  # fmt: skip
# Where schedulers that JAX knows say how many processes they started.
SCHEDULERS = {"SLURM_STEP_NUM_TASKS": "SLURM", "OMPI_COMM_WORLD_SIZE": "Open MPI"}
# So long a process may say nothing before the others take it for dead and end; how long they wait at start and end.
TIMEOUTS = {"heartbeat_timeout_seconds": 30, "initialization_timeout": 300, "shutdown_timeout_seconds": 20}
# What errors say when a process that others wait for is gone.
_GONE = ("gloo", "nccl", "unavailable", "aborted", "heartbeat", "coordination")
_failed = False


def count():
    """The number of processes that train together, 1 for a process alone."""
    return jax.process_count() if BACKEND == "jax" and jax.distributed.is_initialized() else 1


def index():
    """The number of this process, from 0."""
    return jax.process_index() if count() > 1 else 0


def is_first():
    """Whether this is the process that writes files and prints."""
    return index() == 0


def described(environment):
    """The cluster that environment variables describe.

    Args:
        environment: mapping, such as `os.environ`.

    Returns:
        (what describes it, keyword arguments of `jax.distributed.initialize`), or None for a process alone.

    Raises:
        ValueError: a variable is missing, or is no number.
    """
    given = {name: environment[name] for name in KERAS_VARIABLES if environment.get(name)}
    if given:
        return "Keras' variables", _from_keras(given)
    for name, scheduler in SCHEDULERS.items():
        if environment.get(name, "1").isdecimal() and int(environment.get(name, "1")) > 1:
            return scheduler, {}
    if workers := _tensorflow_workers(environment):
        return "TF_CONFIG", {"num_processes": workers}
    return None


def _from_keras(given):
    if missing := [name for name in KERAS_VARIABLES if name not in given]:
        raise ValueError(f"{', '.join(missing)} must be set too, where {', '.join(given)} is: the address HOST:PORT of "
                         "process 0, the number of processes, and the number of this one, from 0")
    address, *numbers = given.values()
    for name, number in zip(list(given)[1:], numbers, strict=True):
        if not number.isdecimal():
            raise ValueError(f"{name} must be a whole number; it is {number!r}")
    total, own = map(int, numbers)
    if not own < total:
        raise ValueError(f"KERAS_DISTRIBUTION_PROCESS_ID = {own}, but with {total} processes the last is {total - 1}")
    first = address.split(",")[0]
    if ":" not in first:
        raise ValueError(f"KERAS_DISTRIBUTION_JOB_ADDRESSES must be HOST:PORT of process 0; it is {address!r}")
    # A scheduler that JAX finds all the same would leave each process one device.
    return {"coordinator_address": first, "num_processes": total, "process_id": own,
            "cluster_detection_method": "deactivate"}  # fmt: skip


def _tensorflow_workers(environment):
    """The number of workers that TF_CONFIG names, 0 if it is not there or names one."""
    try:
        cluster = json.loads(environment.get("TF_CONFIG") or "{}").get("cluster", {})
        workers = sum(len(cluster.get(role, [])) for role in ("chief", "worker"))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"TF_CONFIG is no description of a cluster in JSON: {error}") from error
    return workers if workers > 1 else 0


def join():
    """Makes this process one of those that train together, if the environment says so.

    It waits for the others; JAX ends the process with a message of its own if they do not come in time. A process that
    is one of them already, or is alone, does nothing.

    Raises:
        ValueError: the environment is wrong, or asks for what the backend cannot do.
        ConnectionError: JAX cannot join them.
        RuntimeError: JAX has computed already.
    """
    if BACKEND == "jax" and jax.distributed.is_initialized():
        return None
    cluster = described(os.environ)
    if cluster is None:
        return None
    source, arguments = cluster
    if BACKEND != "jax" and source in SCHEDULERS.values():  # they may well be meant to work on their own
        return warnings.warn(f"{source} started several processes; on {BACKEND} each works for itself. To train "
                             "together they need KERAS_BACKEND=jax, see docs/distributed.md", stacklevel=3)
    if source == "TF_CONFIG" and BACKEND != "tensorflow":
        return None  # it is not meant for this backend
    if BACKEND != "jax":
        raise ValueError(f"by {source} several processes are to train together: that needs KERAS_BACKEND=jax; "
                         "docs/distributed.md says why and how")
    if "process_id" in arguments:
        _check_port(arguments)
        print("Process {process_id} of {num_processes} joins the others, at {coordinator_address}".format(**arguments),
              flush=True)  # fmt: skip
    # It would catch SIGTERM for programs that ask it, and those that do not would never end.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, **TIMEOUTS)
    except RuntimeError as error:
        if "must be called before" in str(error):
            raise RuntimeError(f"{source} describes several processes, but JAX has computed something already: make "
                               "the MaskRCNN first, or call jax.distributed.initialize() at the start") from error
        raise ConnectionError(f"cannot join the processes that {source} describes: {error}") from error
    atexit.register(_leave)
    sys.excepthook = functools.partial(_fail_and_report, sys.excepthook)
    if is_first():
        print(f"{count()} processes work together, on {jax.device_count()} devices", flush=True)
    return None


@contextlib.contextmanager
def together(last_checkpoint=lambda: None):
    """Work that all processes do together: a process that fails in it ends without waiting for the others.

    Args:
        last_checkpoint: function that returns the path of the newest checkpoint, or None.

    Raises:
        ConnectionError: another process has gone.
    """
    global _failed
    try:
        yield
    except BaseException as error:
        fail()
        # JAX raises a kind of its own, or a ValueError of its network, depending on when it learns of it.
        words = _GONE if type(error).__name__ == "JaxRuntimeError" else ("gloo ", "nccl ")
        if _failed and any(word in str(error).lower() for word in words):
            raise ConnectionError(_is_gone(error, last_checkpoint())) from error
        raise
    _failed = False


def _is_gone(error, checkpoint):
    again = f"they go on from {checkpoint} with these weights" if checkpoint else "there is no checkpoint yet"
    return (f"process {index()} of {count()} stops, because another one has ended or cannot be reached any more; what "
            f"that one printed says why. Start all of them again: {again}. ({str(error).splitlines()[0]})")


def _check_port(arguments):
    """Raises a ConnectionError in process 0 if its port is taken, over which JAX would crash."""
    host, _, port = arguments["coordinator_address"].rpartition(":")
    if arguments["process_id"]:
        return
    try:
        with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(("", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionError(f"process 0 cannot listen at {host}:{port} ({error}): choose another port, for all "
                              "processes") from error


def fail():
    """Tells that this process has failed, so that it will not wait for the others when it ends."""
    global _failed
    _failed = count() > 1


def _fail_and_report(report, *error):
    fail()
    report(*error)


def check_same(**values):
    """Raises a ValueError that names the values in which the processes differ; all of them have to call it."""
    everyones = gather(values)
    different = [name for name in values if len({repr(theirs[name]) for theirs in everyones}) > 1]
    if different:
        name = different[0]
        theirs = "; ".join(f"process {number}: {given[name]!r}"[:200] for number, given in enumerate(everyones))
        raise ValueError(f"the processes that train together differ in {', '.join(different)} ({theirs}): all need the "
                         "same program, settings and data")


def _leave():
    """At the end of a process that failed: goes at once, where JAX would wait for all others to end as well."""
    if _failed:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def from_first(value):
    """What the first process has: any value that can be pickled."""
    return gather(value)[0] if count() > 1 else value


def arrays_from_first(arrays):
    """The arrays of the first process, for a list of as many of the same shapes and types."""
    return multihost_utils.broadcast_one_to_all(arrays) if count() > 1 else arrays


def gather(value):
    """The values of all processes, a list in their order; all of them have to call it."""
    if count() == 1:
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(own)))
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(own)] = own
    everyone = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(everyone, sizes, strict=True)]

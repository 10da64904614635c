"""A very small training in a process of its own, which ends itself or is ended at any moment.

The processes come from multiprocessing's fork server, which imports the framework once for all of them.
"""

import multiprocessing
import os
import pathlib
import sys
import time
from multiprocessing import forkserver

import h5py
import keras
import tiny

from mrcnn import model as modellib
from mrcnn.data import files
from mrcnn.engine import archives, callbacks, h5_layout

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["killing"])


def start(function, *arguments, log):
    """Starts a process that calls a function of this module and writes all that it says into the file `log`."""
    _start_server()
    process = PROCESSES.Process(target=_run, args=(function, arguments, str(log)))
    process.start()
    return process


def _start_server():
    """Starts the fork server, if need be; until Python 3.13 it looks for what it is to import by PYTHONPATH alone."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


def _run(function, arguments, log):
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    function(*arguments)


def train(folder, epochs, validates, aim=None, signal=None):
    """Trains up to a number of epochs, from the last checkpoint if there is one.

    Args:
        folder: model_dir.
        epochs: int, in all.
        validates: bool, with validation, which takes longer to begin.
        aim: (name of one of `AIMS`, epoch): where the process is to end itself.
        signal: that does it.
    """
    model = modellib.MaskRCNN("training", tiny.config(), folder)
    try:
        path = model.find_last()
    except FileNotFoundError:
        print("FROM 0", flush=True)
    else:
        model.load_weights(path, by_name=True)
        print(f"FROM {model.epoch}", flush=True)
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: print(f"BEGIN {epoch + 1}", flush=True))
    if aim is not None:
        name, epoch = aim
        aimed = AIMS[name]
        begin = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda done, logs: aimed(lambda: end_by(signal, name)) if done + 1 == epoch else None
        )
    else:
        begin = keras.callbacks.Callback()
    validation = tiny.Squares(4, start=100) if validates else None
    model.train(tiny.Squares(12), validation, 0.01, epochs, "all", custom_callbacks=[watch, begin])
    print("DONE", flush=True)


def end_by(signal, where):
    print(f"ENDS in {where}", flush=True)
    os.kill(os.getpid(), signal)
    time.sleep(60)  # until the signal arrives


def _before(owner, name, count=1, after=False):
    """An aim: the process ends before (or after) the count-th call of a function from now on."""

    def aim(end):
        original, calls = getattr(owner, name), []

        def ends(*arguments, **keywords):
            calls.append(name)
            if len(calls) == count and not after:
                end()
            result = original(*arguments, **keywords)
            if len(calls) == count:
                end()
            return result

        setattr(owner, name, ends)

    return aim


def _half_written(which):
    """An aim: half of the which-th file of the epoch (log, optimizer, weights) is written."""

    def aim(end):
        original, calls = h5_layout.write_whole, []

        def ends(path, content):
            calls.append(path)
            if len(calls) < which:
                return original(path, content)
            with files.atomic(path) as temporary:
                temporary.write_bytes(bytes(content)[: len(content) // 2])
                end()

        h5_layout.write_whole = callbacks.write_whole = ends

    return aim


# Where a process may be told to end itself, once in an epoch.
AIMS = {
    "half of log.csv": _half_written(1),
    "half of the optimizer": _half_written(2),
    "half of the weights": _half_written(3),
    "before log.csv gets its name": _before(os, "replace", 1),
    "after log.csv got its name": _before(os, "replace", 1, after=True),
    "before the optimizer gets its name": _before(os, "replace", 2),
    "after the optimizer got its name": _before(os, "replace", 2, after=True),
    "before the weights get their name": _before(os, "replace", 3),
    "after the weights got their name": _before(os, "replace", 3, after=True),
    "synchronising the log": _before(os, "fsync", 1),
    "synchronising the folder of the weights": _before(os, "fsync", 6),
    "an array of the optimizer": _before(h5py.Group, "create_dataset", 5),
    "an array of the weights": _before(h5py.Group, "create_dataset", 90),
    "between the log and the optimizer": _before(callbacks, "save_optimizer"),
}


def fetch(url, folder, aim=None, signal=None):
    """Downloads an archive and unpacks it; `aim`, if any, is (name of one of `FETCH_AIMS`, count)."""
    if aim is not None:
        name, count = aim
        _before(*FETCH_AIMS[name], count)(lambda: end_by(signal, name))
    archives.fetch(url, folder, verbose=0)
    print("DONE", flush=True)


FETCH_AIMS = {
    "a file gets its name": (os, "replace"),
    "a file is removed": (pathlib.Path, "unlink"),
    "a file is opened": (pathlib.Path, "open"),
    "what came is synchronised": (os, "fsync"),
}

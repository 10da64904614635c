"""Many steps and many detections in one process: nothing leaks, nothing slows down."""

import copy
import gc
import json
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import reliability
import soak
from scripts import ROOT

from mrcnn.utils import resize_image

HEALTHY = {"threads_left": []} | {
    part: {
        "steps": 100, "memory_mb": {"after_warm_up": 900, "growth": 12.5},
        "ms_per_step": {"start": 30.0, "end": 31.0, "ratio": 1.03},
        "threads": [4, 4], "system_threads": [20, 20], "handles": [13, 12], "functions": [6, 6],
    } for part in soak.PARTS
}  # fmt: skip


def run(tmp_path, steps, calls):
    """Figures of a run in a process of its own."""
    output = tmp_path / "soak.json"
    command = [sys.executable, ROOT / "tests" / "soak.py", "--steps", steps, "--calls", calls, "--output", output]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=3000, check=False)
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    return json.loads(output.read_text())


# ------------------------------------------------------------------ the watch sees
@pytest.mark.parametrize("part", soak.PARTS)
@pytest.mark.parametrize(("change", "message"), [
    ({"memory_mb": {"growth": 100.0}}, "memory grew by 100.0 MB"), ({"ms_per_step": {"ratio": 1.11}}, "1.11 times"),
    ({"threads": [4, 5]}, "4 threads became 5"), ({"handles": [12, 13]}, "12 handles became 13"),
    ({"functions": [6, 7]}, "6 functions became 7"), ({"system_threads": [20, 21]}, "20 system_threads became 21")])
def test_problems_are_told(part, change, message):
    figures = copy.deepcopy(HEALTHY)
    assert soak.problems(figures) == []
    figures[part] |= change
    (problem,) = soak.problems(figures)
    assert problem.startswith(f"{part}: ") and message in problem


def test_epochs_that_take_longer_are_told():
    figures = copy.deepcopy(HEALTHY)
    figures["training"]["s_per_epoch"] = {"start": 1.0, "end": 1.2, "ratio": 1.2}
    assert soak.problems(figures, slower=1.2) == []
    assert soak.problems(figures) == ["training: an epoch takes 1.2 times as long as at the start"]
    watch = soak.Watch()
    watch.epochs = [9, 5, 1, 2, 3, 7, 7, 4, 6, 8]  # when the network is compiled, and the rest of the warm-up, apart
    assert watch.epoch_figures() == {"s_per_epoch": {"start": 2, "end": 6, "ratio": 3}}


def test_photos_after_the_warm_up_have_new_sizes_of_the_same_molded_shapes():
    """Whatever is kept for each size would grow with them; the network itself sees what it has seen."""
    warm, seen, shapes, new = 400, set(), {}, 0
    photos = soak.Photos(warm)
    for call in range(2000):
        sizes = [image.shape[:2] for image in photos.of(call)]
        assert len(sizes) == 1 + call % soak.CYCLE % 3
        assert shapes.setdefault(call % soak.CYCLE, list(map(soak.molded_shape, sizes))) == [
            soak.molded_shape(size) for size in sizes]
        fresh = set(sizes) - seen
        assert not fresh or call < soak.CYCLE or call >= warm
        new += len(fresh) if call >= warm else 0
        seen |= fresh
    assert new == photos.new > 800
    for size in ((65, 128), (129, 192), (200, 70)):
        padded = resize_image(np.zeros((*size, 3), np.uint8), 64, 64, mode="pad64")[0]
        assert soak.molded_shape(size) == padded.shape[:2]


def test_threads_left_are_told():
    assert soak.problems(HEALTHY | {"threads_left": ["Worker_1"]}) == ["threads left: ['Worker_1']"]
    assert soak.problems(HEALTHY, slower=1.02) == [
        f"{part}: a step takes 1.03 times as long as at the start" for part in soak.PARTS]


def test_the_watch_sees_memory_threads_files_and_time(tmp_path):
    watch, kept, gate = soak.Watch(), [], threading.Event()
    thread = threading.Thread(target=gate.wait)
    gc.collect()
    watch.count()
    thread.start()
    try:
        with open(tmp_path / "open", "w"):
            for step in range(20):
                watch.begin()
                kept.append(bytearray(b"x") * (4 * 10**7 if step > 10 else 1))
                gate.wait(0.02 if step > 10 else 0.001)
                watch.end()
            watch.count()
    finally:
        gate.set()
        thread.join()
    figures = watch.figures(group=2)
    assert figures["steps"] == 20 and 280 < figures["memory_mb"]["growth"] < 440
    assert figures["ms_per_step"]["ratio"] > 3 and figures["ms_per_step"]["end"] >= 20
    assert all(figures[kind][1] == figures[kind][0] + 1 for kind in ("threads", "handles"))
    assert figures["system_threads"][1] > figures["system_threads"][0]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's traces")
def test_the_watch_sees_traced_functions():
    import tensorflow as tf

    watch, function = soak.Watch(), tf.function(lambda x: x + 1)
    function(tf.zeros(2))
    watch.count()
    function(tf.zeros(3))  # another shape, another trace
    watch.count()
    assert watch.counts[1]["functions"] == watch.counts[0]["functions"] + 1


# ------------------------------------------------------------------ the runs
@pytest.mark.slow
def test_a_run_leaks_nothing(tmp_path):
    """A sample; how long a step takes is told roughly only, as other work may go on beside it."""
    assert soak.problems(run(tmp_path, 200, 100), slower=1.6) == []


@pytest.mark.long
def test_a_long_run_leaks_nothing(tmp_path):
    figures = run(tmp_path, 2000, 2000)
    print(f"\n{json.dumps(figures, indent=1)}")
    assert soak.problems(figures) == []
    reliability.keep("soak", figures)

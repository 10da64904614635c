"""A training that is killed at any moment leaves a whole checkpoint behind, and goes on from it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrcnn.engine import weights

ROOT = Path(__file__).resolve().parents[1]
TRAINING = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_interruption import tiny_training
tiny_training({folder!r}, epochs={epochs})
"""


def tiny_training(folder, epochs):
    """Trains a very small network on drawn shapes, from the last checkpoint if there is one."""
    sys.path.append(str(ROOT / "samples" / "shapes"))
    import shapes

    from mrcnn import model as modellib

    class TinyConfig(shapes.SmallShapesConfig):
        NAME = "tiny"
        IMAGES_PER_GPU = 1
        STEPS_PER_EPOCH = 2
        VALIDATION_STEPS = 1
        SEED = 3

    dataset = shapes.ShapesDataset()
    dataset.load_shapes(20, 128, 128, seed=1)
    dataset.prepare()
    model = modellib.MaskRCNN("training", TinyConfig(), folder)
    try:
        path = model.find_last()
    except FileNotFoundError:
        print("FROM 0", flush=True)
    else:
        model.load_weights(path, by_name=True)
        print(f"FROM {model.epoch}", flush=True)
    model.train(dataset, dataset, 0.01, epochs, "all")
    print("DONE", flush=True)


def start(folder, epochs, log):
    code = TRAINING.format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(folder), epochs=epochs)
    return subprocess.Popen([sys.executable, "-u", "-c", code], stdout=log, stderr=subprocess.STDOUT)


def epochs_begun(text):
    """Number of the last epoch that the progress of a training names."""
    return max((int(n) for n in re.findall(r"Epoch (\d+)/", text)), default=0)


def kill_and_resume(folder, kills, seed):
    rng, done = random.Random(seed), 0
    for round_ in range(kills):
        with open(folder / f"log{round_}.txt", "wb") as log:
            process = start(folder / "logs", 1000, log)
            try:
                path = folder / f"log{round_}.txt"
                while epochs_begun(path.read_text(errors="replace")) < done + 2:
                    assert process.poll() is None, path.read_text(errors="replace")[-2000:]
                    time.sleep(0.05)
                time.sleep(rng.uniform(0, 1.5))  # into a step, a validation or a checkpoint
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        text = path.read_text(errors="replace")
        assert f"FROM {done}\n" in text
        last = weights.find_last(str(folder / "logs"), "tiny")
        assert weights.is_whole(last)
        done = int(re.search(r"_(\d{4})\.h5$", last).group(1))
        assert done >= epochs_begun(text) - 1, "more than the epoch that was running is lost"
    with open(folder / "end.txt", "wb") as log:
        process = start(folder / "logs", done + 1, log)
        assert process.wait(timeout=300) == 0
    text = (folder / "end.txt").read_text(errors="replace")
    assert f"FROM {done}\n" in text and "DONE" in text
    assert len(os.listdir(folder / "logs")) == 1, "one run, one folder"


@pytest.mark.slow
def test_killed_once(tmp_path):
    kill_and_resume(tmp_path, kills=1, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again(tmp_path, seed):
    kill_and_resume(tmp_path, kills=8, seed=seed)

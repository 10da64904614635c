"""A program of its own for each number of devices or processes: five steps of the original's training fixture.

    python tests/sharing.py OUTPUT.npz DEVICES IMAGES LAYERS LEARNING_RATE

Devices are those of one process; IMAGES are those of the whole batch: the fixture's two, repeated. Where the
environment describes several processes each takes its share. The first one writes the losses and how the weights have
changed.
"""

import sys

import golden_files
import numpy as np
import seeded

from mrcnn.config import Config
from mrcnn.distribution import processes
from mrcnn.model import MaskRCNN
from mrcnn.network.losses import LOSS_NAMES
from mrcnn.parallel_model import divide_cpu

STEPS, MOMENTUM = 5, 0.9


def main(output, device_count, images, layers, learning_rate):
    device_count, images = int(device_count), int(images)
    golden = golden_files.load("training_step_r50")
    if device_count > 1:
        divide_cpu(device_count)
    processes.join()
    each = images // processes.count()
    sizes = {"GPU_COUNT": device_count, "IMAGES_PER_GPU": each // device_count}
    model = MaskRCNN("training", golden_files.make_config(Config, golden.settings(sizes)), "unused")
    seeded.fill(model.keras_model)
    before = seeded.snapshot(model.keras_model)
    model.set_trainable(layers, verbose=0)
    model.compile(float(learning_rate), MOMENTUM)
    batch = [np.concatenate([golden[f"batch/{i}"]] * (images // 2)) for i in range(golden.index["n_inputs"])]
    own = [array[processes.index() * each :][:each] for array in batch]
    losses = []
    for _ in range(STEPS):
        logs = model.keras_model.train_on_batch(own, return_dict=True)
        losses.append([float(logs[name]) for name in ("loss", *LOSS_NAMES)])
    after = seeded.snapshot(model.keras_model)
    if processes.is_first():
        changes = {"/".join(key): after[key] - before[key] for key in before if (after[key] != before[key]).any()}
        np.savez(output, losses=losses, **changes)


if __name__ == "__main__":
    main(*sys.argv[1:])

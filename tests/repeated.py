"""A tiny training in a process of its own, and a digest of every bit of what it learned.

    python tests/repeated.py FOLDER '{"epochs": 2, "settings": {"DATA_WORKERS": 2}, "vary_by": "function"}'

prints a line of JSON: the losses of every step, as exact hexadecimal numbers, a digest of each weight by its path, and
the name of the run's folder. Where REPEATED_GATE names a file, the training waits for it, ready to start.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tiny

from mrcnn.engine.mask_rcnn import MaskRCNN


def vary(image, masks, rng):
    """Mirrors every second image, and makes it brighter or darker."""
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, ::-1]
    return np.clip(image * rng.uniform(0.7, 1.3), 0, 255).astype(np.uint8), masks


def augmentation(name):
    """The augmentation of a name: None, "function", "imgaug" or "albumentations"."""
    if name == "imgaug":
        from imgaug import augmenters

        return augmenters.Sequential([augmenters.Fliplr(0.5), augmenters.Affine(rotate=(-20, 20))])
    if name == "albumentations":
        import albumentations

        return albumentations.Compose([albumentations.HorizontalFlip(p=0.5), albumentations.RandomBrightnessContrast()])
    return vary if name == "function" else None


def digests(model):
    """{path: digest} of the weights of a keras.Model."""
    return {path: hashlib.sha256(array.tobytes()).hexdigest()[:16] for path, array in tiny.weights_of(model).items()}


def small(**settings):
    """A ResNet-50 on images of 64 pixels: the convolutions of real use, with few channels elsewhere."""
    return tiny.config(BACKBONE="resnet50", COMPUTE_BACKBONE_SHAPE=None, **settings)


def train(folder, epochs=2, settings=None, vary_by=None, resnet=False, resume=False, clock=None):
    """Trains, with `resume` from the last checkpoint on: {"losses", "weights", "folder"}."""
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append({name: float(value).hex() for name, value in sorted(logs.items())})

    if clock:
        stop_the_clock(*clock)
    model = MaskRCNN("training", (small if resnet else tiny.config)(**(settings or {})), folder)
    if resume:
        model.load_weights(model.find_last())
    wait_for_the_gate(os.environ.get("REPEATED_GATE"))
    model.train(tiny.Squares(7), tiny.Squares(3, start=50), 0.01, epochs, "all",
                augmentation=augmentation(vary_by), custom_callbacks=[Losses()])  # fmt: skip
    return {"losses": losses, "weights": digests(model.keras_model), "folder": os.path.basename(model.log_dir)}


def stop_the_clock(*now):
    """Has runs start at this time, so that several do in the same minute for certain."""
    from mrcnn.engine import mask_rcnn

    class Clock(mask_rcnn.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(*now)

    mask_rcnn.datetime.datetime = Clock


def wait_for_the_gate(gate):
    """Leaves a file `ready...` beside the gate, a path or None, and waits until the gate is there."""
    if not gate:
        return
    Path(gate).with_name(f"ready{os.getpid()}").touch()
    while not os.path.exists(gate):
        time.sleep(0.001)


if __name__ == "__main__":
    print("RESULT " + json.dumps(train(sys.argv[1], **json.loads(sys.argv[2]))))

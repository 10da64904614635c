"""`python -m mrcnn.parallel_model`: a small network learns drawn digits on two devices, and is compared with one."""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from mrcnn.distribution.devices import check_devices, divide_cpu, found_devices
from mrcnn.distribution.parallel import ParallelModel
from mrcnn.network.seeding import set_random_seed

SIDE = 28
CLASSES = 10
# Of the losses, relative: sums are taken in another order, and what rounding does grows from step to step.
EARLY, TOLERANCE_EARLY, TOLERANCE = 10, 1e-5, 1e-2


def draw_digits(count, seed):
    """Draws digits of any size and place, bright on dark, in noise.

    Args:
        count: int.
        seed: int.

    Returns:
        images [count, 28, 28, 1] float32 in 0..1, and labels [count] int32.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count).astype(np.int32)
    images = np.empty((count, SIDE, SIDE), np.float32)
    fonts = [PIL.ImageFont.load_default(size) for size in range(16, 25)]
    for image, label in zip(images, labels, strict=True):
        canvas = PIL.Image.new("L", (SIDE, SIDE))
        place = tuple(SIDE / 2 + random.integers(-4, 5, 2))
        font = fonts[random.integers(len(fonts))]
        PIL.ImageDraw.Draw(canvas).text(place, str(label), fill=int(random.integers(140, 256)), font=font, anchor="mm")
        image[:] = np.clip(np.asarray(canvas) / 255 + random.normal(0, 0.1, (SIDE, SIDE)), 0, 1)
    return images[..., np.newaxis], labels


def build_model(x_train, num_classes):
    """A small convolutional network that tells classes apart.

    Args:
        x_train: [count, height, width, channels] float, for its shape.
        num_classes: int.

    Returns:
        keras.Model from images to probabilities [batch, num_classes].
    """
    inputs = x = keras.Input(x_train.shape[1:], name="input_image")
    for number, channels in enumerate((32, 64), start=1):
        x = keras.layers.Conv2D(channels, 3, activation="tanh", padding="same", name=f"conv{number}")(x)
        x = keras.layers.AveragePooling2D(2, name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(128, activation="tanh", name="dense1")(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="dense2")(x)
    return keras.Model(inputs, outputs, name="digit_classifier")


def train(device_count, batches, test, seed=0):
    """Trains a new network.

    Args:
        device_count: int.
        batches: list of (images, labels).
        test: (images, labels) that it has not seen.
        seed: int, of its first weights.

    Returns:
        losses (list of float, one per batch), weights (list of arrays), share of the test images that it names
        rightly, and seconds per step after the first.
    """
    set_random_seed(seed)
    model = build_model(batches[0][0], CLASSES)
    if device_count > 1:
        model = ParallelModel(model, device_count)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0)
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    losses, begin = [], None
    for images, labels in batches:
        losses.append(float(model.train_on_batch(images, labels)))
        begin = begin or time.perf_counter()
    seconds = (time.perf_counter() - begin) / max(len(batches) - 1, 1)
    found = model.predict_on_batch(test[0]).argmax(axis=-1)
    return losses, model.get_weights(), float(np.mean(found == test[1])), seconds


def main(arguments=None):
    """The command line; returns whether the two trainings are the same."""
    parser = argparse.ArgumentParser(prog="python -m mrcnn.parallel_model", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--devices", type=int, default=2, metavar="<n>", help="number of devices (default: 2)")
    parser.add_argument("--steps", type=int, default=300, metavar="<n>", help="batches to train on (default: 300)")
    parser.add_argument("--gpus", action="store_true", help="on GPUs, instead of a CPU that is divided into devices")
    args = parser.parse_args(arguments)
    if args.devices < 2 or args.steps < 1:
        parser.error("--devices must be 2 or more, and --steps 1 or more")
    batch_size = 32 * args.devices
    try:
        if not args.gpus:
            divide_cpu(args.devices)
        elif len(found_devices()) < args.devices and keras.backend.backend() != "torch":
            found = ", ".join(found_devices())
            parser.error(f"--devices {args.devices}: found {found}. Without --gpus the CPU is divided into so many")
        check_devices(args.devices)
    except (RuntimeError, ValueError) as error:
        parser.error(str(error))
    print(f"Backend {keras.backend.backend()}; devices: {', '.join(found_devices()[: args.devices])}")
    images, labels = draw_digits(args.steps * batch_size, seed=1)
    batches = [(images[k : k + batch_size], labels[k : k + batch_size]) for k in range(0, len(images), batch_size)]
    test = draw_digits(16 * batch_size, seed=2)
    print(f"{args.steps} batches of {batch_size} drawn digits")
    results = {count: train(count, batches, test) for count in (1, args.devices)}
    print(f"{'':10} {'first loss':>12} {'last loss':>12} {'right of new digits':>20} {'ms per step':>12}")
    for count, (losses, _, right, seconds) in results.items():
        print(f"{count} device{'s' * (count > 1):3} {losses[0]:12.6f} {losses[-1]:12.6f} {right:20.1%} "
              f"{1000 * seconds:12.1f}")
    same = report(results[1], results[args.devices])
    print("The same training." if same else "NOT the same training.")
    return same


def report(one, many):
    """Prints how far two results of `train` are apart; returns whether they are the same but for rounding."""
    differences = [abs(a - b) / max(abs(a), 1e-3) for a, b in zip(one[0], many[0], strict=True)]
    early, largest = max(differences[:EARLY]), max(differences)
    change = max(np.abs(a - b).max() for a, b in zip(one[1], many[1], strict=True))
    print(f"Largest difference: of the first {EARLY} losses {early:.1e}, of all {largest:.1e} (relative); of a weight "
          f"at the end {change:.1e}")
    return bool(early < TOLERANCE_EARLY and largest < TOLERANCE)

"""A long run in one process: many training steps, then many calls of `detect`, and what they take as time goes on.

    python tests/soak.py --steps 2000 --calls 2000 --output soak.json

A run warms up for its first fifth; after that nothing may grow any more, though every second call of `detect` has
photos of sizes that never came before. `problems` says what did.
"""

import argparse
import gc
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
MOST_GROWTH = 100  # megabytes
EPOCHS = 10  # of the training
CYCLE = 20  # calls after which the photos come again
OFTEN = 6  # cycles before the first call that counts: by then shapes that come often have graphs of their own
BLOCK = 64  # photos are padded to multiples of it, and enlarged if they are smaller
WARM_UP = 0.2
PARTS = ("training", "detection")
# What is counted, and must not become more.
COUNTED = ("threads", "system_threads", "handles", "functions")


class Watch:
    """What a process holds and how long it works, from step to step."""

    def __init__(self):
        self.process = psutil.Process()
        self.memory, self.seconds, self.counts, self.epochs = [], [], [], []

    def begin(self):
        self._wall = time.perf_counter()

    def end(self):
        """One step is over."""
        self.seconds.append(time.perf_counter() - self._wall)
        self.memory.append(self.process.memory_info().rss / 1e6)
        self.begin()

    def count(self):
        """Threads of Python and of the system, open files and sockets, and TensorFlow's traced functions."""
        gc.collect()
        handles = self.process.num_fds() if hasattr(self.process, "num_fds") else self.process.num_handles()
        functions = sum(type(thing).__name__ == "ConcreteFunction" for thing in gc.get_objects())
        values = threading.active_count(), self.process.num_threads(), handles, functions
        self.counts.append(dict(zip(COUNTED, values, strict=True)))

    def figures(self, group=1):
        """What became of it; times are medians of a fifth of the run, over sums of `group` steps each.

        The first count is of the end of the warm-up, the last of the end.
        """
        warm = int(WARM_UP * len(self.memory))
        sums = np.reshape(self.seconds, (-1, group)).sum(axis=1) / group
        window = max(1, int(WARM_UP * len(sums)))
        first, last = np.median(sums[window:2 * window]), np.median(sums[-window:])
        return {
            "steps": len(self.seconds),
            "memory_mb": {"after_warm_up": round(self.memory[warm]), "growth": round(max(self.memory[warm:])
                          - self.memory[warm], 1)},
            "ms_per_step": {"start": round(1e3 * first, 2), "end": round(1e3 * last, 2),
                            "ratio": round(last / first, 3)},
            **{name: [self.counts[0][name], self.counts[-1][name]] for name in COUNTED},
        }  # fmt: skip

    def epoch_figures(self):
        """Medians of the seconds of three epochs after the warm-up, and of the last three."""
        warm = int(WARM_UP * len(self.epochs))
        first, last = np.median(self.epochs[warm:warm + 3]), np.median(self.epochs[-3:])
        return {"s_per_epoch": {"start": round(first, 2), "end": round(last, 2), "ratio": round(last / first, 3)}}


def molded_shape(size):
    """(height, width) to which a photo is padded; None for one that is enlarged before."""
    return tuple(-(-side // BLOCK) * BLOCK for side in size) if min(size) > BLOCK else None


class Photos:
    """One to three photos for each call: the same ones in a cycle, and of new sizes in every second call later on.

    Args:
        warm: int, calls before the first new size.

    Attributes:
        new: int, sizes that came after the warm-up, and never before.
    """

    def __init__(self, warm):
        import tiny

        self._make, self._warm, self._draw, self.new = tiny.photo, warm, np.random.default_rng(5), 0
        sizes = self._draw.integers(20, 240, (CYCLE, 3, 2)).tolist()
        self._photos = [[tiny.photo(*size) for size in some[:1 + n % 3]] for n, some in enumerate(sizes)]
        self._seen = {image.shape[:2] for images in self._photos for image in images}

    def of(self, call):
        """The photos of a call, list of [H, W, 3] uint8."""
        images = self._photos[call % CYCLE]
        return images if call < self._warm or call % 2 else [self._another(image) for image in images]

    def _another(self, image):
        """A photo of a new size that is padded to the same shape; the photo itself, if it is enlarged."""
        size, shape = image.shape[:2], molded_shape(image.shape[:2])
        if shape is None:
            return image
        while size in self._seen:
            size = tuple(int(side - self._draw.integers(0, min(BLOCK, side - BLOCK + 1))) for side in shape)
        self._seen.add(size)
        self.new += 1
        return self._make(*size)


def train(steps, folder):
    """A training of `steps` steps in ten epochs, with validation, augmentation, logs and checkpoints: its `Watch`."""
    import keras
    import tiny

    from mrcnn.engine.mask_rcnn import MaskRCNN

    watch = Watch()

    class Watcher(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.counts = epoch >= WARM_UP * EPOCHS
            self.begun = time.perf_counter()
            watch.begin()  # what an epoch does before and after its steps is not a step

        def on_epoch_end(self, epoch, logs=None):  # after validation and checkpoint
            watch.epochs.append(time.perf_counter() - self.begun)

        def on_train_batch_end(self, batch, logs=None):
            watch.end()
            if self.counts and batch == steps // EPOCHS // 2:  # where all threads are at work
                watch.count()
                watch.begin()

    def flip(image, masks, rng):
        return (image[:, ::-1], masks[:, ::-1]) if rng.random() < 0.5 else (image, masks)

    settings = {"STEPS_PER_EPOCH": steps // EPOCHS, "VALIDATION_STEPS": 2, "DATA_CACHE": 1}
    model = MaskRCNN("training", tiny.config(**settings), folder)
    model.train(tiny.Squares(37), tiny.Squares(4, start=100), 1e-3, EPOCHS, "all", augmentation=flip,
                custom_callbacks=[Watcher()])  # fmt: skip
    return watch, model.find_last()


def detect(calls, weights, folder):
    """`calls` calls of `detect` with one to three photos of many sizes, and masks of each kind.

    Returns:
        (their `Watch`, number of sizes that came after the warm-up for the first time).
    """
    import tiny

    from mrcnn.engine.mask_rcnn import MaskRCNN

    watch, photos = Watch(), Photos(WARM_UP * calls)
    model = MaskRCNN("inference", tiny.config(IMAGE_RESIZE_MODE="pad64"), folder)
    model.load_weights(weights)
    for call in range(OFTEN * CYCLE):
        model.detect(photos.of(call % CYCLE))
    for call in range(calls):
        if call % CYCLE == 0 and call >= WARM_UP * calls:
            watch.count()
        images = photos.of(call)
        watch.begin()
        model.detect(images, masks=("full", "box", "rle")[call % 3])
        watch.end()
    watch.count()
    return watch, photos.new


def soak(steps, calls):
    """Trains and detects: figures of both parts, and the threads of Python that outlived them."""
    before = set(threading.enumerate())
    with tempfile.TemporaryDirectory() as folder:
        training, weights = train(steps, folder)
        detection, new_sizes = detect(calls, weights, folder)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    left = sorted(thread.name for thread in set(threading.enumerate()) - before)
    return {"training": training.figures() | training.epoch_figures(),
            "detection": {"new_sizes": new_sizes} | detection.figures(CYCLE), "threads_left": left}  # fmt: skip


def problems(figures, slower=1.1):
    """What is wrong with a run, as a list of texts.

    Args:
        figures: of `soak`.
        slower: float, how many times as long as at its start a step may take at the end.
    """
    found = [f"threads left: {figures['threads_left']}"] if figures["threads_left"] else []
    for name in PARTS:
        part = figures[name]
        if part["memory_mb"]["growth"] >= MOST_GROWTH:
            found.append(f"{name}: memory grew by {part['memory_mb']['growth']} MB")
        if part["ms_per_step"]["ratio"] > slower:
            found.append(f"{name}: a step takes {part['ms_per_step']['ratio']} times as long as at the start")
        if (ratio := part.get("s_per_epoch", {}).get("ratio", 1)) > slower:
            found.append(f"{name}: an epoch takes {ratio} times as long as at the start")
        found += [f"{name}: {part[kind][0]} {kind} became {part[kind][1]}"
                  for kind in COUNTED if part[kind][1] > part[kind][0]]  # fmt: skip
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="training steps, a multiple of 10")
    parser.add_argument("--calls", type=int, default=2000, help="calls of detect, a multiple of 100")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    args.output.write_text(json.dumps(soak(args.steps, args.calls), indent=1))


if __name__ == "__main__":
    main()

"""Trains the small network of the Shapes sample from nothing, and shows what it has learned.

Run by `make demo`. Everything goes to one folder: pictures, the loss curve, the weights and `results.json`.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time

import numpy as np

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would cut through the progress bar
    os.environ["MPLBACKEND"] = "agg"  # all pictures go to files, and no window system is needed
    # a checkout runs without being installed
    sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

import shapes  # beside this file

from mrcnn import visualize
from mrcnn.data.files import atomic

IMAGES = 50  # to evaluate on
SHOWN = 8  # of them, in the picture


def parse_arguments(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train a small Mask R-CNN on drawn shapes, and show what it learned.")
    parser.add_argument("--output", default="demo", metavar="<folder>", help="where all files go (default: demo)")
    parser.add_argument("--steps", type=shapes.count_argument, default=3000, help="of training (default: 3000)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: 0)")
    args = parser.parse_args(arguments)
    if not 0 <= args.seed < 2**32 - 2:
        parser.error(f"--seed must lie between 0 and 2**32 - 3; received {args.seed}")
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        parser.error(f"--output {args.output} is a file; give a folder")
    return args


def progress_bar(steps):
    """A callback that takes the place of Keras's bar, with one bar and the time left for the whole training."""
    import keras
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stdout)  # as it is now

    class WholeTraining(keras.callbacks.ProgbarLogger):
        bar = None

        def stop(self):
            if self.bar is not None:
                self.bar.stop()

        def on_train_begin(self, logs=None):
            self.bar = Progress(
                TextColumn("Training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(), TextColumn("left"), console=console, redirect_stdout=False,
            )  # fmt: skip
            self.task = self.bar.add_task("", total=steps, loss="getting ready")
            self.started = time.monotonic()
            self.bar.start()

        def on_train_batch_end(self, batch, logs=None):
            self.bar.update(self.task, advance=1, loss=f"loss {float(logs['loss']):.3f}")

        def on_epoch_end(self, epoch, logs=None):
            done = self.bar.tasks[0].completed
            if not console.is_terminal:  # a log file, where no bar can move
                left = (time.monotonic() - self.started) * (steps - done) / done
                console.print(f"step {done} of {steps}, loss {logs['loss']:.3f}, about {left:.0f} s left")

        def _quiet(self, *args, **kwargs):
            """What Keras's bar would print."""

        on_epoch_begin = on_test_begin = on_test_batch_end = on_test_end = on_train_end = on_predict_end = _quiet

    return WholeTraining()


def train(args, folder):
    """Trains, with checkpoints and logs in `folder`; returns the model, the seconds it took and the number of steps."""
    config = shapes.SmallShapesConfig()
    config.SEED = args.seed
    epochs = max(1, round(args.steps / config.STEPS_PER_EPOCH))
    config.STEPS_PER_EPOCH = args.steps // epochs
    steps = epochs * config.STEPS_PER_EPOCH
    train_set = shapes.make_dataset(steps * config.BATCH_SIZE, args.seed)  # no image is seen twice
    val_set = shapes.make_dataset(config.VALIDATION_STEPS * config.BATCH_SIZE, args.seed + 1)
    model = shapes.make_model("training", config, folder)
    started = time.monotonic()
    progress = progress_bar(steps)
    try:
        with open(os.path.join(folder, "training.log"), "w") as log, contextlib.redirect_stdout(log):
            shapes.train(model, train_set, val_set, epochs, [progress])
    finally:
        progress.stop()  # also after Ctrl-C: a bar that goes on hides the cursor
    return model, time.monotonic() - started, steps


def detector(folder, weights=None, trained=None):
    """A model that detects, with the weights of a file or of a trained model."""
    model = shapes.make_model("inference", shapes.SmallShapesConfig(), folder)
    if weights:
        model.load_weights(weights, by_name=True)
    else:
        values = {variable.path: variable for variable in trained.keras_model.weights}
        for variable in model.keras_model.weights:
            variable.assign(values[variable.path])
    return model


def same_detections(model, other, dataset):
    """Whether two models find the same in all images of a data set."""
    pairs = zip(shapes.detect(model, dataset), shapes.detect(other, dataset), strict=True)
    return all(
        all(np.array_equal(mine[key], theirs[key]) for key in ("rois", "class_ids", "masks"))
        and np.allclose(mine["scores"], theirs["scores"], atol=1e-5)
        for (_, mine), (_, theirs) in pairs
    )


def draw_detections(path, model, dataset):
    """Draws the truth and the detections of the first images side by side."""
    from pictures import save_picture

    panels = []
    for image_id, found in shapes.detect(model, dataset):
        image = dataset.load_image(image_id)
        panels.append((f"image {image_id}: truth", image, shapes.truth(dataset, image_id), False))
        panels.append((f"image {image_id}: detected", image, found, True))
    save_picture(path, panels, dataset.class_names, columns=4)


def peak_memory():
    """The most memory that this process has held so far, MB; None on Windows."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        # Linux; getrusage would count what a parent process held before it started this one.
        return round(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10)
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def save_text(path, text):
    """Writes a text file that is replaced as a whole."""
    with atomic(path) as unfinished:
        unfinished.write_text(text)


def main():
    args = parse_arguments()
    os.makedirs(args.output, exist_ok=True)
    output = {
        name: os.path.join(args.output, name)
        for name in ("detections.png", "loss_curve.png", "log.csv", "mask_rcnn_shapes.h5", "results.json")
    }
    batch = shapes.SmallShapesConfig().BATCH_SIZE
    print(f"Training SmallShapesConfig from nothing: {args.steps} steps of {batch} images")
    with tempfile.TemporaryDirectory() as folder:
        trained, seconds, steps = train(args, folder)
        with open(os.path.join(trained.log_dir, "log.csv")) as file:
            save_text(output["log.csv"], file.read())
    trained.keras_model.save_weights(output["mask_rcnn_shapes.h5"])

    print(f"Evaluating on {IMAGES} images that it has not seen")
    dataset = shapes.make_dataset(IMAGES, args.seed + 2)
    model = detector(args.output, weights=output["mask_rcnn_shapes.h5"])
    if not same_detections(model, detector(args.output, trained=trained), dataset):
        sys.exit(f"The model that was trained and {output['mask_rcnn_shapes.h5']} do not detect the same")
    precision = shapes.evaluate(model, dataset)
    visualize.plot_losses(output["log.csv"], title="Learning shapes from nothing", save=output["loss_curve.png"])
    draw_detections(output["detections.png"], model, shapes.make_dataset(SHOWN, args.seed + 2))
    results = {
        "map50": round(precision, 4),
        "images": IMAGES,
        "training_seconds": round(seconds, 1),
        "peak_rss_mb": peak_memory(),
        "seed": args.seed,
        "steps": steps,
        "parameters": model.keras_model.count_params(),
        "weights_mb": round(os.path.getsize(output["mask_rcnn_shapes.h5"]) / 1e6, 2),
    }
    save_text(output["results.json"], json.dumps(results, indent=2) + "\n")

    print(f"\nmAP@50 {precision:.3f} on {IMAGES} images, after {seconds:.0f} s of training\n")
    for name, what in zip(output, ("detections beside the truth", "the losses", "the losses as a table",
                                   "the weights, for shapes.py and your own programs", "all figures")):  # fmt: skip
        print(f"  {output[name]:32} {what}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("demo.py: interrupted")
    except OSError as error:
        sys.exit(f"demo.py: cannot write: {error}")

"""Times the making of training batches: images per second that reach a training, from files to arrays.

    python benchmarks/data.py --data datasets                              # balloon, nucleus and coco in this folder
    python benchmarks/data.py --sets drawn                                 # images that need no files
    python benchmarks/data.py --sets coco --workers 0 2 4 --size 512 --json data.json

The folder is that of --data, or else of MRCNN_DATA. A training of one number, which costs next to nothing, takes the
batches as any other does: through Keras' `fit`, with the threads of `DATA_WORKERS`. Images are resized to squares.
Nothing is kept in memory, within a case or for the next. With `--cache 512` all images are seen once before time is
taken, so that what `DATA_CACHE = 512` keeps of them is ready, as it is from the second epoch on.
"""

import argparse
import itertools
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
from common import natural, positive

SETS = ("balloon", "nucleus", "coco", "drawn")
FOLDERS = {"balloon": "train", "nucleus": "stage1_train", "coco": "annotations"}
WARM_UP = 10  # batches, at least: more than wait, ready, when the first is asked for


# ------------------------------------------------------------------ what is read
def load(name, folder, size):
    """A data set for training, and the Config of its sample."""
    from mrcnn.config import Config

    if name == "drawn":
        from photos import Objects

        return Objects(20, size), Config
    sample = common.load_sample(name)
    if name == "balloon":
        return sample.load_subset(str(folder / name), "train"), sample.BalloonConfig
    if name == "nucleus":
        return sample.make_dataset(str(folder / name), "train"), sample.NucleusConfig
    dataset = sample.CocoDataset()
    dataset.load_coco(str(folder / name), "train", "2017")
    dataset.prepare()
    return dataset, sample.CocoConfig


def make_stream(dataset, base, size, batch, workers, cache):
    """The batches that a training with these settings is fed with."""
    from mrcnn.data.loader import TrainingStream

    settings = {"NAME": "benchmark", "IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_SCALE": 0, "IMAGE_MIN_DIM": size,
                "IMAGE_MAX_DIM": size, "IMAGES_PER_GPU": batch, "DATA_WORKERS": workers, "DATA_CACHE": cache,
                "SEED": 0, "NUM_CLASSES": dataset.num_classes}  # fmt: skip
    return TrainingStream(dataset, type("Timed", (base,), settings)())


# ------------------------------------------------------------------ what reads it
def make_reader(batch):
    """A model that takes such batches, looks at one of their pixels, and trains one number."""
    import keras

    class Reader(keras.Model):
        def __init__(self):
            super().__init__()
            self.number = self.add_weight(shape=(), name="number")

        def call(self, inputs):
            return self.number * keras.ops.mean(keras.ops.cast(inputs[0][:, :1, :1], "float32"))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.square(y_pred)

    model = Reader()
    model.compile(keras.optimizers.SGD(1e-6), jit_compile=False)
    model.train_on_batch(batch)  # traces what there is to trace
    return model


def seconds_of_batches(stream, count, runs, before):
    """Seconds of `runs` times `count` batches, after those `before` that are not timed."""
    import keras

    from mrcnn.engine.training import stop_threads

    ends = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
    model = make_reader(stream.batch(0)[0])
    steps = before + count * runs
    try:
        model.fit(stream, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=[clock])
    finally:
        stop_threads(stream)
    marks = ends[before - 1 :: count]
    return [end - start for start, end in itertools.pairwise(marks)]


def run(args):
    """All figures, as `--json` writes them."""
    from mrcnn.data.kept import MEMORY

    rows = []
    for name in args.sets:
        case = []
        for workers in args.workers:
            MEMORY.forget()
            dataset, base = load(name, args.data, args.size)
            stream = make_stream(dataset, base, args.size, args.batch, workers, args.cache)
            epoch = -(-len(dataset.image_ids) // args.batch) if args.cache else 0
            seconds = seconds_of_batches(stream, args.batches, args.runs, max(WARM_UP, epoch))
            rates = [args.batch * args.batches / value for value in seconds]
            case.append({"set": name, "workers": workers, "images_per_second": common.summary(rates)})
        for row in case[1:]:
            row["times_first"] = row["images_per_second"]["median"] / case[0]["images_per_second"]["median"]
        rows += case
    given = {"backend": args.backend, "size": args.size, "batch": args.batch, "batches": args.batches,
             "runs": args.runs, "cache": args.cache}  # fmt: skip
    packages = ["keras", "numpy", "scikit-image", "pillow", args.backend]
    return {"input": given, "machine": common.machine(), "versions": common.versions(packages), "cases": rows}


def report(figures, markdown=False):
    """The figures as lines of text."""
    given = figures["input"]
    header = ["data", "workers", "median", "least", "most", "times the first"]
    rows = [
        [row["set"], row["workers"], *common.spread(row["images_per_second"], 1, "/s"),
         f"{row['times_first']:.2f}" if "times_first" in row else ""] for row in figures["cases"]
    ]  # fmt: skip
    title = (f"training images per second at {given['size']} pixels, {given['runs']} runs of {given['batches']} "
             f"batches of {given['batch']}; {given['cache']} MiB of images kept; {given['backend']}")  # fmt: skip
    return [title, "", *common.table(header, rows, markdown)]


def check_data(parser, args):
    """Finds the folder, and which data are in it where none were named."""
    named = args.sets is not None
    args.sets = args.sets or ["balloon", "nucleus", "coco"]
    if args.sets == ["drawn"]:
        return
    where = "--data" if args.data else "MRCNN_DATA"
    args.data = args.data or (Path(os.environ["MRCNN_DATA"]) if os.environ.get("MRCNN_DATA") else None)
    if args.data is None:
        parser.error("name the folder of the data with --data or MRCNN_DATA, or use --sets drawn")
    if not args.data.is_dir():
        parser.error(f"{where} {args.data}: there is no such folder")
    missing = [name for name in args.sets if name in FOLDERS and not (args.data / name / FOLDERS[name]).is_dir()]
    if missing and (named or len(missing) == len(args.sets)):
        folders = ", ".join(f"{name}/{FOLDERS[name]}" for name in missing)
        parser.error(f"{where} {args.data}: it has no {folders}")
    if missing:
        print(f"Left out, as {args.data} does not have them: {', '.join(missing)}")
        args.sets = [name for name in args.sets if name not in missing]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time the making of training batches.")
    parser.add_argument("--sets", choices=SETS, nargs="+", help="of data (default: those in the folder)")
    parser.add_argument("--data", type=Path, metavar="<folder>", help="that balloon, nucleus and coco lie in")
    parser.add_argument("--workers", type=natural, nargs="+", default=[0, 1, 2], help="threads (default: 0 1 2)")
    parser.add_argument("--size", type=common.side, default=1024, help="of the images (default: 1024)")
    parser.add_argument("--batch", type=positive, default=2, help="images per batch (default: 2)")
    parser.add_argument("--batches", type=positive, default=10, help="per run (default: 10)")
    parser.add_argument("--cache", type=natural, default=0, metavar="<MiB>", help="of images to keep (default: 0)")
    common.add_arguments(parser, peer=False, precision=False, peak=False)
    args = parser.parse_args(arguments)
    check_data(parser, args)
    common.check_arguments(parser, args)
    try:
        figures = run(args)
    except (FileNotFoundError, ImportError, ValueError) as error:
        parser.error(str(error))
    common.finish(args, figures, report(figures, args.markdown))


if __name__ == "__main__":
    main()

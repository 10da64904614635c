"""What the command lines of programs that train, evaluate and detect have in common; Keras is imported by none of it.

A program adds its own flags to `make_parser`, and has `check_arguments` refuse what cannot work before anything slow.
"""

import argparse
import contextlib
import functools
import glob
import os
import re
import sys
import tempfile
import warnings

from mrcnn.data.checks import did_you_mean
from mrcnn.data.files import kind_of_no_file
from mrcnn.engine.h5_layout import read_file

WEIGHTS = ("coco", "last", "imagenet", "none")
# Flags that say how to train, and mean nothing to the other commands.
OF_TRAINING = ("epochs", "steps", "layers", "batch_size")
PRESETS = ("heads", "3+", "4+", "5+", "all")
LAYER_NAMES = ("conv1", "bn", "res", "fpn_", "rpn_", "mrcnn_")


def make_parser(description, commands, examples, output):
    """Makes a parser with the flags that all samples share.

    Args:
        description: str, what the program is about.
        commands: dict from the name of each command to what it does.
        examples: str, shown at the end of the help.
        output: str, what `--output` means to this program.

    Returns:
        argparse.ArgumentParser; `weights` has the alias `--model`.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=f"examples:\n{examples}", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", metavar="<command>", type=one_of(commands),
                        help="; ".join(f"{name}: {what}" for name, what in commands.items()))  # fmt: skip
    parser.add_argument("--weights", "--model", required=True, metavar="<weights>",
                        help="coco: trained on COCO; last: the newest checkpoint in the logs; imagenet: a backbone "
                             "only, to train from; none: train from nothing; or the path of an .h5 file")  # fmt: skip
    parser.add_argument("--output", metavar="<folder>", help=output)
    group = parser.add_argument_group(
        "the network and its training",
        "What is not given is as the program's configuration and schedule have it.\n"
        "--epochs, --steps and --layers train one stage instead of the schedule: that\n"
        "of --layers, else of the layers that the schedule begins with, the heads\n"
        "(with --weights none of all layers).",
    )
    group.add_argument("--epochs", type=at_least(1), metavar="<n>",
                       help="train up to this many epochs in total")  # fmt: skip
    group.add_argument("--steps", type=at_least(1), metavar="<n>",
                       help="train with so many batches per epoch (at most so many to validate)")  # fmt: skip
    group.add_argument("--layers", type=layers, metavar="<layers>",
                       help="train heads, 3+, 4+, 5+, all or a regular expression of layer names")  # fmt: skip
    group.add_argument("--gpus", type=at_least(1), metavar="<n>", help="devices of this machine to work on")
    group.add_argument("--batch-size", type=at_least(1), metavar="<n>", help="images per device and step of training")
    # The config knows which ones there are, and proposes one for what is misspelt.
    group.add_argument("--backbone", metavar="<name>",
                       help="resnet50 or resnet101; the same for a checkpoint as it was trained with")  # fmt: skip
    group.add_argument("--image-size", type=multiple_of_64, metavar="<pixels>",
                       help="side to which images are resized, a multiple of 64")  # fmt: skip
    group.add_argument("--precision", metavar="<type>", help="float32 or bfloat16")
    group.add_argument("--seed", type=seed, metavar="<n>", help="makes a training repeatable")
    return parser


def one_of(choices):
    """An argument type: one of some words, with a proposal for what is nearly one."""

    def word(text):
        if text in choices:
            return text
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}.{did_you_mean(text, choices)}")

    return word


def at_least(least):
    """An argument type: a whole number that is not below `least`."""

    def number(text):
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of {least} or more; received {text!r}")
        return int(text)

    return number


def multiple_of_64(text):
    """An argument type: a side of an image that the pyramid can halve six times."""
    side = at_least(64)(text)
    if side % 64:
        lower = side // 64 * 64
        raise argparse.ArgumentTypeError(f"must be a multiple of 64, such as {lower} or {lower + 64}; received {side}")
    return side


def seed(text):
    """An argument type: a seed that all random generators accept."""
    number = at_least(0)(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"must be below 2**32; received {text}")
    return number


def layers(text):
    """An argument type: a preset of `MaskRCNN.train`, or a regular expression."""
    if not text:
        raise argparse.ArgumentTypeError("must name the layers to train; received nothing")
    if text in PRESETS:
        return text
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    # Whether an expression fits a layer shows when the network is there; a plain word can be judged now.
    if re.fullmatch(r"[\w+]+", text) and not text.startswith(LAYER_NAMES):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(PRESETS)}, and no layer is called so: their names begin with "
            f"{', '.join(LAYER_NAMES)}.{did_you_mean(text, PRESETS)}"
        )
    return text


# ---------------------------------------------------------------- checks


def check_arguments(parser, args, coco_path, download=True):
    """Ends the program with a clear message if the shared flags cannot work together or on this disk.

    Args:
        parser: of `make_parser`.
        args: what it parsed; the program has a flag `--logs`, too.
        coco_path: of the COCO weights.
        download: whether the COCO weights are downloaded if they are not there; a program that ever says no has a flag
            `--download`.
    """
    if args.command != "train":
        for name in OF_TRAINING:
            if getattr(args, name) is not None:
                parser.error(f"--{name.replace('_', '-')} is for train; {args.command} does not use it")
        if args.weights in ("imagenet", "none"):
            what = "a backbone without heads" if args.weights == "imagenet" else "a network that knows nothing"
            parser.error(f"{args.command} needs trained weights, and --weights {args.weights} is {what}; give a file, "
                         "or last")
    _check_weights(parser, args, coco_path, download)
    if args.command == "train":
        check_writable(parser, "--logs", args.logs)
    if args.output:
        check_writable(parser, "--output", args.output)


def _check_weights(parser, args, coco_path, download):
    if args.weights == "coco" and not download and not os.path.isfile(coco_path):
        parser.error(f"--weights coco: {coco_path} is not there; --download fetches it, or give the path of a file")
    if args.weights == "last" and not glob.glob(os.path.join(glob.escape(args.logs), "*", "mask_rcnn_*.h5")):
        parser.error(f"--weights last: there is no checkpoint in {args.logs}; train first, or give --logs")
    if args.weights in WEIGHTS:
        return
    if os.path.isfile(args.weights):
        try:
            class_count(args.weights)
        except ValueError as error:
            parser.error(f"--weights: {error}")
    else:
        hint = did_you_mean(args.weights, WEIGHTS) or f" Give a file, or one of {', '.join(WEIGHTS)}"
        parser.error(f"--weights {args.weights}: there is no such file.{hint}")


def check_folder(parser, flag, path):
    """Ends the program if a folder to read is not there; `flag` is the name to show."""
    if not os.path.isdir(path):
        what = "is a file, not a folder" if os.path.exists(path) else "there is no such folder"
        parser.error(f"{flag} {path}: {what}")


def check_file(parser, flag, path):
    """Ends the program if a file to read is not there; `flag` is the name to show."""
    if not os.path.isfile(path):
        kind = kind_of_no_file(path)
        what = f"is {kind}, not a file" if kind else "there is no such file"
        parser.error(f"{flag} {path}: {what}")


def check_writable(parser, flag, path):
    """Ends the program if nothing could be written to a folder, which may not exist yet; nothing is made."""
    above = os.path.abspath(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        parser.error(f"{flag} {path}: {above} is no folder; choose another")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        parser.error(f"{flag} {path}: cannot write to {above} ({error.strerror}); choose another")


def writable_folder(path):
    """Makes a folder, and those above it; returns its path.

    Raises:
        ValueError: that cannot be.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {path} ({error.strerror}); choose another") from error
    return path


# ---------------------------------------------------------------- what the flags mean


def configure(config_class, args, **settings):
    """Makes a config of the class, with the settings that the flags ask for.

    Args:
        config_class: class derived from Config.
        args: what a parser of `make_parser` parsed.
        **settings: further settings; flags go before them.

    Returns:
        An instance of a class derived from it, checked.

    Raises:
        ValueError: the settings do not fit together.
    """
    flags = {
        "STEPS_PER_EPOCH": args.steps, "GPU_COUNT": args.gpus, "IMAGES_PER_GPU": args.batch_size,
        "BACKBONE": args.backbone, "IMAGE_MIN_DIM": args.image_size, "IMAGE_MAX_DIM": args.image_size,
        "PRECISION": args.precision, "SEED": args.seed,
    }  # fmt: skip
    settings |= {name: value for name, value in flags.items() if value is not None}
    if args.steps:  # a short epoch is not to be followed by a long validation
        settings["VALIDATION_STEPS"] = min(args.steps, settings.get("VALIDATION_STEPS", config_class.VALIDATION_STEPS))
    if args.weights == "none":
        settings.setdefault("TRAIN_BN", None)  # there are no statistics yet that could be kept
    config = type(config_class.__name__, (config_class,), settings)()
    config.check_model()
    return config


def choose_stages(args, schedule):
    """The stages to train: those of the schedule, or the one that the flags ask for.

    Args:
        args: what a parser of `make_parser` parsed.
        schedule: list of (layers, total epochs, factor of the learning rate).

    Returns:
        list of the same form.
    """
    from_nothing = args.weights == "none"
    if not (args.epochs or args.steps or args.layers or from_nothing):
        return schedule
    # Fixed layers that know nothing would be of no use to the heads.
    first = "all" if from_nothing else schedule[0][0]
    return [(args.layers or first, args.epochs or schedule[-1][1], 1)]


def train_in_stages(model, train_set, val_set, stages, **keywords):
    """Trains stage after stage.

    Args:
        model: MaskRCNN in training mode.
        train_set, val_set: prepared Datasets.
        stages: list of (layers, total epochs, factor of the config's learning rate).
        **keywords: further arguments of `MaskRCNN.train`.
    """
    for chosen, epochs, factor in stages:
        if model.epoch >= epochs and epochs < stages[-1][1]:
            continue  # a resumed run is past this stage
        print(f"Training {'all layers' if chosen == 'all' else 'layers: ' + chosen}, up to epoch {epochs}")
        model.train(train_set, val_set, model.config.LEARNING_RATE * factor, epochs, chosen, **keywords)


def load_weights(model, weights, coco_path, download=None):
    """Loads the weights that a flag names.

    The layers that depend on the number of classes are left out in training if the file has another number.

    Args:
        model: MaskRCNN.
        weights: "coco", "last", "imagenet", "none" or a path.
        coco_path: of the COCO weights.
        download: function that fetches the COCO weights to a path, such as `utils.download_trained_weights`; None if
            they have to be there.

    Returns:
        Path of the file, or None.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it does not fit.
        ConnectionError: it cannot be downloaded.
    """
    _let_the_first_speak()
    if weights == "none":
        print("The network starts from nothing; to go on with it later: --weights last --layers all")
        return None
    path = coco_path if weights == "coco" else weights
    if weights == "last":
        path = model.find_last()
    elif weights == "imagenet":
        path = model.get_imagenet_weights()
    elif weights == "coco" and download and not os.path.exists(path):
        download(path)
    print(f"Loading weights {path}")
    found = class_count(path)
    other_classes = found not in (None, model.config.NUM_CLASSES)
    if other_classes and model.mode != "training":
        raise ValueError(f"{path} was trained on {found - 1} classes, where {model.config.NUM_CLASSES - 1} are "
                         "expected; give weights that were trained on data like this")
    if other_classes:
        print(f"It has {found} classes and the data {model.config.NUM_CLASSES}, so the heads start afresh")
    model.load_weights(path, by_name=True, exclude="heads" if other_classes else None)
    return path


def class_count(path):
    """The number of classes, background included, that a weights file was trained for; None if it has no heads."""
    with read_file(path) as arrays:
        biases = arrays.get("mrcnn_class_logits", {})
        return next((len(values) for name, values in biases.items() if values.ndim == 1), None)


# ---------------------------------------------------------------- around the program


def _let_the_first_speak():
    """Silences this process from here on if it is another one of those that work together; errors are still shown."""
    if not is_first_process():
        sys.stdout.flush()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def is_first_process():
    """Whether this process, whose model is made, is the one of those that work together that prints and writes."""
    from mrcnn.distribution import processes

    return processes.is_first()


def announce(args, **lines):
    """Prints what is about to be done: the command, the weights, the program's own lines, and the logs."""
    shown = {"Command": args.command, "Weights": args.weights, **lines}
    if hasattr(args, "logs"):
        shown["Logs"] = args.logs
    for name, value in shown.items():
        if value is not None:
            print(f"{name + ':':9} {value}")


@contextlib.contextmanager
def quiet_import():
    """Keeps off the screen what TensorFlow's libraries write to it while they are imported, unless that fails."""
    with tempfile.TemporaryFile() as remarks:
        sys.stderr.flush()
        screen = os.dup(2)
        os.dup2(remarks.fileno(), 2)
        try:
            yield
        except BaseException:
            remarks.seek(0)
            os.write(screen, remarks.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)


def _show_warning(shown, message, category, *place, **options):
    """Prints a warning for the user of a program: once, without the line of code that gave it."""
    if issubclass(category, UserWarning) and str(message) not in shown:
        shown.add(str(message))
        print(f"Warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def exit_on_error(name):
    """Ends the program with the message of an error that its user can do something about, without a traceback.

    Warnings are shown as such, without the line of code that gave them.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_show_warning, set())
            yield
    except KeyboardInterrupt as stop:
        sys.exit(f"{name}: {str(stop) or 'interrupted'}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output has gone
        sys.exit(1)
    except (ValueError, OSError, FloatingPointError, MemoryError, ImportError) as error:
        if processes := sys.modules.get("mrcnn.distribution.processes"):
            processes.fail()
        sys.exit(f"{name}: {error}")

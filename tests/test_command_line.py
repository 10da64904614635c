"""The flags that all samples share: what they mean, and what is refused."""

import os
import sys
import warnings

import h5py
import numpy as np
import pytest
import tiny

from mrcnn.config import Config
from mrcnn.engine import command_line
from mrcnn.engine.h5_layout import write_file

COMMANDS = {"train": "learn", "evaluate": "measure", "splash": "paint"}


class SampleConfig(Config):
    NAME = "sample"
    NUM_CLASSES = 1 + 1
    IMAGES_PER_GPU = 2


def parser():
    made = command_line.make_parser("A sample.", COMMANDS, "  sample.py train --weights none", "where pictures go")
    made.add_argument("--logs", default="logs")
    return made


def parse(*arguments, coco_path="no.h5", download=True):
    made = parser()
    args = made.parse_args(arguments)
    command_line.check_arguments(made, args, coco_path, download)
    return args


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *arguments, **settings):
    """What the program says when it ends over these arguments."""
    with pytest.raises(SystemExit) as stop:
        parse(*arguments, **settings)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("layers", ["heads", "4+", "all", "res5a_branch2a", "(res5|mrcnn_).*", "conv1", "[bf].*"])
def test_layers_that_may_be_named(layers):
    assert parse("train", "--weights", "none", "--layers", layers).layers == layers


def test_presets_and_names_are_those_of_the_network():
    from mrcnn.engine.mask_rcnn import MaskRCNN
    from mrcnn.engine.training import LAYER_PRESETS, weighted_layers

    assert set(command_line.PRESETS) == set(LAYER_PRESETS)
    model = MaskRCNN("inference", tiny.config(BACKBONE="resnet50", COMPUTE_BACKBONE_SHAPE=None), "logs")
    names = [layer.name for layer in weighted_layers(model.keras_model)]
    assert len(names) > 100 and all(name.startswith(command_line.LAYER_NAMES) for name in names)


def test_help_has_all_flags_and_examples(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    text = capsys.readouterr().out
    for flag in ("--weights", "--model", "--epochs", "--steps", "--layers", "--backbone", "--image-size",
                 "--batch-size", "--precision", "--seed", "--output"):  # fmt: skip
        assert flag in text
    assert "sample.py train --weights none" in text and "splash: paint" in text
    assert "train one stage instead of the schedule" in text


def test_flags_become_settings():
    args = parse("train", "--model", "none", "--steps", "7", "--batch-size", "3", "--backbone", "resnet50",
                 "--image-size", "256", "--seed", "5")  # fmt: skip
    config = command_line.configure(SampleConfig, args, STEPS_PER_EPOCH=100)
    assert (config.STEPS_PER_EPOCH, config.VALIDATION_STEPS, config.BATCH_SIZE, config.SEED) == (7, 7, 3, 5)
    assert command_line.configure(SampleConfig, args, VALIDATION_STEPS=4).VALIDATION_STEPS == 4
    assert config.BACKBONE == "resnet50" and config.IMAGE_SHAPE.tolist() == [256, 256, 3]
    assert config.TRAIN_BN is None and config.NAME == "sample" and type(config).__name__ == "SampleConfig"


def test_without_flags_the_config_is_the_class():
    config = command_line.configure(SampleConfig, parse("train", "--weights", "coco"))
    assert str(config.to_dict()) == str(SampleConfig().to_dict())


@pytest.mark.parametrize(("flag", "value", "message"), [
    ("--backbone", "resnet-50", "SampleConfig.BACKBONE = 'resnet-50'.*Did you mean 'resnet50'"),
    ("--precision", "float16", "SampleConfig.PRECISION = 'float16'.*Did you mean"),
])  # fmt: skip
def test_the_config_refuses_what_it_does_not_know(flag, value, message):
    with pytest.raises(ValueError, match=message):
        command_line.configure(SampleConfig, parse("train", "--weights", "none", flag, value))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="SampleConfig.NUM_CLASSES"):
        command_line.configure(SampleConfig, parse("train", "--weights", "none"), NUM_CLASSES="two")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian", "--weights", "none"), "Did you mean 'train'"),
        ((), "required: <command>, --weights/--model"),
        (("train",), "required: --weights/--model"),
        (("train", "--weights", "none", "--steps", "0"), "--steps: must be a whole number of 1 or more"),
        (("train", "--weights", "none", "--image-size", "100"), "multiple of 64, such as 64 or 128"),
        (("train", "--weights", "none", "--layers", "res5(.*"), "no regular expression"),
        (("train", "--weights", "none", "--seed", "-1"), "--seed"),
        (("train", "--weights", "none", "--seed", str(2**32)), "below 2**32"),
        (("train", "--weights", "none", "--epoch", "3"), "unrecognized arguments: --epoch"),
        (("train", "--weights", "none.h5"), "no such file. Did you mean 'none'?"),
        (("train", "--weights", "weights.h5"), "no such file. Give a file, or one of coco, last, imagenet, none"),
        (("train", "--weights", "last"), "there is no checkpoint in logs"),
        (("train", "--weights", "none", "--layers", ""), "must name the layers"),
        (("train", "--weights", "none", "--layers", "head"), "Did you mean 'heads'"),
        (("train", "--weights", "none", "--layers", "backbone"), "no layer is called so"),
        (("train", "--weights", "none", "--steps", "1\u0663"), "must be a whole number"),
        (("splash", "--weights", "none"), "splash needs trained weights"),
        (("evaluate", "--weights", "imagenet"), "a backbone without heads; give a file, or last\n"),
        (("evaluate", "--weights", "coco", "--epochs", "3"), "--epochs is for train"),
        (("splash", "--weights", "coco", "--batch-size", "3"), "--batch-size is for train"),
    ],
)
def test_what_is_refused(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_coco_weights_have_to_be_there_if_they_are_not_downloaded(capsys):
    assert "--download fetches it" in refused(capsys, "train", "--weights", "coco", download=False)


def test_folders_that_cannot_be_written_to(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file is no folder" in refused(capsys, "train", "--weights", "none", "--output", "file/results")
    parse("train", "--weights", "none", "--output", "new/results")
    assert not (tmp_path / "new").exists(), "a check leaves nothing behind"
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot write to" in refused(capsys, "train", "--weights", "none", "--logs", "locked/logs")


def test_logs_are_for_train(tmp_path):
    (tmp_path / "file").write_text("")
    weights_file(tmp_path / "some.h5", 2)
    parse("evaluate", "--weights", "some.h5", "--logs", "file/logs")  # nothing will be written there


def test_weights_that_are_none(capsys, tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    assert "text.h5 is not HDF5" in refused(capsys, "evaluate", "--weights", "text.h5")


def test_folders_and_files_to_read(capsys, tmp_path):
    made = parser()
    for check, path, message in (
        (command_line.check_folder, "nothing", "there is no such folder"),
        (command_line.check_file, "nothing", "there is no such file"),
        (command_line.check_file, ".", "is a folder, not a file"),
    ):
        with pytest.raises(SystemExit):
            check(made, "--image", path)
        assert f"--image {path}: {message}" in capsys.readouterr().err
    command_line.check_folder(made, "--dataset", str(tmp_path))


def test_writable_folder(tmp_path):
    assert os.path.isdir(command_line.writable_folder(str(tmp_path / "a" / "b")))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot make the folder"):
        command_line.writable_folder(str(tmp_path / "file" / "b"))


SCHEDULE = [("heads", 20, 1), ("all", 40, 0.1)]


@pytest.mark.parametrize(
    ("flags", "stages"),
    [
        (("--weights", "coco"), SCHEDULE),
        (("--weights", "coco", "--steps", "3"), [("heads", 40, 1)]),
        (("--weights", "coco", "--epochs", "3"), [("heads", 3, 1)]),
        (("--weights", "coco", "--layers", "4+"), [("4+", 40, 1)]),
        (("--weights", "none"), [("all", 40, 1)]),
        (("--weights", "none", "--epochs", "2", "--layers", "heads"), [("heads", 2, 1)]),
    ],
)
def test_flags_replace_the_schedule(flags, stages):
    assert command_line.choose_stages(parse("train", *flags), SCHEDULE) == stages


class Recorder:
    """What a MaskRCNN is to these functions."""

    def __init__(self, epoch=0, mode="training", path="newest.h5"):
        self.config, self.epoch, self.mode, self.path, self.calls = SampleConfig(), epoch, mode, path, []

    def train(self, train_set, val_set, rate, epochs, layers, **keywords):
        self.calls.append((train_set, val_set, rate, epochs, layers, keywords))
        self.epoch = epochs

    def find_last(self):
        return self.path

    def load_weights(self, path, by_name, exclude):
        self.calls.append((path, by_name, exclude))


def test_stages_follow_each_other_with_their_rates():
    model = Recorder()
    command_line.train_in_stages(model, "train", "val", SCHEDULE, augmentation="flip")
    assert model.calls == [
        ("train", "val", 0.001, 20, "heads", {"augmentation": "flip"}),
        ("train", "val", pytest.approx(0.0001), 40, "all", {"augmentation": "flip"}),
    ]


def test_a_resumed_run_skips_the_stages_that_are_done():
    model = Recorder(epoch=20)
    command_line.train_in_stages(model, "train", "val", SCHEDULE)
    assert [call[3:5] for call in model.calls] == [(40, "all")]


def test_the_last_stage_says_that_nothing_is_left_to_do():
    model = Recorder(epoch=40)
    command_line.train_in_stages(model, "train", "val", SCHEDULE)
    assert [call[3:5] for call in model.calls] == [(40, "all")]  # `train` itself says so


def weights_file(path, classes):
    layers = {"mrcnn_class_logits": {"mrcnn_class_logits/kernel:0": np.zeros((4, classes), np.float32),
                                     "mrcnn_class_logits/bias:0": np.zeros(classes, np.float32)}}  # fmt: skip
    write_file(path, layers)
    return str(path)


@pytest.mark.parametrize(("classes", "mode", "exclude"), [
    (2, "training", None), (81, "training", "heads"), (2, "inference", None),
])  # fmt: skip
def test_heads_of_other_classes_start_afresh_in_training(tmp_path, capsys, classes, mode, exclude):
    path = weights_file(tmp_path / "some.h5", classes)
    model = Recorder(mode=mode, path=path)
    assert command_line.load_weights(model, "last", "coco.h5") == path
    assert model.calls == [(path, True, exclude)]
    assert ("heads start afresh" in capsys.readouterr().out) == (exclude is not None)


def test_other_classes_are_refused_in_detection(tmp_path):
    path = weights_file(tmp_path / "some.h5", 81)
    with pytest.raises(ValueError, match="trained on 80 classes, where 1 are expected"):
        command_line.load_weights(Recorder(mode="inference"), path, "coco.h5")


def test_coco_weights_are_fetched_once(tmp_path):
    path, fetched = str(tmp_path / "coco.h5"), []

    def fetch(path):
        fetched.append(weights_file(path, 81))

    for _ in range(2):
        assert command_line.load_weights(Recorder(), "coco", path, fetch) == path
    assert fetched == [path]
    with pytest.raises(FileNotFoundError, match="download_trained_weights"):
        command_line.load_weights(Recorder(), "coco", str(tmp_path / "other.h5"))


def test_none_loads_nothing():
    model = Recorder()
    assert command_line.load_weights(model, "none", "coco.h5") is None and not model.calls


def test_files_without_heads_have_no_class_count(tmp_path):
    write_file(tmp_path / "backbone.h5", {"conv1": {"conv1/kernel:0": np.zeros((7, 7, 3, 4), np.float32)}})
    assert command_line.class_count(tmp_path / "backbone.h5") is None
    with h5py.File(tmp_path / "foreign.h5", "w"), pytest.raises(ValueError):
        command_line.class_count(tmp_path / "foreign.h5")


def test_a_real_model_starts_from_a_file_of_other_classes(model_dir, capsys):
    from mrcnn import model as modellib

    source = modellib.MaskRCNN("training", tiny.config(NUM_CLASSES=9), model_dir)
    path = os.path.join(model_dir, "other.h5")
    source.keras_model.save_weights(path)
    model = modellib.MaskRCNN("training", tiny.config(), model_dir)
    command_line.load_weights(model, path, "coco.h5")
    assert "It has 9 classes and the data 4" in capsys.readouterr().out
    before, after = (tiny.weights_of(m.keras_model) for m in (source, model))
    assert np.array_equal(before["mrcnn_class_conv1/kernel"], after["mrcnn_class_conv1/kernel"])
    assert before["mrcnn_class_logits/bias"].shape != after["mrcnn_class_logits/bias"].shape


def test_announcement(capsys):
    command_line.announce(parse("train", "--weights", "none"), Dataset="photos", Video=None)
    assert capsys.readouterr().out.splitlines() == [
        "Command:  train", "Weights:  none", "Dataset:  photos", "Logs:     logs"
    ]  # fmt: skip


@pytest.mark.parametrize("error", [
    ValueError("a"), FileNotFoundError("a"), ConnectionError("a"), FloatingPointError("a"), MemoryError("a"),
    ImportError("a"), KeyboardInterrupt("a"),
])  # fmt: skip
def test_errors_end_the_program_with_their_message(error):
    with pytest.raises(SystemExit) as stop, command_line.exit_on_error("sample.py"):
        raise error
    assert stop.value.code == "sample.py: a"


def test_an_interrupt_without_a_word(capsys):
    with pytest.raises(SystemExit) as stop, command_line.exit_on_error("sample.py"):
        raise KeyboardInterrupt
    assert stop.value.code == "sample.py: interrupted"


def test_warnings_are_shown_once_and_plainly(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with command_line.exit_on_error("sample.py"):
            for _ in range(2):
                warnings.warn("two images are missing", stacklevel=1)
            warnings.warn("of a library's own", FutureWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning: two images are missing\n"


def test_a_slip_in_the_program_keeps_its_traceback():
    with pytest.raises(TypeError), command_line.exit_on_error("sample.py"):
        raise TypeError("a slip")


def test_remarks_while_importing_stay_off_the_screen(capfd):
    with command_line.quiet_import():
        os.write(2, b"a remark")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_remarks_of_an_import_that_fails_are_shown(capfd):
    with pytest.raises(ImportError), command_line.quiet_import():
        os.write(2, b"a remark")
        raise ImportError("broken")
    assert capfd.readouterr().err == "a remark"


def test_no_keras(run_python):
    run_python("import sys; import mrcnn.engine.command_line; assert 'keras' not in sys.modules")
    assert sys.executable

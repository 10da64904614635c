"""The README: every command and every example in it is run, on small data and with a network that trains in seconds.

What a command is run as stands in COMMANDS; one that the README has and the table lacks fails, and the other way round.
"""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import types
import venv
from pathlib import Path

import keras
import nucleus_files
import numpy as np
import PIL.Image
import pytest
import scripts
import test_balloon
import test_nucleus_commands
import tiny
import weight_files
from coco_folders import annotation, coco, make_folder
from test_repository import PROJECT, requirement_names

import mrcnn
from mrcnn import model as modellib
from mrcnn import utils

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("jupyter", "make", "pip", "pytest", "python", "tensorboard")
EXTRAS = PROJECT["optional-dependencies"]
OURS = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONPATH")
LOGS = ("--logs", "logs")
SHORT = ("--epochs", "1", "--steps", "1")


# ------------------------------------------------------------------ what the README has
def commands():
    """All command lines: indented ones, and those within a line that begin with a program."""
    prose = FENCE.sub("", README)
    indented = re.findall(r"^ {4}(\S.*)$", prose, re.MULTILINE)
    within = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
    return indented + [text for text in within if text.split()[0] in PROGRAMS]


def examples():
    """The Python blocks, in their order."""
    return [text for language, text in FENCE.findall(README) if language == "python"]


def test_every_command_is_in_the_table():
    assert sorted(set(commands())) == sorted(COMMANDS)


def test_every_block_is_of_a_kind_that_is_looked_at():
    assert {language for language, _ in FENCE.findall(README)} == {"python", "bibtex"}
    assert README.count("```") == 2 * len(FENCE.findall(README))


def test_every_extra_that_is_named_exists():
    named = {extra for names in re.findall(r"`[^`]*\.\[([\w,]+)]", README) for extra in names.split(",")}
    assert named and named <= set(EXTRAS)


def test_the_settings_of_coco_need_the_memory_that_it_says():
    assert f"estimates {coco.CocoConfig().estimate_memory()[0]:.0f} GB for a batch" in README


# ------------------------------------------------------------------ examples
def draw_cells(folder, count, start=0):
    """Photos x.png with a folder x/ of masks each, and a photo of nothing."""
    squares = tiny.Squares(count, start=start)
    folder.mkdir(parents=True)
    PIL.Image.new("RGB", (64, 64)).save(folder / "nothing.png")
    for image_id in squares.image_ids:
        PIL.Image.fromarray(squares.load_image(image_id)).save(folder / f"{image_id}.png")
        (folder / str(image_id)).mkdir()
        for number, mask in enumerate(np.moveaxis(squares.load_mask(image_id)[0], -1, 0)):
            PIL.Image.fromarray(np.uint8(mask) * 255).save(folder / str(image_id) / f"{number}.png")


def save_weights(path, classes, **settings):
    """A file of a tiny network's random values."""
    config = tiny.config(NUM_CLASSES=classes, **settings)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    modellib.MaskRCNN("inference", config, str(Path(path).parent)).keras_model.save_weights(str(path))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """All examples, run in turn in a folder of photos; (the folder, their names, the trainings asked for)."""
    folder, trainings, names = tmp_path_factory.mktemp("examples"), [], {}
    PIL.Image.fromarray(tiny.photo(70, 90)).save(folder / "photo.jpg")
    draw_cells(folder / "images" / "train", 4)
    draw_cells(folder / "images" / "val", 2, start=4)
    whole = modellib.MaskRCNN.train

    def short(model, train, val, learning_rate, epochs, layers):
        trainings.append((learning_rate, epochs, layers))
        model.config.STEPS_PER_EPOCH = 1
        whole(model, train, val, learning_rate, len(trainings), layers)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Of the package's attribute: the module itself keeps the class that settings are checked against.
        patch.setattr(mrcnn, "config", types.SimpleNamespace(Config=tiny.TinyConfig))
        patch.setattr(utils, "download_trained_weights", lambda path: save_weights(path, classes=81))
        patch.setattr(modellib.MaskRCNN, "train", short)
        for number, text in enumerate(examples(), start=1):
            exec(compile(text, f"README.md, example {number}", "exec"), names)
    return folder, names, trainings


@pytest.mark.slow
def test_the_first_detection_is_drawn(played):
    folder, names, _ = played
    result = names["result"]
    assert result["masks"].shape == (70, 90, len(result["rois"])) and len(result["rois"]) > 0
    with PIL.Image.open(folder / "found.png") as found:
        assert found.size == (90, 70)
        assert (np.asarray(found) != names["photo"]).any()


@pytest.mark.slow
def test_the_first_training_leaves_checkpoints_and_is_resumed(played, monkeypatch):
    folder, names, trainings = played
    monkeypatch.chdir(folder)  # the example's paths are relative
    assert trainings == [(0.001, 20, "heads"), (0.0001, 40, "all"), (0.0001, 40, "all")]
    assert names["train"].num_images == 5 and names["val"].num_images == 3
    assert {tuple(names["train"].load_mask(image_id)[1]) for image_id in names["train"].image_ids} == {(), (1, 1)}
    (run,) = (folder / "logs").iterdir()  # the third call went on in the folder of the others
    assert re.fullmatch(r"cells\d{8}T\d{4}", run.name) and names["net"].epoch == 3
    assert sorted(run.glob("mask_rcnn_*.h5")) == [run / f"mask_rcnn_cells_{epoch:04}.h5" for epoch in (1, 2, 3)]
    assert len((run / "log.csv").read_text().splitlines()) == 4


def test_a_first_detection_takes_ten_lines():
    assert len([line for line in examples()[0].splitlines() if line]) == 10


# ------------------------------------------------------------------ set-up
def dry_make(*expected):
    """Make says what it would do, from an environment that is not there yet; what it does is tested elsewhere."""

    def run(command, folder):
        said = make(*shlex.split(command)[1:], "--dry-run", f"VENV={folder}/.venv", f"PYTHON={sys.executable}")
        assert all(text in said for text in ("-m venv", "-m pip install", *expected))
        assert [path for path in re.findall(r"[\w/]+\.py\b", said) if not (ROOT / path).is_file()] == []

    return run


def make(*arguments):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return run(["make", *arguments], ROOT)


def list_targets(command, folder):
    listed = re.findall(r"^  make ([\w -]+?)  ", make(), re.MULTILINE)
    assert {"demo", "test", "check", "notebooks", "pictures"} <= {name for names in listed for name in names.split()}


def install(command, folder):
    """For good, of a copy and without the packages it needs, into an environment that borrows them from this one."""
    clone, environment = folder / "clone", folder / "venv"
    clone.mkdir()
    shutil.copytree(ROOT / "mrcnn", clone / "mrcnn", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    venv.create(environment, symlinks=os.name != "nt")
    base = {"base": str(environment), "platbase": str(environment)}
    packages, binaries = (Path(sysconfig.get_path(kind, "venv", base)) for kind in ("purelib", "scripts"))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    pip, *arguments = shlex.split(command)
    offline = ("--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation")
    run([binaries / "python", "-m", pip, *arguments, *offline], clone)
    code = "import mrcnn; print(mrcnn.__file__)"
    assert Path(run([binaries / "python", "-c", code], folder).strip()) == clone / "mrcnn" / "__init__.py"


def run(arguments, folder):
    """What a program prints, which must end well; started as from a terminal, not from this test."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    result = subprocess.run([str(argument) for argument in arguments], cwd=folder, env=environment, capture_output=True,
                            text=True, check=False)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def name_extras(command, folder):
    """Needs the network; what it asks for exists (and `pip install -e .` is run)."""
    assert set(re.search(r"\.\[([\w,]+)]", command)[1].split(",")) <= set(EXTRAS)


def name_requirements(command, folder):
    """Needs the network; test_repository.py compares what the file asks for."""
    assert (ROOT / shlex.split(command)[-1]).is_file()


def name_foreign_extra(command, folder):
    """Needs the network and a GPU; the distribution has this extra."""
    name, extra = re.fullmatch(r'pip install "(\w+)\[([\w-]+)]"', command).groups()
    try:
        assert extra in importlib.metadata.metadata(name).get_all("Provides-Extra")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed under this name")


def name_jupyter(command, folder):
    """A server that does not end; what the line above it installs brings it, and the folder is there."""
    program, _, path = shlex.split(command)
    assert program in requirement_names(EXTRAS["samples"]) and list((ROOT / path).glob("*.ipynb"))


# ------------------------------------------------------------------ the samples
class TinyCocoConfig(tiny.TinyConfig):
    NAME = "coco"
    NUM_CLASSES = 1 + 80


class TinyCocoInferenceConfig(TinyCocoConfig):
    IMAGES_PER_GPU = 1


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A working directory with the data, photos, weights and checkpoints that the commands name."""
    balloon, nucleus = test_balloon.balloon, test_nucleus_commands.nucleus
    shutil.copytree(ROOT / "samples", tmp_path / "samples", ignore=shutil.ignore_patterns("__pycache__"))
    test_balloon.draw_photos(tmp_path / "datasets" / "balloon" / "train", 4)
    test_balloon.draw_photos(tmp_path / "datasets" / "balloon" / "val", 2)
    nucleus_files.write_dataset(tmp_path / "datasets" / "nucleus")
    for name in ("train2017", "val2017"):
        make_folder(tmp_path / "datasets" / "coco", [annotation(1), annotation(2, image_id=2)], name=name)
    PIL.Image.fromarray(tiny.photo(70, 90)).save(tmp_path / "photo.jpg")
    save_weights(tmp_path / "mask_rcnn_coco.h5", classes=81)
    backbone = keras.Model(image := keras.Input((64, 64, 3)), tiny.backbone(image))
    saved = weight_files.content(backbone, lambda name, shape: 0.1 * abs(weight_files.seeded(name, shape)))
    weight_files.write_keras2(tmp_path / "imagenet.h5", saved)
    monkeypatch.setattr(modellib.MaskRCNN, "get_imagenet_weights", lambda model: str(tmp_path / "imagenet.h5"))
    for module, name in ((balloon, "COCO_WEIGHTS_PATH"), (nucleus, "COCO_WEIGHTS_PATH"), (coco, "COCO_MODEL_PATH")):
        monkeypatch.setattr(module, name, str(tmp_path / "mask_rcnn_coco.h5"))
    monkeypatch.setattr(balloon, "BalloonConfig", test_balloon.TinyBalloonConfig)
    monkeypatch.setattr(nucleus, "VAL_IMAGE_IDS", ["d"])
    monkeypatch.setattr(nucleus, "NucleusConfig", test_nucleus_commands.TinyNucleusConfig)
    monkeypatch.setattr(coco, "CocoConfig", TinyCocoConfig)
    monkeypatch.setattr(coco, "CocoInferenceConfig", TinyCocoInferenceConfig)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sample(*cut_down, leaves, checkpoint=None):
    """The command as it stands, with further flags, in the workshop; `leaves` is a pattern of a file that it writes.

    Where it wants the last checkpoint, `checkpoint` is (name, classes) of one.
    """

    def run(command, folder):
        if checkpoint:
            name, classes = checkpoint
            save_weights(folder / "logs" / f"{name}20260101T1200" / f"mask_rcnn_{name}_0001.h5", classes)
        script, *arguments = shlex.split(command)[1:]
        name = Path(script).stem
        known = {"balloon": test_balloon.balloon, "nucleus": test_nucleus_commands.nucleus, "coco": coco}
        module = known.get(name) or scripts.load_script((ROOT / script).parent, name)
        assert Path(module.__file__).resolve() == ROOT / script
        module.main([*arguments, *cut_down])
        assert len(list(folder.glob(leaves))) == 1, [*folder.rglob("*")]

    run.needs = "workshop"
    return run


def from_nothing(command, folder):
    """Its flags are understood; test_from_nothing.py trains two steps of it."""
    script, *arguments = shlex.split(command)[1:]
    args = scripts.load_script((ROOT / script).parent, Path(script).stem).parse_arguments(arguments)
    assert (args.task, args.dataset, args.weights) == ("balloon", "datasets/balloon", None)


from_nothing.needs = "workshop"


def watch(command, folder):
    """TensorBoard lists what it finds in the logs of the examples, and ends, where it would start a server."""
    program, *arguments = shlex.split(command)
    said = run([sys.executable, "-m", f"{program}.main", *arguments, "--inspect"], folder)
    assert "epoch_loss" in said or "epoch_mrcnn_mask_loss" in said, said


watch.needs = "played"

def parallel_digits(command, folder):
    """The module is there and says what it does; test_digits.py runs it, which takes a divided CPU."""
    interpreter, *arguments = shlex.split(command)
    said = run([sys.executable, *arguments, "--help"], folder)
    assert interpreter == "python" and "drawn digits on two devices" in " ".join(said.split()), said


# ------------------------------------------------------------------ what each command is run as
COMMANDS = {
    "pip install -e .": install,
    'pip install -e ".[samples]"': name_extras,
    'pip install -e ".[coco]"': name_extras,
    "pip install -r requirements.txt": name_requirements,
    'pip install "tensorflow[and-cuda]"': name_foreign_extra,
    "make": list_targets,
    "make demo": dry_make("samples/shapes/demo.py"),  # test_shapes.py runs that
    "make test": dry_make("ruff check", "-m pytest"),
    "make notebooks": dry_make("notebooks/refresh.py"),  # test_notebooks.py does
    "make pictures": dry_make("docs/pictures.py"),  # test_readme_pictures.py does
    "jupyter lab notebooks": name_jupyter,
    "python -m mrcnn.parallel_model": parallel_digits,
    "tensorboard --logdir logs": watch,
    "python samples/shapes/shapes.py detect --weights samples/shapes/mask_rcnn_shapes.h5": sample(
        leaves="shapes_detections.png"
    ),
    "python samples/balloon/balloon.py train --dataset datasets/balloon --weights coco": sample(
        *LOGS, *SHORT, leaves="logs/balloon*/mask_rcnn_balloon_0001.h5"
    ),
    "python samples/balloon/balloon.py splash --weights last --image photo.jpg": sample(
        *LOGS, leaves="splash_*.png", checkpoint=("balloon", 2)
    ),
    "python samples/nucleus/nucleus.py train --dataset datasets/nucleus --subset train --weights imagenet": sample(
        *LOGS, *SHORT, leaves="logs/nucleus*/mask_rcnn_nucleus_0001.h5"
    ),
    "python samples/from_nothing.py balloon --dataset datasets/balloon": from_nothing,
    "python samples/coco/coco.py train --dataset datasets/coco --year 2017 --weights imagenet --download": sample(
        *LOGS, *SHORT, leaves="logs/coco*/mask_rcnn_coco_0001.h5"
    ),
    "python samples/coco/coco.py train --dataset datasets/coco --year 2017 --weights last": sample(
        *LOGS, "--epochs", "2", "--steps", "1", leaves="logs/coco*/mask_rcnn_coco_0002.h5", checkpoint=("coco", 4)
    ),
    "python samples/coco/coco.py evaluate --dataset datasets/coco --year 2017 --weights last --limit 0 --output "
    "results/coco": sample(*LOGS, leaves="results/coco/metrics.json", checkpoint=("coco", 4)),
}  # fmt: skip
SLOW = (install, watch, parallel_digits)


def is_slow(how):
    return how in SLOW or getattr(how, "needs", None) == "workshop"


@pytest.mark.parametrize("command", [pytest.param(command, marks=pytest.mark.slow if is_slow(how) else (), id=command)
                                     for command, how in COMMANDS.items()])  # fmt: skip
def test_command(command, request, tmp_path, monkeypatch):
    how = COMMANDS[command]
    folder = request.getfixturevalue(how.needs) if hasattr(how, "needs") else tmp_path
    for name in ("shapes", "balloon", "nucleus"):  # where started scripts find what they import
        monkeypatch.syspath_prepend(str(ROOT / "samples" / name))
    how(command, folder[0] if isinstance(folder, tuple) else folder)

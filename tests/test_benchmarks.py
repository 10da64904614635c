"""The benchmarks of speed and memory, each in its smallest form: what they print and write, and what they refuse."""

import argparse
import collections
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import scripts

from mrcnn.data.dataset import Dataset
from mrcnn.engine.weights import save_weights
from mrcnn.network import kernels, winograd

common = scripts.load_benchmark("common")
PROGRAMS = ("operations", "detect", "training", "data", "startup", "memory", "agreement", "functions", "convolutions")
posix_only = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and limits are of POSIX")
SMALL = ["--network", "small", "--size", "128", "--runs", "1"]


@pytest.fixture(scope="module")
def programs():
    return {name: scripts.load_benchmark(name) for name in PROGRAMS}


@pytest.fixture
def measured(programs, tmp_path, capsys, monkeypatch):
    """Runs a program's `main`; what it printed, and the figures that it wrote."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")

    def run(name, *arguments):
        path = tmp_path / f"{name}.json"
        programs[name].main([*arguments, "--json", str(path)])
        return capsys.readouterr().out, json.loads(path.read_text())

    return run


def check_summary(row):
    assert 0 < row["least"] <= row["median"] <= row["most"] and len(row["all"]) == 1


# ------------------------------------------------------------------ the programs
@pytest.mark.slow
@pytest.mark.parametrize(("network", "wanted"), [("resnet50", 622), ("resnet101", 777)])
def test_operations_of_a_detection(measured, network, wanted):
    """Known from arithmetic on paper: GFLOP for 1024 pixels, 1000 regions and 100 masks."""
    printed, figures = measured("operations", "--network", network)
    (row,) = figures["rows"]
    assert row["gflop"] == pytest.approx(wanted, rel=0.02) and f"{row['gflop']:.0f}" in printed
    parts = {"pyramid": 59, "proposals": 104, "box head": 14, "mask head": 53}
    assert {part: row["multiply_adds"][part] / 1e9 for part in parts} == pytest.approx(parts, rel=0.03)


def test_functions_around_the_network(measured, programs, monkeypatch):
    printed, figures = measured("functions", "--objects", "3", "--size", "128", "--runs", "1")
    assert [row["what"] for row in figures["cases"]] == [
        "targets of the RPN", "boxes of masks", "mini masks", "masks pasted into 3000 x 2000"]
    for row in figures["cases"]:
        check_summary(row["seconds"])
        check_summary(row["plain_seconds"])
        assert row["times"] > 0 and f"{row['what']} " in printed
    monkeypatch.setattr(programs["functions"], "plain_boxes", lambda masks, right=programs["functions"].plain_boxes:
                        right(masks) + (np.arange(masks.shape[-1]) == 2)[:, None])
    with pytest.raises(SystemExit) as error:
        programs["functions"].main(["--objects", "3", "--size", "128", "--runs", "1"])
    assert "3 objects: the plain form comes to another result" in error.value.code


@pytest.mark.slow
@pytest.mark.parametrize("program", ["functions --objects 3 --size 128 --runs 1", "scaling"])
def test_remarks_of_tensorflow_stay_off_the_screen(program):
    name, *arguments = program.split()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_CPP")}
    command = [sys.executable, scripts.ROOT / "benchmarks" / f"{name}.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False,
                            env=environment | {"KERAS_BACKEND": "tensorflow"})  # fmt: skip
    assert result.returncode == 0 and result.stdout and not result.stderr


def test_convolutions(measured, programs, monkeypatch):
    arguments = ["--maps", "stage4", "stage2", "--precision", "float32", "bfloat16", "--runs", "1"]
    monkeypatch.setattr(kernels, "multiplies_tiles", lambda: False)
    printed, figures = measured("convolutions", *arguments)
    assert [(row["map"], row["precision"], row["chosen"]) for row in figures["cases"]] == [
        ("stage4", "float32", True), ("stage2", "float32", False),
        ("stage4", "bfloat16", True), ("stage2", "bfloat16", False)]  # fmt: skip
    for row in figures["cases"]:
        check_summary(row["seconds"])
        check_summary(row["plain_seconds"])
        assert 0 < row["difference"] < 0.01 and f"{row['times']:.2f}" in printed
    monkeypatch.setattr(winograd, "_matrices", lambda matrices=winograd._matrices:
                        tuple(1.1 * matrix for matrix in matrices()))  # fmt: skip
    with pytest.raises(SystemExit) as error:
        programs["convolutions"].main(arguments)
    assert error.value.code.startswith("stage4, float32: the results differ by ")


def test_operations_of_layers():
    """Counted by hand, on a model with a model in it and with layers that share their work between regions."""
    import keras

    operations = scripts.load_benchmark("operations")
    part = keras.Input((None, None, 4))
    inner = keras.Model(part, keras.layers.Conv2D(2, 3, padding="same", name="rpn_a")(part))
    image = keras.Input((None, None, 3), name="image")
    features = keras.layers.Conv2D(4, 1, strides=2, name="res")(image)
    twice = keras.layers.Add()([inner(features), inner(features)])
    wide = keras.layers.Conv2DTranspose(5, 2, strides=2, name="mrcnn_mask_deconv")(twice)
    model = keras.Model(image, keras.layers.Dense(7, name="mrcnn_class_logits")(wide))
    counts = operations.by_part(model, [(3, 16, 16, 3)])
    assert counts == {
        "backbone": 3 * 64 * 4 * 3, "pyramid": 0, "proposals": 2 * 3 * 64 * 2 * 9 * 4,
        "mask head": 3 * 64 * 2 * 4 * 5, "box head": 3 * 256 * 5 * 7,
    }  # fmt: skip
    model.get_layer("res").trainable = False
    trained = operations.training_gflop(model, [(3, 16, 16, 3)])
    assert trained == pytest.approx(2e-9 * (3 * sum(counts.values()) - 2 * counts["backbone"]))


@pytest.mark.slow
def test_detect(measured):
    choices = ["--batch", "2", "--instances", "0", "7", "--photo", "small", "--peak-size", "256"]
    printed, figures = measured("detect", *SMALL, *choices)
    assert printed.startswith("detect at 128 pixels on tensorflow, 1 runs\n") and "products of 256 x 256" in printed
    assert [row["instances"] for row in figures["cases"]] == [0, 7]
    for row in figures["cases"]:
        check_summary(row["seconds"])
        assert row["contender"] == "mrcnn" and row["share_of_peak"] > 0 and f"{row['gflop']:.3g}" in printed
    assert figures["cases"][0]["gflop"] < figures["cases"][1]["gflop"]
    assert figures["peak"]["gflops"]["tensorflow"]["float32"] > 0 and "tensorflow" in figures["versions"]


@pytest.mark.slow
def test_training(measured):
    printed, figures = measured("training", *SMALL, "--batch", "1", "--peak-size", "256", "--images", "objects",
                                "--markdown")  # fmt: skip
    assert "| network | images | size |" in printed
    heads, everything = figures["cases"]
    assert (heads["layers"], everything["layers"]) == ("heads", "all") and heads["gflop"] < everything["gflop"]
    check_summary(heads["seconds"])


@pytest.mark.slow
def test_data(measured):
    printed, figures = measured("data", "--sets", "drawn", "--workers", "0", "2", "--size", "128", "--runs", "1",
                                "--batches", "2")  # fmt: skip
    assert printed.startswith("training images per second at 128 pixels, 1 runs of 2 batches of 2; ")
    assert "; 0 MiB of images kept; tensorflow\n" in printed
    assert [row["workers"] for row in figures["cases"]] == [0, 2]
    for row in figures["cases"]:
        check_summary(row["images_per_second"])


@pytest.mark.filterwarnings("ignore:.*object:UserWarning")  # some vanish in images this small
@pytest.mark.parametrize("cache", [0, 512])
def test_each_case_reads_anew(programs, data_dir, monkeypatch, cache):
    """Or else the second case would find in memory what the first has read."""
    read, load_image = [], Dataset.load_image
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(Dataset, "load_image", lambda self, image: read.append(image) or load_image(self, image))
    programs["data"].main(["--sets", "balloon", "--data", str(data_dir), "--size", "64", "--batches", "40", "--runs",
                           "1", "--workers", "0", "0", "--cache", str(cache)])  # fmt: skip
    if cache:
        assert set(collections.Counter(read).values()) == {2}  # once in each case
    else:
        assert len(read) >= 2 * 2 * (10 + 40)  # cases, images of a batch, batches


@pytest.mark.filterwarnings("ignore:.*object:UserWarning")  # some vanish in images this small
def test_data_of_the_folder(measured, data_dir):
    names = ["balloon", "nucleus", "coco"]
    printed, figures = measured("data", "--sets", *names, "--data", str(data_dir), "--workers", "0", "--size", "128",
                                "--runs", "1", "--batches", "1", "--batch", "1")  # fmt: skip
    assert [(row["set"], row["workers"]) for row in figures["cases"]] == [(name, 0) for name in names]
    for row in figures["cases"]:
        check_summary(row["images_per_second"])
        assert f"{row['images_per_second']['median']:.1f} /s" in printed


@pytest.mark.slow
def test_startup(measured):
    printed, figures = measured("startup", *SMALL, "--peak-size", "256")
    alone, network = figures["cases"]
    assert alone["what"] == "import alone" and network["what"] == "small, float32" and "first detection" in printed
    assert alone["stages"]["import"]["median"] < network["stages"]["import"]["median"], "it has Keras to import"
    for row in figures["cases"]:
        check_summary(row["seconds"])
    rate = figures["peak"]["gflops"]["tensorflow"]["float32"]
    assert "products of 256 x 256: tensorflow float32" in printed.splitlines()[1]
    assert network["gflop_meanwhile"] == pytest.approx(network["seconds"]["median"] * rate) and rate > 0
    wanted = f"mrcnn took as long as {common.number(network['gflop_meanwhile'])} GFLOP of products"
    assert f"small, float32: {wanted}" in printed and "gflop_meanwhile" not in alone


@pytest.mark.slow
def test_memory(measured):
    printed, figures = measured("memory", "--cases", "import", "small", "--size", "128", "--runs", "1")
    alone, network = figures["cases"]
    assert 2e7 < alone["bytes"]["median"] < network["bytes"]["median"] < 2e10 and "GB" in printed


@pytest.mark.slow
def test_agreement(measured):
    """Of 60 detections bfloat16 changed none on one machine and may change three: elsewhere it may round otherwise."""
    printed, figures = measured("agreement", "--images", "30", "--precision", "float32", "bfloat16", "--markdown")
    assert printed.startswith("| weights | precision |"), "the table alone"
    same, coarse = figures["cases"]
    assert same["float32"] == same["matched"] > 50 and same["share"] == 1 and same["score"] == 0
    assert 0.95 <= coarse["share"] <= 1 and 0 < coarse["score"] < 0.1 and f"{coarse['share']:.1%}" in printed
    assert coarse["mask_iou"] > 0.97


@pytest.mark.slow
def test_agreement_of_a_network_that_the_original_trained(measured, golden_dir):
    """120 of 124 detections were the same; 12 may differ."""
    _, figures = measured("agreement", "--images", "60", "--original", str(golden_dir / "trained_slim"))
    (coarse,) = figures["cases"]
    assert coarse["float32"] > 100 and 0.9 <= coarse["share"] <= 1 and 0 < coarse["score"] < 0.1
    assert coarse["mask_iou"] > 0.97


@pytest.mark.slow
def test_weights_of_another_network(programs, capsys, tmp_path):
    """A text, weights of other layers, and a folder with a backbone or settings that are none: said, with a remedy."""
    agreement = programs["agreement"]
    (tmp_path / "notes.h5").write_text("notes")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    save_weights(model, tmp_path / "other.h5")

    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            agreement.main([*map(str, arguments), "--images", "1"])
        assert stopped.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    for name, reason in (("notes.h5", "is not HDF5"), ("other.h5", "does not fit by order")):
        said = refused("--weights", tmp_path / name)
        assert f"--weights {tmp_path / name}: they are to be of the small network" in said
        assert "--original takes the folder" in said and reason in said
    weights, backbone, settings = (tmp_path / name for name in agreement.ORIGINAL)
    weights.write_text("notes")
    settings.write_text("[]")
    backbone.write_text("make_backbone =")
    assert "slim_backbone.py does not work (SyntaxError:" in refused("--original", tmp_path)
    backbone.write_text("def make_backbone(layers): pass\ncompute_backbone_shape = make_backbone")
    assert f"--original {tmp_path}: slim_val.json holds no settings (TypeError:" in refused("--original", tmp_path)
    settings.write_text('{"config": {"NAME": "x"}}')
    assert f"--original {tmp_path}: AgreementConfig.BACKBONE = None: must be" in refused("--original", tmp_path)


def test_which_detections_agree(programs):
    """Each is matched once, with one of its class, and what either finds alone counts against the share."""
    def result(*rows):
        masks = np.zeros((20, 20, len(rows)), bool)
        for n, (y1, x1, y2, x2, _) in enumerate(rows):
            masks[y1:y2, x1:x2, n] = True
        return {"rois": np.array([row[:4] for row in rows], np.int32).reshape(-1, 4), "masks": masks,
                "class_ids": np.array([row[4] for row in rows], np.int32), "scores": np.ones(len(rows), np.float32)}

    exact = result((0, 0, 10, 10, 1), (0, 0, 10, 10, 2), (10, 10, 20, 20, 1), (0, 10, 10, 20, 1))
    coarse = result((0, 10, 9, 20, 1), (0, 0, 10, 10, 1), (0, 0, 10, 10, 1), (10, 10, 18, 20, 1), (0, 0, 10, 10, 1))
    assert sorted(programs["agreement"].match(exact, coarse)) == [(0, 1), (3, 0)]
    found = programs["agreement"].compare([exact, result()], [coarse, result()])
    assert (found["float32"], found["other"], found["matched"], found["share"]) == (4, 5, 2, 0.4)
    assert found["mask_iou"] == pytest.approx(0.95) and found["score"] == 0


# ------------------------------------------------------------------ their arguments
def test_the_common_arguments_are_those_of_the_readme(capsys):
    everything = {path.stem: path for path in (scripts.ROOT / "benchmarks").glob("*.py")}
    programs = {name for name, path in everything.items() if "def main(arguments=None)" in path.read_text()}
    having = {}
    for name in programs:
        with pytest.raises(SystemExit):
            scripts.load_benchmark(name).main(["--help"])
        having[name] = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    readme = (scripts.ROOT / "benchmarks" / "README.md").read_text()
    assert programs == set(re.findall(r"\[(\w+)\.py\]", readme.split("Common arguments")[0]))
    rows = re.findall(r"^\| (`--.*) \| (.*) \|$", readme, re.MULTILINE)
    assert len(rows) == 6
    for flags, text in rows:
        named = set(re.findall(r"`(\w+)\.py`", text))
        wanted = programs - named if text.startswith("all") else named
        for flag in re.findall(r"--[a-z-]+", flags):
            assert {name for name in programs if flag in having[name]} == wanted, flag


# ------------------------------------------------------------------ what they refuse
@pytest.mark.parametrize("program, arguments, message", [
    ("detect", ["--size", "100"], "must be a multiple of 64; received 100"),
    ("detect", ["--runs", "0"], "must be a whole number of 1 or more; received '0'"),
    ("detect", ["--instances", "-1"], "must be a whole number of 0 or more; received '-1'"),
    ("detect", ["--instances", "2000"], "a network of 1000 proposals finds 1000 at most; received 2000"),
    ("operations", ["--instances", "1001"], "a network of 1000 proposals finds 1000 at most; received 1001"),
    ("detect", ["--peak-size", "255"], "must be a whole number of 256 or more; received '255'"),
    ("detect", ["--peak-size", "10000000"], "--peak-size: must be 32768 or less; received 10000000"),
    ("detect", ["--batch", "x"], "--batch: must be a whole number of 1 or more; received 'x'"),
    ("detect", ["--size", "1.5"], "--size: must be a whole number of 1 or more; received '1.5'"),
    ("detect", ["--backend", "theano"], "invalid choice: 'theano'"),
    ("detect", ["--network", "small", "--peer", "torchvision"], "it has ResNets only"),
    ("training", ["--network", "small", "--peer", "torchvision"], "it has ResNets only"),
    ("startup", ["--network", "small", "--peer", "torchvision"], "it has ResNets only, but --network small was given"),
    ("memory", ["--cases", "small", "--peer", "torchvision"], "it has ResNets only, but --cases small was given"),
    ("training", ["--layers", "5+"], "invalid choice: '5+'"),
    ("data", ["--data", "nowhere"], "--data nowhere: there is no such folder"),
    ("data", ["--data", "."], "it has no balloon/train, nucleus/stage1_train, coco/annotations"),
    ("startup", ["--precision", "float16"], "invalid choice: 'float16'"),
    ("memory", ["--cases", "none"], "invalid choice: 'none'"),
    ("memory", ["--json", "none/x.json"], "there is no such folder"),
    ("operations", ["--json", "none/x.json"], "there is no such folder"),
    ("agreement", ["--weights", "none.h5"], "none.h5: there is no such file"),
    ("agreement", ["--original", "none"], "slim_shapes.h5: there is no such file"),
    ("agreement", ["--images", "0"], "must be a whole number of 1 or more; received '0'"),
])  # fmt: skip
def test_wrong_arguments(programs, program, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        programs[program].main(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


@posix_only
def test_a_json_file_that_cannot_be_written(programs, capsys, tmp_path):
    """Known before anything is measured; what is in a file that can be written stays until there are figures."""
    parser, kept, link = argparse.ArgumentParser(), tmp_path / "kept.json", tmp_path / "link.json"
    kept.write_text("{}")
    link.symlink_to("later.json")
    for path in (kept, link, tmp_path / "new.json"):
        common.check_output(parser, argparse.Namespace(json=path))
    assert sorted(os.listdir(tmp_path)) == ["kept.json", "link.json"] and kept.read_text() == "{}"
    os.mkfifo(tmp_path / "pipe")
    wrong = {tmp_path: "is a folder, not a file", tmp_path / "pipe": "is a pipe or a device, not a file",
             Path("/dev/full"): "is a pipe or a device, not a file",
             tmp_path / ("x" * 251): "it cannot be written (File name too long)"}  # fmt: skip
    for path, reason in wrong.items():
        with pytest.raises(SystemExit):
            programs["operations"].main(["--json", str(path)])
        assert f"--json {path}: {reason}" in " ".join(capsys.readouterr().err.split())


@posix_only
def test_figures_that_find_no_room(tmp_path):
    """The table is printed, the file of another run stays whole, and one line says what happened."""
    path = tmp_path / "kept.json"
    path.write_text("{}")
    code = """if True:
        import argparse, pathlib, resource, sys, common
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        figures = {"machine": common.machine(), "versions": common.versions(["numpy"]), "all": 100 * [1.5]}
        common.finish(argparse.Namespace(json=pathlib.Path(sys.argv[1])), figures, ["the table"])
    """
    folders = os.pathsep.join([str(scripts.ROOT), str(scripts.ROOT / "benchmarks")])
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False,
                            env=os.environ | {"PYTHONPATH": folders})  # fmt: skip
    assert result.returncode == 1 and result.stdout.startswith("the table\n")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"--json {path}: the figures were not written: ") and "No room to save kept.json" in line
    assert os.listdir(tmp_path) == ["kept.json"] and path.read_text() == "{}"


def test_a_backend_that_keras_does_not_have_here(capsys, monkeypatch):
    """Said by all programs but the one that needs no Keras."""
    monkeypatch.setenv("KERAS_BACKEND", "mxnet")
    for name in [*PROGRAMS, "parallel", "scaling"]:
        with pytest.raises(SystemExit):
            scripts.load_benchmark(name).main(["--sets", "drawn"] if name == "data" else [])
        said = " ".join(capsys.readouterr().err.split())
        assert said.endswith("error: KERAS_BACKEND=mxnet: must be one of tensorflow, jax, torch"), name


def test_data_need_a_folder(programs, capsys, monkeypatch):
    monkeypatch.delenv("MRCNN_DATA", raising=False)
    with pytest.raises(SystemExit):
        programs["data"].main([])
    assert "with --data or MRCNN_DATA, or use --sets drawn" in capsys.readouterr().err


def test_a_peer_or_a_backend_that_is_not_there(programs, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torchvision", "jax") else object())
    wanted = {"--peer torchvision": "torchvision is not installed; pip install -c constraints.txt torch torchvision",
              "--backend jax": 'it is not installed; pip install -e ".[jax]"'}  # fmt: skip
    for arguments, message in wanted.items():
        with pytest.raises(SystemExit):
            programs["startup"].main(arguments.split())
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("program, flag", [("detect", "--network"), ("startup", "--network"), ("memory", "--cases")])
def test_where_a_peer_is_left_out(programs, program, flag, capsys, monkeypatch):
    monkeypatch.setattr(programs[program].common, "check_arguments", lambda parser, args, load=True: parser.exit())
    for chosen, printed in (("small resnet50", "torchvision has no small network: it is left out there\n"),
                            ("resnet50", "")):  # fmt: skip
        with pytest.raises(SystemExit):
            programs[program].main([flag, *chosen.split(), "--peer", "torchvision"])
        assert capsys.readouterr().out == printed


@pytest.mark.parametrize("program", ["detect", "memory"])
def test_masks_that_need_a_package(programs, program, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(SystemExit):
        programs[program].main(["--masks", "rle"])
    said = " ".join(capsys.readouterr().err.split())
    assert "--masks rle: COCO's measures and masks need pycocotools: pip install pycocotools" in said


def test_a_wrong_number_of_instances_is_an_error():
    contenders = scripts.load_benchmark("contenders")
    contenders.check_found("mrcnn", [np.zeros((3, 4))] * 2, 3)
    with pytest.raises(RuntimeError, match=r"to find 3 instances in each photo, but found 3, 2:"):
        contenders.check_found("mrcnn", [np.zeros((3, 4)), np.zeros((2, 4))], 3)
    with pytest.raises(RuntimeError, match="the loss of mrcnn is nan"):
        contenders.check_loss("mrcnn", float("nan"))


def test_a_process_that_hangs_ends_the_program(programs, monkeypatch):
    monkeypatch.setattr(programs["memory"].fresh, "LIMIT", 0.01)
    with pytest.raises(SystemExit, match=r"^utils {'contender': 'mrcnn'} was not done in its process after 0.01 s"):
        programs["memory"].main(["--cases", "import", "--runs", "1"])


@pytest.mark.parametrize("program", ["detect", "training"])
def test_contenders_that_cannot_be_compared_end_the_program(programs, program, monkeypatch):
    """With the message, which sets the exit code to 1, and not with a traceback."""
    contenders = scripts.load_benchmark("contenders")
    monkeypatch.setattr(programs[program].common, "check_arguments", lambda parser, args: None)
    monkeypatch.setattr(programs[program], "run", lambda args: contenders.check_loss("mrcnn", math.inf))
    with pytest.raises(SystemExit, match="^the loss of mrcnn is inf: its times would not be comparable$"):
        programs[program].main([])


# ------------------------------------------------------------------ the parts
def test_turns_and_ratios():
    turns = []
    functions = {name: lambda name=name: turns.append(name) for name in "ab"}
    seconds = common.take_turns(functions, runs=2, warm_up=1)
    assert "".join(turns) == "ababab" and [len(values) for values in seconds.values()] == [2, 2]
    rows = common.add_ratios([{"seconds": common.summary([1, 2, 4])}, {"seconds": common.summary([2, 6, 4])}])
    assert "times_mrcnn" not in rows[0] and rows[1]["times_mrcnn"] == 2


def test_tables():
    header, rows = ["name", "s"], [["long name", "1.0"], ["b", "10.0"]]
    assert common.table(header, rows) == ["name          s", "long name   1.0", "b          10.0"]
    marked = ["| name | s |", "|---|---|", "| long name | 1.0 |", "| b | 10.0 |"]
    assert common.table(header, rows, markdown=True) == marked
    assert [common.number(value) for value in (1.754, 622.4, 12345)] == ["1.75", "622", "12,345"]


def test_photos_are_smooth_and_of_their_seed():
    photos = scripts.load_benchmark("photos")
    one, again, other = (photos.make_photo(96, 64, seed) for seed in (0, 0, 1))
    assert one.shape == (64, 96, 3) and one.dtype == np.uint8 and one.std() > 15
    assert (one == again).all() and (one != other).any()
    assert np.abs(np.diff(one.astype(int), axis=1)).mean() < 6, "neighbours are alike"


def test_objects_have_masks_and_classes():
    data = scripts.load_benchmark("photos").Objects(2, 128, classes=5)
    masks, class_ids = data.load_mask(1)
    assert masks.shape == (128, 128, 10) and masks.any(axis=(0, 1)).all() and set(class_ids) <= set(range(1, 6))
    assert data.load_image(1).shape == (128, 128, 3) and data.num_classes == 6


# ------------------------------------------------------------------ beside a peer
@pytest.fixture
def torchvision():
    """Skips where torchvision is not installed, or cannot be imported."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision


@pytest.mark.slow
def test_detect_beside_a_peer(torchvision, measured):
    _, figures = measured("detect", "--network", "resnet50", "--size", "128", "--runs", "1", "--batch", "1",
                          "--instances", "20", "--photo", "small", "--peak-size", "256", "--peer", "torchvision")
    ours, peers = figures["cases"]
    assert (ours["contender"], peers["contender"]) == ("mrcnn", "torchvision") and peers["times_mrcnn"] > 0
    # its RPN is half as wide, and an image this small leaves it fewer than 1000 proposals
    assert 0.6 * ours["gflop"] < peers["gflop"] < ours["gflop"] and "torch" in figures["peak"]["gflops"]


@pytest.mark.slow
def test_training_beside_a_peer(torchvision, measured):
    _, figures = measured("training", "--size", "128", "--runs", "1", "--batch", "1", "--images", "objects",
                          "--layers", "heads", "--peak-size", "256", "--peer", "torchvision")
    ours, peers = figures["cases"]
    assert peers["contender"] == "torchvision" and peers["times_mrcnn"] > 0 and 0 < peers["gflop"] < ours["gflop"]


def test_rows_whose_number_is_open_are_left_out():
    operations = scripts.load_benchmark("operations")
    layer = keras.layers.Conv2D(3, 1)
    layer.build((None, 4, 4, 2))
    assert operations.multiply_adds(layer, (1, 4, 4, 2), (1, 4, 4, 3)) == 4 * 4 * 2 * 3
    assert operations.multiply_adds(layer, (1, None, 4, 4, 2), (1, None, 4, 4, 3)) is None

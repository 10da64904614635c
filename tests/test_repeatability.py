"""`SEED` on a CPU: two trainings in two processes give the same numbers, bit by bit; and runs that share a folder."""

import csv
import hashlib
import json
import os
import subprocess
import sys
import time

import h5py
import pytest
import reliability
from scripts import ROOT

from mrcnn.engine import h5_layout


def start(folder, **arguments):
    """A training in a process of its own; `PYTHONHASHSEED` differs, so that no order of a set is the same by chance."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, **arguments.pop("env", {}), "PYTHONPATH": paths, "PYTHONHASHSEED": "random"}
    os.makedirs(folder, exist_ok=True)
    command = [sys.executable, str(ROOT / "tests" / "repeated.py"), str(folder), json.dumps(arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process, timeout=900):
    """What a training tells at its end; fails if it failed."""
    try:
        printed, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, printed[-1000:] + errors[-3000:]
    (line,) = (line for line in printed.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def together(tmp_path, *runs):
    """Results of trainings that run at the same time, each in a folder of its own."""
    started = [start(tmp_path / f"run{number}", **run) for number, run in enumerate(runs)]
    try:
        return [result(process) for process in started]
    finally:
        for process in started:
            process.kill()


def compare(first, *others):
    """Fails at the first bit that differs, naming the step and the loss, or the weight."""
    for other in others:
        for step, (ours, theirs) in enumerate(zip(first["losses"], other["losses"], strict=True), start=1):
            assert ours == theirs, f"step {step}"
        assert first["weights"] == other["weights"]


# ------------------------------------------------------------------ a sample: two trainings, one config, one minute
MINUTE = (2031, 12, 31, 23, 59, 30)


def at_once(folder, *runs):
    """Results of trainings that share a `model_dir`, and start at the same moment of the same minute."""
    gate = folder / "gate"
    started = [start(folder / "logs", clock=MINUTE, env={"REPEATED_GATE": str(gate)}, **run) for run in runs]
    try:
        while len(list(folder.glob("ready*"))) < len(started):
            assert all(process.poll() is None for process in started), [process.communicate() for process in started]
            time.sleep(0.01)
        gate.touch()
        return [result(process) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder of the runs, and results of two trainings that only differ in who prepares the data: (folder, runs)."""
    folder = tmp_path_factory.mktemp("pair")
    runs = [{"settings": {"DATA_WORKERS": workers}, "vary_by": "function"} for workers in (0, 2)]
    return folder / "logs", at_once(folder, *runs)


@pytest.mark.slow
def test_a_seed_gives_the_same_bits(pair):
    """In two processes, with and without threads that prepare the data, with augmentation."""
    _, (first, second) = pair
    compare(first, second)
    assert len(first["losses"]) == 4 and len(set(map(str, first["losses"]))) == 4
    assert any("moving_mean" in path for path in first["weights"])
    changed = json.loads(json.dumps(first))
    changed["losses"][2]["loss"] = float.hex(float.fromhex(changed["losses"][2]["loss"]) * (1 + 2**-23))
    with pytest.raises(AssertionError, match="step 3"):
        compare(first, changed)


@pytest.mark.slow
def test_two_trainings_of_the_same_minute_do_not_meet(pair):
    """Same config, same `model_dir`: the second takes the next minute, and each folder has the files of one run."""
    check_folders(*pair)


def check_folders(logs, runs):
    assert sorted(os.listdir(logs)) == ["tiny20311231T2359", "tiny20320101T0000"]
    assert sorted(run["folder"] for run in runs) == sorted(os.listdir(logs))
    for run in runs:
        folder = logs / run["folder"]
        names = {f"{kind}_{epoch:04d}.h5" for kind in ("mask_rcnn_tiny", "optimizer") for epoch in (1, 2)}
        assert set(os.listdir(folder)) == {*names, "log.csv", "train", "validation"}
        assert len(os.listdir(folder / "train")) == len(os.listdir(folder / "validation")) == 1
        assert all(h5_layout.is_whole(folder / name) for name in names if name.startswith("mask"))
        with open(folder / "log.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["0", "1"]
        assert float(rows[1]["loss"]) == pytest.approx(float.fromhex(run["losses"][-1]["loss"]))
        saved = digests_of_file(folder / "mask_rcnn_tiny_0002.h5")
        assert len(saved) > 20 and saved <= set(run["weights"].values())


def digests_of_file(path):
    """The digests of all arrays in a file of weights."""
    found = set()

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found.add(hashlib.sha256(item[()].tobytes()).hexdigest()[:16])

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


# ------------------------------------------------------------------ all settings
CASES = {
    "two workers, twice, function": [{"vary_by": "function"}] * 2,
    "no workers, twice, function": [{"settings": {"DATA_WORKERS": 0}, "vary_by": "function"}] * 2,
    "imgaug, 0 and 3 workers": [{"settings": {"DATA_WORKERS": n}, "vary_by": "imgaug"} for n in (0, 3)],
    "albumentations": [{"settings": {"DATA_WORKERS": n}, "vary_by": "albumentations"} for n in (0, 2)],
    "batch statistics, crops": [{"settings": {"TRAIN_BN": None, "IMAGE_RESIZE_MODE": "crop"}}] * 2,
    "random regions, accumulated": [{"settings": {"USE_RPN_ROIS": False, "GRADIENT_ACCUMULATION": 2}}] * 2,
    "images without objects count": [{"settings": {"USE_EMPTY_IMAGES": True}}] * 2,
    "bfloat16": [{"settings": {"PRECISION": "bfloat16"}}] * 2,
    "ResNet-50": [{"resnet": True, "settings": {"DATA_WORKERS": n, "STEPS_PER_EPOCH": 4}} for n in (0, 2)],
}


@pytest.mark.long
def test_seeds_give_the_same_bits_in_all_settings(tmp_path):
    figures = {}
    for number, (name, runs) in enumerate(CASES.items()):
        first, *others = together(tmp_path / str(number), *runs)
        compare(first, *others)
        figures[name] = {"steps": len(first["losses"]), "weights": len(first["weights"]), "bits_that_differ": 0}
    figures["interrupted and resumed"] = resumed(tmp_path)
    print(reliability.keep("repeatability", {"pairs": figures}).read_text())


def resumed(tmp_path):
    """Two epochs in one go, and one after the other in two processes, are the same bits, too."""
    whole = result(start(tmp_path / "whole", epochs=2, vary_by="function"))
    half = result(start(tmp_path / "halves", epochs=1, vary_by="function"))
    rest = result(start(tmp_path / "halves", epochs=2, vary_by="function", resume=True))
    compare(whole, {"losses": half["losses"] + rest["losses"], "weights": rest["weights"]})
    return {"steps": len(whole["losses"]), "weights": len(whole["weights"]), "bits_that_differ": 0}


@pytest.mark.long
def test_two_seeds_of_the_same_minute_do_not_meet(tmp_path):
    """Other weights in each: a file of the other run would show."""
    runs = at_once(tmp_path, *({"settings": {"SEED": seed}} for seed in (1, 2)))
    assert runs[0]["weights"] != runs[1]["weights"]
    check_folders(tmp_path / "logs", runs)
    reliability.keep_beside("repeatability", two_seeds_of_the_same_minute={
        "folders": len(runs), "weights": len(runs[0]["weights"]), "files_of_another_run": 0})  # fmt: skip

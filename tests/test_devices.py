"""Which devices there are, and the same work on one and on two of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import golden_files
import numpy as np
import pytest
from clusters import PATH, Cluster

from mrcnn.distribution import devices

TESTS = Path(__file__).parent
FIXTURE = "training_step_r50.npz"


def test_fewer_devices_than_asked_for():
    with pytest.raises(ValueError, match=r"GPU_COUNT = 99: found \d+ \(.+\).*GPU_COUNT = \d"):
        devices.check_devices(99)
    devices.check_devices(1)
    assert devices.found_devices()


def test_rows_are_divided_evenly():
    assert devices.share_of(4, 2) == 2 and devices.share_of(0, 2) == 0
    assert devices.length([np.zeros((4, 2)), (np.zeros(4),)]) == 4
    with pytest.raises(ValueError, match="a batch of 3 images cannot be divided evenly between 2 devices"):
        devices.share_of(3, 2)


# ---- two devices, in a process of their own


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def two_devices(request, tmp_path_factory):
    """What tests/two_devices.py came to."""
    folder = tmp_path_factory.mktemp(request.param)
    environment = os.environ | {"KERAS_BACKEND": request.param, "PYTHONPATH": PATH}
    done = subprocess.run([sys.executable, TESTS / "two_devices.py", folder], env=environment, capture_output=True,
                          text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text()) | {"backend": request.param}


on_two = [pytest.mark.slow, pytest.mark.backend]


@pytest.mark.parametrize("work", [pytest.param(w, marks=on_two) for w in ("train", "on_batch", "keras_model")])
def test_two_devices_train_as_one(two_devices, work):
    one, two = two_devices[work]["1"], two_devices[work]["2"]
    for losses, shared in zip(one["losses"], two["losses"], strict=True):
        assert shared == pytest.approx(losses, rel=1e-5, abs=1e-6)
    for name, values in one.get("weights", {}).items():
        np.testing.assert_allclose(two["weights"][name], values, atol=2e-6, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(two.get("predicted", 0), one.get("predicted", 0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.backend
def test_two_devices_detect_as_one(two_devices):
    one, two = two_devices["detect"]["1"], two_devices["detect"]["2"]
    assert one["rois"] == two["rois"] and sum(map(len, one["rois"])) > 5
    for scores, shared in zip(one["scores"], two["scores"], strict=True):
        assert shared == pytest.approx(scores, abs=1e-5)
    assert two["pixels"] == pytest.approx(one["pixels"], rel=0.01)
    assert two["AP"] == pytest.approx(one["AP"], abs=1e-6) and min(one["AP"]) > 0.3
    assert two["rpn_class"] == pytest.approx(one["rpn_class"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.backend
def test_what_two_devices_cannot_do(two_devices):
    messages = two_devices["errors"]
    assert two_devices["devices"] == ["cpu:0", "cpu:1"]
    assert messages["accumulation"].startswith("ValueError: GRADIENT_ACCUMULATION = 2 is for one device")
    assert messages["three devices"].startswith("ValueError: GPU_COUNT = 3: found 2 (cpu:0, cpu:1). Use GPU_COUNT = 2")
    assert "a batch of 3 images cannot be divided evenly between 2 devices" in messages["uneven batch"]
    assert "a batch of 1 images cannot be divided" in messages["uneven last batch"]
    assert messages["uneven prediction"] < 1e-5
    assert messages["too late"].startswith("RuntimeError: divide_cpu(3) must come before")


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.parametrize("two_devices", ["jax"], indirect=True, scope="module")
def test_devices_exchange_nothing_but_sums(two_devices):
    """Under JAX no feature map, and no row of proposals, travels from one device to another."""
    assert two_devices["collectives"] == ["all-reduce"]


# ---- the original's training fixture

# Per device, at least. A sample of one proposal lies on the border of its image, and the last bit decides whether it
# counts: on TensorFlow the convolutions of one image round otherwise than those of several, those of two as of eight.
IMAGES = {"tensorflow": 2, "jax": 1}


def five_steps(folder, backend, devices=1, processes=1, images=2):
    """Losses [step, loss] and the change of each weight, see tests/sharing.py."""
    path = Path(folder) / f"{backend}_{devices}_{processes}_{images}.npz"
    if not path.exists():
        arguments = (path, devices, images, "mrcnn_.*", 0.01)  # the fixture's variant of several steps
        with Cluster(processes, folder, "sharing.py", *arguments, backend=backend) as cluster:
            cluster.finish(1200)
    with np.load(path) as arrays:
        changes = dict(arrays)
    return changes.pop("losses"), changes


def check_five_steps(one, shared, name):
    """Equal but for rounding; prints how far the losses and the weights are apart."""
    (losses, changes), (shared_losses, shared_changes) = one, shared
    assert set(changes) == set(shared_changes) and len(changes) > 20
    apart = np.abs(shared_losses / losses - 1)
    difference = sum(np.square(shared_changes[key] - change, dtype="f8").sum() for key, change in changes.items())
    moved = np.sqrt(difference / sum(np.square(change, dtype="f8").sum() for change in changes.values()))
    print(f"\n| {name} | {apart[:, 0].max():.1e} (each of the five: {apart.max():.1e}) | {moved:.1e} |")
    assert apart[:, 0].max() <= 1e-5 and moved <= 1e-3
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("five_steps")


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.long)])
def test_five_steps_on_two_devices(folder, backend):
    golden_files.need(FIXTURE)
    images = 2 * IMAGES[backend]
    one = five_steps(folder, backend, images=images)
    variant = next(v for v in golden_files.load("training_step_r50").index["variants"] if v["name"] == "momentum")
    want = [losses["loss"] for losses in variant["losses"]]
    np.testing.assert_allclose(one[0][: len(want), 0], want, rtol=4e-4)  # the original's own
    check_five_steps(one, five_steps(folder, backend, devices=2, images=images), f"{backend}, 2 devices")


@pytest.mark.long
@pytest.mark.parametrize("backend, devices, processes", [
    ("tensorflow", 4, 1), ("jax", 4, 1), ("jax", 1, 2), ("jax", 1, 4), ("jax", 2, 2),
])  # fmt: skip
def test_five_steps_on_four_devices(folder, backend, devices, processes):
    golden_files.need(FIXTURE)
    images = 4 * IMAGES[backend]
    name = f"{backend}, {processes} process{'es' * (processes > 1)} of {devices} device{'s' * (devices > 1)}"
    one = five_steps(folder, backend, images=images)
    check_five_steps(one, five_steps(folder, backend, devices, processes, images), name)

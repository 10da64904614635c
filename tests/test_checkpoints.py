"""Run folders, and the optimizer's state between runs."""

import datetime
import errno
import re

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.engine.checkpoints import (
    find_last,
    load_optimizer,
    parse_checkpoint,
    run_name,
    save_optimizer,
    training_stage,
)
from mrcnn.engine.h5_layout import write_file


@pytest.mark.parametrize("path, date, epoch", [
    ("/path/to/logs/coco20171029T2315/mask_rcnn_coco_0001.h5", (2017, 10, 29, 23, 15), 1),
    (r"\path\to\logs\coco20171029T2315\mask_rcnn_coco_0042.h5", (2017, 10, 29, 23, 15), 42),
    (r"C:\logs\coco20171029T2315\mask_rcnn_coco_0042.h5", (2017, 10, 29, 23, 15), 42),
    ("/l/my-net_x20200229T0102/mask_rcnn_my-net_x_0107.h5", (2020, 2, 29, 1, 2), 107),
    ("net1220200229T0102/mask_rcnn_net12_12345.h5", (2020, 2, 29, 1, 2), 12345)])
def test_parses_checkpoints(path, date, epoch):
    assert parse_checkpoint(path) == (datetime.datetime(*date), epoch)


@pytest.mark.parametrize("path", ["/somewhere/weights.h5", "mask_rcnn_coco.h5", "/l/coco20171029T2315/weights_0001.h5",
                                  "/l/coco/mask_rcnn_coco_0001.h5", "/l/coco20179929T2315/mask_rcnn_coco_0001.h5",
                                  "/l/coco20171029T2315/mask_rcnn_coco_0001.h5.tmp"])
def test_other_paths_are_none(path):
    assert parse_checkpoint(path) is None
    assert run_name(path) is None


@pytest.mark.parametrize("path, name", [
    ("logs/COCO20171029T2315/mask_rcnn_coco_0001.h5", "coco"),
    ("\\l\\my-net_x220200229T0102\\mask_rcnn_my-net_x2_0107.h5", "my-net_x2")])
def test_a_checkpoint_knows_the_name_of_its_run(path, name):
    assert run_name(path) == name


@given(name=st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True), epoch=st.integers(1, 99999),
       start=st.datetimes(min_value=datetime.datetime(1990, 1, 1), max_value=datetime.datetime(2100, 1, 1)))
def test_parses_what_is_written(name, epoch, start):
    path = f"/logs/{name}{start:%Y%m%dT%H%M}/mask_rcnn_{name}_{epoch:04d}.h5"
    assert parse_checkpoint(path) == (start.replace(second=0, microsecond=0), epoch)


def checkpoint(folder, run, name, whole=True):
    (folder / run).mkdir(exist_ok=True)
    path = folder / run / name
    if whole:
        write_file(path, {"conv1": {"conv1/bias:0": np.zeros(64, "float32")}})
    else:
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return str(path)


def test_finds_the_last_epoch_of_the_newest_run(tmp_path):
    for run, name in (("golden20200101T0000", "golden_0010"), ("golden20210101T0000", "golden_0002"),
                      ("golden20210101T0000", "golden_best"), ("other20220101T0000", "other_0009"),
                      ("golden2_20220101T0000", "golden2__0009"), ("golden20220101T0000x", "golden_0001")):
        checkpoint(tmp_path, run, f"mask_rcnn_{name}.h5")
    want = checkpoint(tmp_path, "golden20210101T0000", "mask_rcnn_golden_10000.h5")
    checkpoint(tmp_path, "golden20210101T0000", "mask_rcnn_golden_9999.h5")
    (tmp_path / "golden20210101T0000" / "events.x").touch()
    assert find_last(tmp_path, "Golden") == want


def test_skips_empty_runs_and_broken_files_and_says_so(tmp_path, capsys):
    want = checkpoint(tmp_path, "x20200101T0000", "mask_rcnn_x_0003.h5")
    checkpoint(tmp_path, "x20200101T0000", "mask_rcnn_x_0004.h5", whole=False)
    checkpoint(tmp_path, "x20200102T0000", "mask_rcnn_x_0001.h5", whole=False)
    (tmp_path / "x20200103T0000").mkdir()
    (tmp_path / "x20200104T0000").touch()
    assert find_last(tmp_path, "x") == want
    printed = capsys.readouterr().out
    assert "mask_rcnn_x_0004.h5 is not a whole" in printed and "x20200103T0000 has no checkpoint" in printed


def test_nothing_found_names_what_was_looked_at(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder x\{YYYYMMDD\}") as caught:
        find_last(tmp_path, "X")
    assert caught.value.errno == errno.ENOENT and str(tmp_path) in str(caught.value)
    checkpoint(tmp_path, "x20200101T0000", "mask_rcnn_x_0001.h5", whole=False)
    with pytest.raises(FileNotFoundError, match="x20200101T0000"):
        find_last(tmp_path, "x")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        find_last(tmp_path / "logs", "x")


# ------------------------------------------------------------------ optimizer
def trained(seed, train_first=True, steps=3, optimizer="SGD"):
    """A little model after some steps, with its optimizer."""
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(1, name="mrcnn_b")(keras.layers.Dense(2, name="conv1")(x)))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 0.1, "float32"))
    model.get_layer("conv1").trainable = train_first
    made = keras.optimizers.SGD(0.01, momentum=0.9) if optimizer == "SGD" else keras.optimizers.Adam(0.01)
    made.build(model.trainable_variables)
    for _ in range(steps):
        gradients = [keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32"))
                     for v in model.trainable_variables]
        made.apply(gradients, model.trainable_variables)
    return model, made, training_stage(made, model.trainable_variables)


def state(optimizer):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in optimizer.variables]


def but_rate(optimizer):
    """The variables but for the learning rate, which no file gives back."""
    return [variable for variable in optimizer.variables if variable.name != "learning_rate"]


def state_but_rate(optimizer):
    """{position and name: array} of all that a file gives back."""
    return {f"{position} {variable.name}": np.array(keras.ops.convert_to_numpy(variable))
            for position, variable in enumerate(but_rate(optimizer))}  # fmt: skip


def assert_same_state(got, want):
    assert got.keys() == want.keys() and len(want) > 3
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_optimizer_state_goes_on(tmp_path, kind):
    _, first, stage = trained(1, optimizer=kind)
    save_optimizer(first, tmp_path / "optimizer.h5", stage)
    _, second, same_stage = trained(2, steps=0, optimizer=kind)
    second.learning_rate = 0.5
    assert stage == same_stage and load_optimizer(second, tmp_path / "optimizer.h5", same_stage)
    assert int(second.iterations) == 3 and np.isclose(float(second.learning_rate), 0.5)
    for left, right in zip(state(first)[2:], state(second)[2:], strict=True):
        assert np.any(left) and np.array_equal(left, right)


def test_optimizer_of_another_stage_starts_anew(tmp_path, capsys):
    _, first, stage = trained(1)
    path = tmp_path / "optimizer.h5"
    save_optimizer(first, path, stage)
    for other in (trained(2, train_first=False), trained(2, optimizer="Adam")):
        before = state(other[1])
        assert not load_optimizer(other[1], path, other[2])
        assert all(map(np.array_equal, state(other[1]), before))
        assert "another stage" in capsys.readouterr().out
    _, smaller, _ = trained(2, train_first=False)
    assert not load_optimizer(smaller, path, stage)
    assert "other variables" in capsys.readouterr().out


def test_missing_or_broken_optimizer_state_is_no_error(tmp_path, capsys):
    _, optimizer, stage = trained(1)
    path = tmp_path / "optimizer.h5"
    assert not load_optimizer(optimizer, path, stage)
    assert "no such file" in capsys.readouterr().out
    path.write_bytes(b"garbage")
    assert not load_optimizer(optimizer, path, stage)
    assert "damaged" in capsys.readouterr().out
    with h5py.File(path, "w") as file:
        file["variables"] = 3
    assert not load_optimizer(optimizer, path, stage)
    write_file(path, {"conv1": {}})
    assert not load_optimizer(optimizer, path, stage)
    assert "damaged" in capsys.readouterr().out


def test_a_flipped_bit_in_optimizer_state_is_noticed(tmp_path, capsys):
    _, optimizer, stage = trained(1)
    path = tmp_path / "optimizer.h5"
    save_optimizer(optimizer, path, stage)
    before = state(optimizer)
    content = path.read_bytes()
    momentum = next(array for array in before if array.ndim == 2).tobytes()
    assert content.count(momentum) == 1
    path.write_bytes(content.replace(momentum, bytes([momentum[0] ^ 1]) + momentum[1:]))
    assert not load_optimizer(optimizer, path, stage)
    assert "damaged" in capsys.readouterr().out and all(map(np.array_equal, state(optimizer), before))


def test_every_flipped_bit_of_optimizer_state_is_noticed_or_matters_to_no_one(tmp_path, capsys):
    """One bit of every second byte: nothing raises or hangs; what was saved is restored as a whole, or not at all."""
    _, saved, stage = trained(1)
    path = tmp_path / "optimizer.h5"
    save_optimizer(saved, path, stage)
    content, wanted = path.read_bytes(), state_but_rate(saved)
    assert all(value.any() for value in wanted.values())
    _, optimizer, _ = trained(2, steps=0)
    refused = 0
    for place in (None, *range(0, len(content), 2)):
        flipped = bytearray(content)
        if place is not None:
            flipped[place] ^= 1 << place // 2 % 8
        path.write_bytes(flipped)
        for variable in but_rate(optimizer):  # nothing that a load before left
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
        if load_optimizer(optimizer, path, stage):
            assert_same_state(state_but_rate(optimizer), wanted)
            assert not capsys.readouterr().out
        else:
            assert place is not None, "a whole file is restored"
            assert not any(value.any() for value in state_but_rate(optimizer).values())
            says = rf"Optimizer state not restored from {re.escape(str(path))}: it .*; momentum starts at zero\n"
            assert re.fullmatch(says, capsys.readouterr().out, re.DOTALL)
            refused += 1
    assert refused > 300

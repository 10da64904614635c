"""The Keras 2 layout: what is read, what is refused, and that a file is replaced as a whole or not at all."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
import zipfile

import golden_files
import h5py
import numpy as np
import pytest
from weight_files import write_keras2

from mrcnn.data import files
from mrcnn.engine import h5_layout
from mrcnn.engine.h5_layout import is_whole, read_file, write_file

SAVED = {
    "input_image": {},
    "conv1": {"conv1/kernel:0": np.arange(6, dtype="float32").reshape(2, 3), "conv1/bias:0": np.ones(3, "float32")},
    "rpn_model": {"rpn_conv_shared/kernel:0": np.full((2, 2), 7, "float32"),
                  "rpn_class_raw/bias:0": np.zeros(4, "float32")},
    "mrcnn_detection": {},
}


def read(path):
    with read_file(path) as layers:
        return {layer: {name: array[()] for name, array in arrays.items()} for layer, arrays in layers.items()}


def assert_same(found, saved):
    assert list(found) == list(saved)
    for layer, arrays in saved.items():
        assert list(found[layer]) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[layer][name], array)


@pytest.mark.parametrize("names", ["bytes", "str"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("chunks", [1, 3])
def test_reads_every_form_of_the_layout(tmp_path, names, wrapped, chunks):
    path = write_keras2(tmp_path / "w.h5", SAVED, names, wrapped, chunks)
    assert_same(read(path), SAVED)
    assert is_whole(path)


def test_written_file_is_what_keras_2_writes(tmp_path):
    write_file(tmp_path / "w.h5", SAVED)
    assert_same(read(tmp_path / "w.h5"), SAVED)
    with h5py.File(tmp_path / "w.h5") as file:
        assert bytes(file.attrs["backend"]) == b"tensorflow" and bytes(file.attrs["keras_version"]) == b"2.2.4"
        assert file.attrs["layer_names"].dtype.kind == "S" and list(file.attrs["layer_names"])[1] == b"conv1"
        assert list(file["conv1"].attrs["weight_names"]) == [b"conv1/kernel:0", b"conv1/bias:0"]
        assert file["rpn_model/rpn_conv_shared/kernel:0"].dtype == "float32"
        assert len(file["mrcnn_detection"].attrs["weight_names"]) == 0


def test_names_beyond_64_kb_are_written_in_chunks(tmp_path):
    saved = {f"layer_{i:05d}_{'x' * 80}": {} for i in range(2000)} | SAVED
    write_file(tmp_path / "w.h5", saved)
    assert_same(read(tmp_path / "w.h5"), saved)
    with h5py.File(tmp_path / "w.h5") as file:
        parts = [name for name in file.attrs if name.startswith("layer_names")]
        assert "layer_names" not in parts and "layer_names0" in parts
        assert all(file.attrs[name].nbytes <= 64512 for name in parts)
        assert sum(len(file.attrs[name]) for name in parts) == len(saved)


MARK = b"GCOL\x01\0\0\0"  # by which HDF5 knows a heap of texts


@pytest.mark.parametrize("name", ["GCOL", "GCOL1", "GCOL\x01", "x" * 8 + "GCOL\x01", "GCOL\x01GCOL\x01"])
def test_names_that_look_like_a_heap(tmp_path, name):
    """Each text in a heap is filled up with zeros: GCOL\\x01 becomes all that a heap begins with."""
    saved = SAVED | {f"{name}{n}" if n else name: {f"{name}:0": np.ones(2, "float32")} for n in range(2)}
    path = write_keras2(tmp_path / "w.h5", saved, "str")
    assert name.encode() in path.read_bytes()
    assert_same(read(path), saved)
    assert is_whole(path)


@pytest.mark.parametrize("before", [0, 8, 12])
@pytest.mark.parametrize("size", [0, 1, 4096, 2**40, 2**63])
@pytest.mark.parametrize("userblock", [0, 512])
def test_numbers_that_look_like_a_heap(tmp_path, before, size, userblock):
    values = np.frombuffer(bytes(before) + MARK + size.to_bytes(8, "little") + bytes(4000), "uint32")
    saved = SAVED | {"fc": {"fc/kernel:0": values, "fc/bias:0": values}}
    path = write_keras2(tmp_path / "w.h5", saved, "str", userblock=userblock)
    assert path.read_bytes().count(MARK) > 2
    assert_same(read(path), saved)


def test_nothing_keeps_the_search_for_heaps_busy(tmp_path):
    """A file of nothing else than beginnings of heaps, each of which goes on to the end of the file, or to nowhere."""
    for size, count in ((2**40, 2000), (16 + 32 * 100_000, 100_000)):
        values = np.frombuffer((MARK + size.to_bytes(8, "little") + bytes([1, 0] + [0] * 14)) * count, "uint32")
        path = write_keras2(tmp_path / "w.h5", SAVED | {"fc": {"fc/kernel:0": values}}, "str")
        begin = time.monotonic()
        with pytest.raises(ValueError, match=r"w\.h5 is damaged: the attribute layer_names of / lies in a heap"):
            read(path)
        assert time.monotonic() - begin < 30


def test_original_file_survives_reading_and_writing(tmp_path):
    path = golden_files.need("slim_shapes.h5")
    assert is_whole(path)
    write_file(tmp_path / "again.h5", read(path))
    assert_same(read(tmp_path / "again.h5"), read(path))


def test_missing_file_names_a_similar_one(tmp_path):
    write_file(tmp_path / "mask_rcnn_coco.h5", SAVED)
    with pytest.raises(FileNotFoundError, match=r"did you mean mask_rcnn_coco\.h5") as caught:
        read(tmp_path / "mask_rcn_coco.h5")
    assert caught.value.errno == errno.ENOENT and caught.value.filename == str(tmp_path / "mask_rcn_coco.h5")
    with pytest.raises(FileNotFoundError, match="no folder"):
        read(tmp_path / "nowhere" / "w.h5")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    assert not is_whole(tmp_path / "none.h5") and not is_whole(tmp_path)


@pytest.mark.parametrize("start, says", [
    (b"", "empty"), (b"<!DOCTYPE html><html>", "web page"), (b"version https://git-lfs.github.com", "LFS"),
    (b"\x80\x02}q\x00", "pickle"), (b"something else", "not HDF5")])
def test_foreign_files_are_named(tmp_path, start, says):
    path = tmp_path / "w.h5"
    path.write_bytes(start)
    with pytest.raises(ValueError, match=says):
        read(path)
    assert not is_whole(path)


def test_zip_and_keras_3_files_are_named(tmp_path):
    keras = pytest.importorskip("keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"zip archive.*layout of Keras 2"):
        read(tmp_path / "m.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"Keras 3 \.weights\.h5.*Expected the layout of Keras 2"):
        read(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(ValueError, match="it holds images"):
        read(tmp_path / "other.h5")


def test_truncated_file_is_refused_wherever_it_ends(tmp_path):
    write_file(tmp_path / "w.h5", SAVED)
    whole = (tmp_path / "w.h5").read_bytes()
    cut = tmp_path / "cut.h5"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        assert not is_whole(cut), length
        with pytest.raises(ValueError, match=r"empty|not HDF5|cut off"):
            read(cut)


def test_listed_but_missing_arrays_are_noticed(tmp_path):
    for name in ("conv1/conv1/bias:0", "conv1"):
        path = write_keras2(tmp_path / "w.h5", SAVED)
        with h5py.File(path, "a") as file:
            del file[name]
        assert not is_whole(path)
        with pytest.raises(ValueError, match="not whole"):
            read(path)
    path = write_keras2(tmp_path / "never_written.h5", {"conv1": {}})
    with h5py.File(path, "a") as file:
        file["conv1"].attrs["weight_names"] = [b"conv1/bias:0"]
        file["conv1"].create_dataset("conv1/bias:0", (1000,), "float32")
    assert not is_whole(path)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/bias:0"]
        file["conv1/conv1/bias:0"] = h5py.Empty("float32")  # an array that has no shape
    with pytest.raises(ValueError, match="not whole: it lists the array 'conv1/bias:0'"):
        read(path)


def test_array_of_text_is_refused(tmp_path):
    path = write_keras2(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": np.array([b"text"])}})
    with pytest.raises(ValueError, match="not numbers"):
        read(path)


@pytest.mark.parametrize("names", [3, "conv1", [1, 2], [[b"conv1"]], [b"\xff\xfe"], h5py.Empty("S4")])
@pytest.mark.parametrize("group", ["/", "conv1"])
def test_lists_of_names_that_are_none(tmp_path, names, group):
    path = write_keras2(tmp_path / "w.h5", SAVED)
    with h5py.File(path, "a") as file:
        attribute = "layer_names" if group == "/" else "weight_names"
        del file[group].attrs[attribute]
        file[group].attrs[attribute] = names
    with pytest.raises(ValueError, match=r"w\.h5 is damaged: the attribute (layer|weight)_names of /"):
        read(path)
    assert not is_whole(path)


def test_a_list_that_claims_to_be_endless_takes_no_memory(tmp_path):
    """A flipped bit in the length of a list, found by fuzzing: several gigabytes were asked for."""
    path = write_keras2(tmp_path / "w.h5", {f"layer{n}": {} for n in range(251)})
    content = path.read_bytes()
    length, endless = (251).to_bytes(8, "little"), (2**33).to_bytes(8, "little")
    assert content.count(length) > 0
    path.write_bytes(content.replace(length, endless))
    with pytest.raises(ValueError, match=r"w\.h5 is damaged: "):  # HDF5 may notice first
        read(path)


@pytest.mark.parametrize("link", [h5py.SoftLink("/conv1"), h5py.SoftLink("/x"), h5py.ExternalLink("no.h5", "/conv1")])
def test_links_count_as_missing(tmp_path, link):
    path = write_keras2(tmp_path / "w.h5", SAVED)
    with h5py.File(path, "a") as file:
        del file["rpn_model"]
        file["rpn_model"] = link
    with pytest.raises(ValueError, match=r"w\.h5 is not whole: it lists the layer 'rpn_model', which is missing"):
        read(path)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "mask_rcnn_x_0001.h5"
    write_file(path, SAVED)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_file(path, SAVED | {"bad": {"bad/kernel:0": np.array([object()])}})

    def disk_full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5_layout.os, "fsync", disk_full)
    with pytest.raises(OSError, match=r"No room to save mask_rcnn_x_0001\.h5 \(No space left.*needs [\d,]+ bytes"):
        write_file(path, {"other": {}})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileNotFoundError, match="create it first"):
        write_file(tmp_path / "no" / "w.h5", SAVED)


def test_temporary_file_is_no_checkpoint(tmp_path):
    with files.atomic(tmp_path / "mask_rcnn_x_0001.h5") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path and not temporary.name.startswith("mask_rcnn")
        assert not list(tmp_path.glob("mask_rcnn*"))
    assert (tmp_path / "mask_rcnn_x_0001.h5").exists() and not temporary.exists()


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="needs links")
def test_link_stays_a_link(tmp_path):
    write_file(tmp_path / "target.h5", {"a": {}})
    (tmp_path / "link.h5").symlink_to(tmp_path / "target.h5")
    write_file(tmp_path / "link.h5", SAVED)
    assert (tmp_path / "link.h5").is_symlink()
    assert_same(read(tmp_path / "target.h5"), SAVED)


WRITER = """
import sys, itertools, numpy as np
from mrcnn.engine.h5_layout import write_file
for n in itertools.count(1):
    write_file(sys.argv[1], {f"layer{i}": {f"layer{i}/kernel:0": np.full(20000, n, "float32")} for i in range(12)})
    print(n, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "mask_rcnn_x_0001.h5"
    draw = random.Random(0)
    root = os.path.dirname(os.path.dirname(h5_layout.__file__))
    environment = os.environ | {"PYTHONPATH": os.path.dirname(root)}
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env=environment) as process:
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        assert is_whole(path)
        values = [array for arrays in read(path).values() for array in arrays.values()]
        assert len(values) == 12 and len(np.unique(values)) == 1
    assert len(list(tmp_path.iterdir())) <= 2       # what the killed ones left is overwritten, not heaped up


def test_a_number_type_that_nothing_can_hold_is_damage(tmp_path, monkeypatch):
    """h5py raises a ValueError of its own, which does not say of which file."""
    strange = h5py.h5t.IEEE_F32LE.copy()
    strange.set_size(32)
    strange.set_precision(255)
    strange.set_fields(254, 23, 200, 0, 23)
    for place in ("an array", "a list of names"):
        path = write_keras2(tmp_path / "w.h5", SAVED)
        with h5py.File(path, "a") as file:
            space = h5py.h5s.create_simple((1,))
            if place == "an array":
                del file["conv1/conv1/bias:0"]
                at_once = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                at_once.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                h5py.h5d.create(file["conv1/conv1"].id, b"bias:0", strange, space, at_once)
            else:
                del file["conv1"].attrs["weight_names"]
                h5py.h5a.create(file["conv1"].id, b"weight_names", strange, space)
        with pytest.raises(ValueError, match=r"w\.h5 is damaged: "):
            read(path)
        os.replace(path, tmp_path / "a")  # a name that h5py's words hold anyway
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="^a is damaged: .* Fetch or save it again"):
            read("a")

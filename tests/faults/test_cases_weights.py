"""Weights files that are damaged, or of other layouts: they load as what was saved, or not at all."""

import contextlib
import pickle
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import weight_files
from faults import strategies
from faults.cases import Refused, attempt, cases, listing, looked_at
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.engine.h5_layout import read_array, read_file, write_file
from mrcnn.engine.weights import load_weights, save_weights

pytestmark = pytest.mark.slow

FOREIGN = 12345.0  # only in a file that no other file may make us open


@pytest.fixture(scope="module")
def model():
    return weight_files.small_model()


@pytest.fixture(scope="module")
def folder(model):
    """A folder with files as this package and as Keras 2 write them, and one that links try to reach."""
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        for name, array in _variables(model).items():
            array.assign(weight_files.seeded(name, array.shape))
        save_weights(model, made / "ours.h5")
        weight_files.write_keras2(made / "keras2.h5", weight_files.content(model))
        weight_files.write_keras2(made / "wrapped.h5", weight_files.content(model), "str", wrapped=True, chunks=2)
        with h5py.File(made / "secret.h5", "w") as file:
            file["numbers"] = np.full(10**4, FOREIGN, "float32")
        np.full(10**4, FOREIGN, "float32").tofile(made / "secret.bin")
        (made / "w.h5").touch()
        files = listing(made)
        yield made
        assert listing(made) == files


def _variables(model):
    return {f"{layer.name}/{variable.name}": variable for layer in _leaves(model) for variable in layer.weights}


def _leaves(model):
    for layer in model.layers:
        yield from _leaves(layer) if hasattr(layer, "layers") else [layer]


def load(kind, model, path, by_name):
    """The variables after loading, or None if the file was refused, which must leave them as they were."""
    before = {name: np.full(variable.shape, 0.25, "float32") for name, variable in _variables(model).items()}
    for variable, value in zip(_variables(model).values(), before.values(), strict=True):
        variable.assign(value)
    report = attempt(kind, lambda: load_weights(model, path, by_name, verbose=0), path.name)
    found = weight_files.variables(model)
    if isinstance(report, Refused):
        assert weight_files.same(found, before), "a file that was refused has changed the model"
        return None
    assert report.loaded == report.total - len(report.mismatched)
    assert all(np.isfinite(array).all() and not (array == FOREIGN).any() for array in found.values())
    return found


def load_ours(kind, model, path, by_name):
    """As `load`, for a file that this package wrote: its checksums say of all that was saved whether it is whole."""
    found = load(kind, model, path, by_name)
    if found is not None:
        expected = weight_files.expected(weight_files.content(model))
        assert weight_files.same(found, expected), "other numbers than were saved, and nobody noticed"
        looked_at["whole"] += 1


@cases(0.06, whole=0.02)
@given(st.lists(strategies.damages, min_size=1, max_size=4), st.booleans())
def test_our_files_show_any_damage(model, folder, changes, by_name):
    path = folder / "w.h5"
    path.write_bytes(strategies.damaged((folder / "ours.h5").read_bytes(), changes))
    load_ours("weights, damaged", model, path, by_name)


@cases(0.05)
@given(st.sampled_from(("keras2.h5", "wrapped.h5")), st.lists(strategies.damages, min_size=1, max_size=4),
       st.booleans())  # fmt: skip
def test_files_of_keras_2_that_are_damaged(model, folder, name, changes, by_name):
    """These have no checksums: a flipped bit may give another finite number. Everything else shows."""
    path = folder / "w.h5"
    path.write_bytes(strategies.damaged((folder / name).read_bytes(), changes))
    load("weights of Keras 2, damaged", model, path, by_name)


# ---- other layouts: what can be wrong with one object of a file


def _replace(file, path, make):
    """Puts something else in the place of a group or an array."""
    old = file[path]
    attributes = dict(old.attrs)
    values = None
    if isinstance(old, h5py.Dataset) and old.nbytes < 10**9:
        with contextlib.suppress(OSError):  # of what an earlier change made of it
            values = old[()]
    del file[path]
    make(file, path, values)
    if attributes and isinstance(file.get(path, getlink=True), h5py.HardLink):
        for name, value in attributes.items():
            file[path].attrs[name] = value


def _numbers(values):
    """What an array held, or three zeros where something else was."""
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "fiu" else np.zeros(3, "float32")


def _as_type(dtype):
    return lambda file, path, values: file.__setitem__(path, np.zeros(_numbers(values).shape, dtype))


def _unwritten(dtype, shape=(3,), **options):
    return lambda file, path, values: file.create_dataset(path, shape, dtype, **options)


def _virtual(file, path, values):
    shape = _numbers(values).shape
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource("secret.h5", "numbers", shape)
    file.create_virtual_dataset(path, layout)


def _external(file, path, values):
    file.create_dataset(path, _numbers(values).shape, "float32", external=[(
        Path(file.filename).with_name("secret.bin"), 0, h5py.h5f.UNLIMITED)])


def _value(value):
    def make(file, path, values):
        changed = _numbers(values).astype("float32")
        changed.flat[:1] = value
        file[path] = changed

    return make


def _half_written(file, path, values):
    shape = _numbers(values).shape
    file.create_dataset(path, shape, "float32", chunks=(1,) * len(shape), fillvalue=7)
    file[path][(0,) * len(shape)] = 1


def _put(value):
    return lambda file, path, values: file.__setitem__(path, value)


REPLACEMENTS = {
    "nothing": lambda file, path, values: None,
    "group": lambda file, path, values: file.create_group(path),
    "scalar": _put(1.0), "empty": _put(h5py.Empty("float32")),
    "longer": lambda file, path, values: file.__setitem__(path, np.zeros([n + 1 for n in _numbers(values).shape])),
    "endless": _unwritten("float64", (10**9, 10**6), chunks=(1, 100)), "half": _half_written,
    "squeezed": lambda file, path, values: file.create_dataset(path, data=_numbers(values), compression="gzip"),
    "outside": _put(h5py.ExternalLink("secret.h5", "/numbers")), "lost": _put(h5py.SoftLink("/nowhere")),
    "loop": lambda file, path, values: file.__setitem__(path, h5py.SoftLink(path)),
    "device": _put(h5py.ExternalLink("/dev/zero", "/")), "virtual": _virtual, "external": _external,
    "nan": _value(np.nan), "inf": _value(-np.inf),
    "references": _unwritten(h5py.ref_dtype), "texts": _unwritten(h5py.string_dtype()),
} | {dtype: _as_type(dtype) for dtype in ("float16", "float64", ">f4", "int8", "uint64", "bool", "complex64", "S4")}

NAMES = (3, 1.5, "conv1", b"conv1", [], np.zeros((2, 2)), [1, 2], [b"\xff\xfe"], [b""], [b"."], [b".."], [b"/"],
         [b"conv1"] * 3, [b"conv1/"], [b"x" * 3000], h5py.Empty("S4"), [b"model_weights"], np.array([[b"conv1"]]),
         np.array([b"a\0b"]), ["é"])  # fmt: skip

edits = st.one_of(
    st.tuples(st.just("replace"), st.integers(0, 99), st.sampled_from(sorted(REPLACEMENTS))),
    st.tuples(st.just("names"), st.integers(0, 99), st.integers(0, len(NAMES) - 1)),
    st.tuples(st.just("no names"), st.integers(0, 99), st.just(0)),
)


def edit(path, changes):
    """Changes a good file: objects replaced, lists of names replaced or removed."""
    with h5py.File(path, "a") as file:
        for what, place, choice in changes:
            objects, listed = [], [file]
            file.visititems(lambda name, item, found=objects: found.append(name))
            listed += [file[name] for name in objects if isinstance(file[name], h5py.Group)]
            if what == "replace" and objects:
                _replace(file, objects[place % len(objects)], REPLACEMENTS[choice])
                continue
            group = listed[place % len(listed)]
            names = [name for name in group.attrs if "names" in name] or ["layer_names"]
            name = names[place % len(names)]
            group.attrs.pop(name, None)
            if what == "names":
                group.attrs[name] = NAMES[choice]


@cases(0.09, whole=0.01)
@given(st.sampled_from(("ours.h5", "keras2.h5", "wrapped.h5")), st.lists(edits, min_size=1, max_size=3), st.booleans())
def test_files_of_other_layouts(model, folder, name, changes, by_name):
    path = folder / "w.h5"
    path.write_bytes((folder / name).read_bytes())
    edit(path, changes)
    (load_ours if name == "ours.h5" else load)("weights, other layouts", model, path, by_name)


@cases(0.02)
@given(st.sampled_from(("pickle", "zip", "text", "noise", "npy", "head")), st.integers(0, 2**32 - 1))
def test_files_that_are_no_hdf5(model, folder, kind, seed):
    path = folder / "w.h5"
    noise = strategies.random.Random(seed).randbytes(1 + seed % 5000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", noise)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.frombuffer(noise, np.uint8))
    else:
        path.write_bytes({"pickle": pickle.dumps({"conv1": noise}), "text": noise.hex().encode(), "noise": noise,
                          "head": (folder / "ours.h5").read_bytes()[:8 + seed % 60] + noise}[kind])
    assert load("weights, no HDF5", model, path, bool(seed % 2)) is None


def test_every_single_flipped_bit_of_our_files_is_noticed(tmp_path):
    """Not drawn: one bit of each byte of a small file. Bits that matter to no one may stay."""
    arrays = {"conv1": {"conv1/kernel:0": np.arange(6, dtype="float32").reshape(2, 3), "conv1/bias:0": np.ones(3)}}
    write_file(tmp_path / "w.h5", arrays)
    content = (tmp_path / "w.h5").read_bytes()
    refused = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (tmp_path / "w.h5").write_bytes(flipped)
        try:
            with read_file(tmp_path / "w.h5") as layers:
                found = {layer: {name: read_array("w.h5", name, array) for name, array in of_layer.items()}
                         for layer, of_layer in layers.items()}
        except ValueError as error:
            assert "w.h5" in str(error)
            refused += 1
        else:
            assert all(np.array_equal(found[layer][name], array) and found[layer][name].dtype == array.dtype
                       for layer, of_layer in arrays.items() for name, array in of_layer.items())
    assert refused > 300

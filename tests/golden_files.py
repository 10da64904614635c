"""Reads the golden numbers: what the original computed, beside what it was given.

A golden file is an .npz whose member `__index__` is a JSON document. For files of kind "functions" it lists cases:
a function of `mrcnn.utils` or `mrcnn.model`, its arguments, its results and the tolerance of each result.

    @pytest.mark.parametrize("case", golden_files.cases("utils", "norm_boxes"), ids=str)
    def test_golden(case):
        case.check(utils)

`tests/golden/` holds the files that come with the project. The environment variable `MRCNN_GOLDEN` may name a folder
with more; a file of a name that both have is read from `tests/golden/`.
"""

from __future__ import annotations

import functools
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "golden"
_ARRAY_SETTINGS = ("MEAN_PIXEL", "RPN_BBOX_STD_DEV", "BBOX_STD_DEV")


# ------------------------------------------------------------------ files
def find(name):
    """The path of a golden file, or of any file of the further fixtures, or None."""
    extra = os.environ.get("MRCNN_GOLDEN")
    folders = [FOLDER, *([Path(extra), Path(extra) / "trained_slim"] if extra else [])]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def need(name):
    """The path of a golden file; skips the test when this machine does not have it."""
    path = find(name)
    if path is None:
        pytest.skip(f"{name} is not in tests/golden; set MRCNN_GOLDEN to the folder of the further fixtures")
    return path


@functools.cache
def load(name):
    """The golden file `name` (without .npz) as a `Golden`."""
    return Golden(need(f"{name}.npz"))


def cases(name, *functions):
    """The cases of a golden file for these functions (all without any), for `pytest.mark.parametrize`."""
    found = [case for case in load(name).cases if not functions or case.func in functions]
    assert found, f"{name}.npz has no case of {functions}"
    return found


def names():
    """The names of all golden files that can be read here."""
    extra = os.environ.get("MRCNN_GOLDEN")
    paths = [*FOLDER.glob("*.npz"), *(Path(extra).rglob("*.npz") if extra else [])]
    return sorted({path.stem for path in paths})


class Golden:
    """One golden file: `golden["key"]` is an array, `golden.index` the JSON document."""

    def __init__(self, path):
        self.name = Path(path).stem
        self._npz = np.load(path, allow_pickle=False)
        self.index = json.loads(self._npz["__index__"].tobytes())
        self.kind = self.index["kind"]
        self.cases = [Case(self, entry) for entry in self.index.get("cases", [])]

    def __getitem__(self, key):
        return np.array(self._npz[key])

    def __contains__(self, key):
        return key in self._npz.files

    def __repr__(self):
        return f"Golden({self.name})"

    def keys(self):
        return [key for key in self._npz.files if key != "__index__"]

    def settings(self, extra=None):
        """The attributes of the Config of this file, with those of a variant or case laid over them."""
        return decode({**self.index.get("config", {}), **(extra or {})})

    def value(self, reference):
        """A fresh copy of what a case refers to."""
        return self[reference["array"]] if "array" in reference else decode(reference["json"])

    def masks(self, prefix):
        """bool [H, W, N] stored as `<prefix>mask_bits` and `<prefix>mask_shape`."""
        return unpack_masks(self[f"{prefix}mask_bits"], self[f"{prefix}mask_shape"])


def decode(value):
    """A JSON value with its marked tuples and dicts restored."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tuple"}:
        return tuple(decode(v) for v in value["tuple"])
    if set(value) == {"dict"}:
        value = value["dict"]
    return {k: decode(v) for k, v in value.items()}


# ------------------------------------------------------------------ cases
@dataclass
class Case:
    """One call of the original: arguments, results, tolerances."""

    golden: Golden
    entry: dict

    def __str__(self):
        return self.entry["case"]

    @property
    def func(self):
        return self.entry["func"]

    @property
    def tensors(self):
        """Names of the arguments that are tensors; empty for functions of arrays."""
        return self.entry.get("tensors", []) if self.entry.get("graph") else []

    @property
    def settings(self):
        return self.golden.settings(self.entry.get("config"))

    def tol(self, result):
        return self.entry.get("tol", {}).get(result, {})

    def args(self, config=None, dataset=None, fliplr=None):
        """Arguments by name; `config`, `dataset` are classes to build from, `fliplr` a flipping augmenter."""
        made = {"config": config, "dataset": dataset, "fliplr": fliplr}
        return {name: self._resolve(self.golden.value(ref), made) for name, ref in self.entry["args"]}

    def outs(self):
        return {name: self.golden.value(ref) for name, ref in self.entry["outs"]}

    def _resolve(self, value, made):
        if not (isinstance(value, dict) and "special" in value):
            return value
        match value["special"]:
            case "config":
                return make_config(made["config"], self.settings)
            case "dataset":
                return make_dataset(made["dataset"], self.golden, value["name"])
            case "fliplr":
                return made["fliplr"]
            case "arrays":
                return [self.golden[key] for key in value["keys"]]
            case "npscalar":
                return np.array(value["value"], dtype=value["dtype"])[()]
            case other:
                raise ValueError(f"{self}: unknown special value {other!r}")

    def run(self, module, **made):
        """Calls the function or layer of this case in `module`; the results as a list of arrays and plain values."""
        args = self.args(**made)
        if "seed" in self.entry:
            random.seed(self.entry["seed"])
            np.random.seed(self.entry["seed"])
        function = getattr(module, self.func)
        if "layer" in self.entry:
            layer = {k: self._resolve(decode(v), made) for k, v in self.entry["layer"].items()}
            function = function(**layer)
            result = function([t for v in args.values() for t in _flat(_to_tensors(v))])
        elif self.tensors:
            result = function(*[_to_tensors(v) if k in self.tensors else v for k, v in args.items()])
        else:
            result = function(*args.values())
        return self._as_list(_to_arrays(result) if self.entry.get("graph") else result)

    def _as_list(self, result):
        if self.entry.get("returns") == "dict":
            return [result[name] for name in self.outs()]
        if len(self.entry["outs"]) > 1:
            return list(result)
        if self.entry.get("graph") and isinstance(result, list) and len(result) == 1:
            return result
        return [result]

    def canonical(self, values):
        """The results in an order that does not depend on random draws, where the case says that it does."""
        how = self.entry.get("canon")
        if how == "sort_rows":
            return sort_rows(*values)
        if how == "sort_rows_batch":
            images = [sort_rows(*[np.asarray(v)[i] for v in values]) for i in range(len(values[0]))]
            return [np.stack(result) for result in zip(*images, strict=True)]
        return values

    def check(self, module, **made):
        """Asserts that `module` gives the original's results."""
        got, want = self.run(module, **made), self.outs()
        assert len(got) == len(want), f"{self}: {len(got)} results, the original has {len(want)}"
        pairs = zip(want, self.canonical(got), self.canonical(list(want.values())), strict=True)
        for name, g, w in pairs:
            assert_close(g, w, self.tol(name), f"{self}: {name}")


def _flat(value):
    return value if isinstance(value, list) else [value]


def _to_tensors(value):
    from keras import ops

    return [_to_tensors(v) for v in value] if isinstance(value, list) else ops.convert_to_tensor(value)


def _to_arrays(value):
    from keras import ops

    if isinstance(value, dict):
        return {k: _to_arrays(v) for k, v in value.items()}
    return [_to_arrays(v) for v in value] if isinstance(value, list | tuple) else ops.convert_to_numpy(value)


def sort_rows(*arrays):
    """The arrays with their rows in the lexicographic order of the first one's."""
    key = np.round(np.asarray(arrays[0], np.float64), 6)
    order = np.lexsort(key.T[::-1])
    return [np.asarray(array)[order] for array in arrays]


# ------------------------------------------------------------------ comparing
def assert_close(got, want, tol=None, what="value"):
    """Asserts that `got` equals the golden `want` within `tol`.

    Args:
        got, want: arrays, numbers, strings, None, or sequences of those.
        tol: dict with `rtol` and `atol`; `max_bad_frac`, the share of elements that may miss them; `max_err`, which no
            element may exceed. Left out: 1e-5 for floats in arrays, 1e-6 for plain numbers, equality for the rest.
        what: named in the message.
    """
    tol = tol or {}
    if want is None or isinstance(want, str):
        assert got == want, f"{what}: {got!r}, the original has {want!r}"
    elif isinstance(want, list | tuple):
        assert len(got) == len(want), f"{what}: {got!r}, the original has {want!r}"
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            assert_close(g, w, tol, f"{what}[{i}]")
    elif isinstance(want, np.ndarray):
        _assert_arrays_close(np.asarray(got), want, tol, what)
    else:
        np.testing.assert_allclose(float(got), float(want), tol.get("rtol", 1e-6), tol.get("atol", 1e-9), err_msg=what)


def _assert_arrays_close(got, want, tol, what):
    assert got.shape == want.shape, f"{what}: shape {got.shape}, the original has {want.shape}"
    if want.size == 0:
        return
    default = 1e-5 if want.dtype.kind == "f" else 0.0
    rtol, atol = tol.get("rtol", default), tol.get("atol", default)
    g, w = got.astype(np.float64), want.astype(np.float64)
    bad = ~np.isclose(g, w, rtol=rtol, atol=atol, equal_nan=True)
    with np.errstate(invalid="ignore"):
        worst = np.max(np.abs(g - w)[bad], initial=0.0)
    fits = bad.mean() <= tol.get("max_bad_frac", 0.0) and worst <= tol.get("max_err", np.inf)
    assert fits, f"{what}: {bad.sum()} of {bad.size} elements are off, the worst by {worst:g}"


# ------------------------------------------------------------------ building
def pack_masks(masks):
    """bool [H, W, N] -> (uint8 bits, shape), as the golden files store masks."""
    masks = np.asarray(masks, bool)
    return np.packbits(masks.transpose(2, 0, 1)), np.array(masks.shape, np.int32)


def unpack_masks(bits, shape):
    """The inverse of `pack_masks`: bool [H, W, N]."""
    h, w, n = map(int, shape)
    return np.unpackbits(bits, count=h * w * n).astype(bool).reshape(n, h, w).transpose(1, 2, 0)


def make_config(config_class, settings):
    """An instance of a subclass of `config_class` with these settings."""
    attributes = {k: np.array(v) if k in _ARRAY_SETTINGS else v for k, v in settings.items()}
    return type("GoldenConfig", (config_class,), attributes)()


def make_dataset(dataset_class, golden, name):
    """A prepared data set with the images and masks that `golden` stores under `name`."""
    spec = golden.index["datasets"][name]

    class GoldenDataset(dataset_class):
        def load_image(self, image_id):
            return golden[spec["images"][image_id]["image"]]

        def load_mask(self, image_id):
            entry = spec["images"][image_id]
            masks = unpack_masks(golden[entry["mask_bits"]], golden[entry["mask_shape"]])
            return masks, golden[entry["class_ids"]].astype(np.int32)

        def image_reference(self, image_id):
            return str(self.image_info[image_id]["id"])

    dataset = GoldenDataset()
    for source, class_id, class_name in spec["classes"]:
        dataset.add_class(source, class_id, class_name)
    for entry in spec["images"]:
        dataset.add_image(entry["source"], image_id=entry["id"], path=None)
    dataset.prepare()
    return dataset

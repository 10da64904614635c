"""Loading and saving the weights of a model, with an account of every array."""

import difflib
import json
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import h5py
import keras
import numpy as np

from mrcnn.engine.checkpoints import find_last, load_optimizer, parse_checkpoint, run_name, save_optimizer
from mrcnn.engine.h5_layout import is_whole, read_array, read_file, write_file
from mrcnn.engine.imagenet import applications_name, imagenet_weights

__all__ = ["HEADS", "LoadReport", "find_last", "imagenet_weights", "is_whole", "load_optimizer", "load_weights",
           "parse_checkpoint", "read_file", "save_optimizer", "save_weights", "speak_layout", "why_new_run"]

# The layers whose shapes follow the number of classes (mrcnn_bbox has no weights, but the original's users name it).
HEADS = ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]

# The order in which the original's Keras saves what stands above the backbone: loading by order relies on it.
_PYRAMID = ["fpn_c5p5", "fpn_c4p4", "fpn_c3p3", "fpn_c2p2", "fpn_p5", "fpn_p2", "fpn_p3", "fpn_p4", "rpn_model",
            "rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"]
_INFERENCE_ORDER = [
    *_PYRAMID, "mrcnn_class_conv1", "mrcnn_class_bn1", "mrcnn_class_conv2", "mrcnn_class_bn2", "mrcnn_class_logits",
    "mrcnn_bbox_fc", "mrcnn_mask_conv1", "mrcnn_mask_bn1", "mrcnn_mask_conv2", "mrcnn_mask_bn2", "mrcnn_mask_conv3",
    "mrcnn_mask_bn3", "mrcnn_mask_conv4", "mrcnn_mask_bn4", "mrcnn_mask_deconv", "mrcnn_mask"]
_TRAINING_ORDER = [
    *_PYRAMID, "mrcnn_mask_conv1", "mrcnn_mask_bn1", "mrcnn_mask_conv2", "mrcnn_mask_bn2", "mrcnn_class_conv1",
    "mrcnn_class_bn1", "mrcnn_mask_conv3", "mrcnn_mask_bn3", "mrcnn_class_conv2", "mrcnn_class_bn2", "mrcnn_mask_conv4",
    "mrcnn_mask_bn4", "mrcnn_bbox_fc", "mrcnn_mask_deconv", "mrcnn_class_logits", "mrcnn_mask"]
_TOP = re.compile(r"(fpn|rpn|mrcnn)_")
_RESNET = re.compile(r"(res|bn)\d[a-z]_branch\d[a-c]?")


@dataclass
class LoadReport:
    """What `load_weights` did: every variable of the model is counted in `loaded`, or named in a list.

    Attributes:
        path: the file.
        loaded: number of arrays assigned.
        total: number of arrays of the model, but for those of excluded layers.
        excluded: names of layers left alone because the caller said so.
        mismatched: `layer/weight` of arrays left alone because their shapes differ (`skip_mismatch`).
        missing: names of the model's layers that a backbone file says nothing about.
        unused: names of the file's layers that the model does not have.
        backbone_only: True if the file holds a backbone and nothing above it.
    """

    path: str
    loaded: int = 0
    total: int = 0
    excluded: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    backbone_only: bool = False

    def __str__(self) -> str:
        parts = [f"loaded {self.loaded} of {self.total} arrays"]
        if self.excluded:
            parts.append(f"{_count(self.excluded, 'layer')} excluded")
        if self.mismatched:
            parts.append(f"{_count(self.mismatched, 'array')} skipped for their shape ({_first(self.mismatched)})")
        if self.missing:
            parts.append(f"backbone file: {_count(self.missing, 'layer')} above keep their values")
        if self.unused:
            parts.append(f"{_count(self.unused, 'layer')} of the file unused ({_first(self.unused)})")
        return "; ".join(parts)


@dataclass
class _Slot:
    """One variable of the model, and the array of the file that belongs into it, once that is known."""

    layer: str
    name: str
    variable: keras.Variable
    array: h5py.Dataset | None = None

    def __str__(self) -> str:
        return f"{self.layer}/{self.name}"

    @property
    def fits(self) -> bool:
        return tuple(self.array.shape) == tuple(self.variable.shape)


def check_path(path: str | os.PathLike, name: str, may_be_empty: bool = False) -> None:
    """Raises a ValueError, which calls the argument by its name, for what is no path at all."""
    if not isinstance(path, (str, os.PathLike)) or (path == "" and not may_be_empty):
        raise ValueError(f"{name} must be a path, a text or a pathlib.Path; received {path!r}")


def save_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves all weights in the layout and order of the original, which can load the file.

    The file is replaced as a whole: a failure, or the end of the process, leaves the old one untouched.

    Args:
        model: a model whose variables exist.
        path: of the file, in a folder that exists.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the file cannot be written.
    """
    write_file(path, {group: {f"{slot}:0": _to_numpy(slot.variable) for slot in slots}
                      for group, slots in _groups(model).items()})


def load_weights(model: keras.Model, path: str | os.PathLike, by_name: bool = False,
                 exclude: str | Iterable[str] | None = None, skip_mismatch: bool = False,
                 backbone_names: Iterable[str] | None = None, verbose: int = 1) -> LoadReport:
    """Loads a weights file of the original, of this package or of an ImageNet backbone.

    Every variable is assigned exactly once, or its layer is excluded, or there is an error; all checks come before the
    first assignment, so that an error leaves the model as it was. By name, a file that holds nothing but a backbone
    fills the backbone.

    Args:
        model: a model whose variables exist.
        path: of an HDF5 file in the layout of Keras 2.
        by_name: match layers by name; else by order, unless the names of all layers with weights are the same anyway.
        exclude: layers to leave alone, those inside nested models too; "heads" for the four that depend on the number
            of classes. Implies `by_name`.
        skip_mismatch: leave arrays of another shape alone and report them, instead of an error.
        backbone_names: layers that a backbone file has to fill; those not called fpn_*, rpn_* or mrcnn_* by default.
        verbose: 0 prints nothing.

    Returns:
        The report, which is printed too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is foreign or damaged, of another backbone or number of classes, shapes differ, a value is
            not finite, a part of the model would not be loaded, `path` is none, or `exclude` has a misspelt name.
    """
    check_path(path, "path")
    groups = {name: slots for name, slots in _groups(model).items() if slots}
    with read_file(path) as layers:
        layers = {name: arrays for name, arrays in layers.items() if arrays}
        excluded = _resolve_exclude(exclude, [*_layer_names(model), *layers])
        report = LoadReport(str(path), excluded=excluded)
        if by_name or exclude or set(layers) == set(groups):
            report.unused = _match_by_name(groups, layers, excluded)
        else:
            _match_by_order(path, groups, layers)
        wanted = [slot for name, slots in groups.items() if name not in excluded
                  for slot in slots if slot.layer not in excluded]
        report.total = len(wanted)
        report.backbone_only = not any(map(_TOP.match, layers))
        _check_presence(report, wanted, backbone_names)
        fitting = [slot for slot in wanted if slot.array is not None and slot.fits]
        misfits = [slot for slot in wanted if slot.array is not None and not slot.fits]
        report.mismatched = [str(slot) for slot in misfits]
        if misfits and not skip_mismatch:
            raise ValueError(_mismatch_message(path, misfits, excluded))
        # All of them are read before the first is assigned: damage may show as late as that.
        values = [read_array(path, str(slot), slot.array) for slot in fitting]
        for slot, value in zip(fitting, values, strict=True):
            slot.variable.assign(value)
        report.loaded = len(fitting)
    if verbose:
        print(f"{os.path.basename(path)}: {report}")
    return report


def why_new_run(path: str | os.PathLike, name: str, report: LoadReport) -> str | None:
    """Says why a checkpoint that was loaded does not continue its run.

    Args:
        path: of the file.
        name: the configuration's NAME.
        report: of `load_weights`.

    Returns:
        The reason; None if the run goes on, or if the file is no checkpoint of a run.
    """
    run = run_name(path)
    if run is None:
        return None
    if run != name.lower():
        return f"{path} is a checkpoint of another task ({run!r}, not {name.lower()!r})"
    if report.excluded or report.mismatched:
        return f"layers of {path} were left out ({_first([*report.excluded, *report.mismatched], 4)})"
    return None


def speak_layout(model: keras.Model) -> keras.Model:
    """Lets a model's own `save_weights("x.h5")` and `load_weights("x.h5")` use the original's layout.

    Keras 3 knows only its own format, whose names end in `.weights.h5`; those stay with Keras.

    Returns:
        The model.
    """
    keras_save, keras_load = model.save_weights, model.load_weights

    def save(filepath, overwrite=True, **kwargs):
        check_path(filepath, "filepath")
        if os.fspath(filepath).endswith(".weights.h5"):
            return keras_save(filepath, overwrite=overwrite, **kwargs)
        if kwargs:
            raise TypeError(f"save_weights: unknown arguments {', '.join(kwargs)}; a name that does not end in "
                            ".weights.h5 takes filepath and overwrite only")
        if overwrite not in (True, False):
            raise ValueError(f"overwrite must be True or False; received {overwrite!r}")
        if not overwrite and os.path.exists(filepath):
            raise ValueError(f"{os.fspath(filepath)} exists already, and overwrite is False: take another name, or "
                             "overwrite=True")
        return save_weights(model, filepath)

    def load(filepath, by_name=False, exclude=None, skip_mismatch=False, **kwargs):
        check_path(filepath, "filepath")
        if os.fspath(filepath).endswith(".weights.h5"):
            return keras_load(filepath, skip_mismatch=skip_mismatch, **kwargs)
        return load_weights(model, filepath, by_name, exclude, skip_mismatch, **kwargs)

    model.save_weights, model.load_weights = save, load
    return model


def _groups(model: keras.Model) -> dict[str, list[_Slot]]:
    """The model's variables by layer, a nested model as one, in the original's order."""
    order = _TRAINING_ORDER if "rpn_class_loss" in _layer_names(model) else _INFERENCE_ORDER
    return {layer.name: _slots(layer, order) for layer in _ordered(model.layers, order)}


def _ordered(layers: list, order: list[str]) -> list:
    """Brings the layers with weights into order; those without weights keep their places among them."""
    ranks = {name: rank for rank, name in enumerate(order)}

    def rank(layer):
        if layer.name in ranks:
            return ranks[layer.name]
        # A head of more layers than the original's (mrcnn_mask_deconv2) continues the one that it is named after.
        return ranks.get(layer.name.rstrip("0123456789"), len(ranks)) if _TOP.match(layer.name) else -1

    weighted = iter(sorted((layer for layer in layers if layer.weights), key=rank))
    return [next(weighted) if layer.weights else layer for layer in layers]


def _slots(layer: keras.Layer, order: list[str]) -> list[_Slot]:
    # `weights` holds neither the state of random generators nor of metrics, in the order kernel, bias or
    # gamma, beta, moving_mean, moving_variance, whatever is frozen.
    if isinstance(layer, keras.Model):
        inner = [slot for part in _ordered(layer.layers, order) for slot in _slots(part, order)]
        if len(inner) == len(layer.weights):
            return inner
    return [_Slot(layer.name, variable.path.rpartition(f"{layer.name}/")[2], variable) for variable in layer.weights]


def _layer_names(model: keras.Model) -> list[str]:
    return [name for layer in model.layers
            for name in [layer.name, *(_layer_names(layer) if isinstance(layer, keras.Model) else [])]]


def _to_numpy(variable: keras.Variable) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.kind in "fiu" else array.astype("float32")      # HDF5 has no bfloat16


def _resolve_exclude(exclude: str | Iterable[str] | None, known: list[str]) -> list[str]:
    names = [exclude] if isinstance(exclude, str) else exclude or []
    names = list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f'exclude must be a list of layer names or "heads"; received {exclude!r}')
    if "heads" in names and "heads" not in known:
        names = [name for name in names if name != "heads"] + [head for head in HEADS if head in known]
    for name in names:
        if name in known:
            continue
        message = f"exclude: neither the model nor the file has a layer {name!r}"
        close = difflib.get_close_matches(name, ["heads", *known], n=1, cutoff=0.8)
        if isinstance(exclude, str):
            raise ValueError(f'{message}; it must be a list of layer names or "heads"')
        if close:
            raise ValueError(f"{message}. Did you mean {close[0]!r}?")
        warnings.warn(f"{message}; it is ignored.", stacklevel=3)
    return [name for name in dict.fromkeys(names) if name in known]


def _match_by_name(groups: dict, layers: dict, excluded: list[str]) -> list[str]:
    """Gives each variable its array; returns the file's layers that the model does not have."""
    unused = []
    for name, arrays in layers.items():
        mapped = name if name in groups else applications_name(name)
        if mapped in groups:
            _match_group(groups[mapped], arrays)
        elif name not in excluded:
            unused.append(name)
    return unused


def _match_by_order(path: str | os.PathLike, groups: dict, layers: dict) -> None:
    problem = None
    if len(groups) != len(layers):
        problem = f"it has {len(layers)} layers with weights, the model has {len(groups)}"
    for (group, slots), (name, arrays) in zip(groups.items(), layers.items(), strict=False):
        _match_group(slots, arrays)
        misfit = next((slot for slot in slots if slot.array is None or not slot.fits), None)
        if misfit:
            found = "missing" if misfit.array is None else misfit.array.shape
            problem = (f"the model's layer {group!r} meets the file's {name!r}, where {misfit} is {found} instead of "
                       f"{tuple(misfit.variable.shape)}")
            break
    if problem:
        raise ValueError(f"{path} does not fit by order: {problem}. Load with by_name=True.")


def _match_group(slots: list[_Slot], arrays: dict[str, h5py.Dataset]) -> None:
    """Matches the arrays of one group by name, or by order where an old Keras gave them other names."""
    leaves = {slot.layer for slot in slots}
    named = {_key(name, leaves): array for name, array in arrays.items()}
    if len(slots) == len(arrays) and set(named) != {(slot.layer, slot.name) for slot in slots}:
        found = list(arrays.values())
    else:
        found = [named.get((slot.layer, slot.name)) for slot in slots]
    for slot, array in zip(slots, found, strict=True):
        slot.array = array


def _key(weight: str, leaves: set[str]) -> tuple[str, str] | None:
    """`rpn_model/rpn_class_raw_1/kernel:0` -> (rpn_class_raw, kernel): a second model in one session got numbers."""
    parts = weight.rsplit(":", 1)[0].split("/")
    if len(leaves) == 1:
        return next(iter(leaves)), "/".join(parts[1:])
    for depth, part in enumerate(parts[:-1]):
        leaf = part if part in leaves else re.sub(r"_\d+$", "", part)
        if leaf in leaves:
            return leaf, "/".join(parts[depth + 1 :])
    return None


def _check_presence(report: LoadReport, wanted: list[_Slot], backbone_names: Iterable[str] | None) -> None:
    """Raises if a part of the model would stay as it is without being asked to, or the file's backbone is another."""
    path, resnet = report.path, [slot.layer for slot in wanted if _RESNET.match(slot.layer)]
    foreign = [name for name in report.unused if resnet and _RESNET.match(applications_name(name))]
    if foreign:
        raise ValueError(f"{path} holds a larger backbone than the model has (layers {_first(foreign)} are too many): "
                         "set BACKBONE in the config to that of the file ('resnet101'?), or take a file for this one.")
    absent = [slot for slot in wanted if slot.array is None]
    if report.backbone_only:
        names = set(backbone_names) if backbone_names else {s.layer for s in wanted if not _TOP.match(s.layer)}
        report.missing = list(dict.fromkeys(slot.layer for slot in absent if slot.layer not in names))
        absent = [slot for slot in absent if slot.layer in names]
    if not absent:
        return
    layers = list(dict.fromkeys(slot.layer for slot in absent))
    remedy = f"Take a file of this architecture, or name them to keep their values: exclude={layers[:10]}"
    if len(layers) > 10:
        remedy += f" and {len(layers) - 10} more"
    if all(slot.array is None for slot in wanted):
        remedy = "No layer of the file has a name that the model knows: it is of another architecture"
    elif 0 < len(set(layers) & set(resnet)) < len(set(resnet)):
        remedy = "The file seems to be of a smaller backbone: check BACKBONE ('resnet50'?). " + remedy
    raise ValueError(f"{path} lacks {len(absent)} of {len(wanted)} arrays of the model: "
                     f"{_first([f'{slot} {tuple(slot.variable.shape)}' for slot in absent])}. {remedy}.")


def _mismatch_message(path: str | os.PathLike, misfits: list[_Slot], excluded: list[str]) -> str:
    """Says what differs; if that is the number of classes only, how to load the rest."""
    counts = {_class_counts(slot) for slot in misfits}
    if len(counts) == 1 and None not in counts:
        theirs, ours = counts.pop()
        names = json.dumps(list(dict.fromkeys([*excluded, *HEADS])))
        return (f"{path} is for {theirs} classes, the model has {ours} (NUM_CLASSES, background included). Set "
                f"NUM_CLASSES to {theirs}, or leave out the layers that depend on it:\n"
                f"    load_weights({str(path)!r}, by_name=True, exclude={names})")
    listed = [f"{slot}: file {tuple(slot.array.shape)}, model {tuple(slot.variable.shape)}" for slot in misfits]
    lines = [f"{path}: {_count(misfits, 'array')} of another shape than the model's:", *listed[:10]]
    return ("\n    ".join(lines) + ("\n    ..." if len(listed) > 10 else "")
            + "\nUse the configuration that the file was made with, exclude these layers, or pass skip_mismatch=True "
            "to keep the model's values there.")


def _class_counts(slot: _Slot) -> tuple[int, int] | None:
    """Classes of the file and of the model, if these are all that keeps an array from fitting."""
    theirs, ours = tuple(slot.array.shape), tuple(slot.variable.shape)
    if slot.layer not in HEADS or len(theirs) != len(ours) or theirs[:-1] != ours[:-1]:
        return None
    per_class = 4 if slot.layer == "mrcnn_bbox_fc" else 1
    return theirs[-1] // per_class, ours[-1] // per_class


def _count(items: list, noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"


def _first(names: list[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")

"""Loading and saving: every variable is assigned once or accounted for, and errors leave the model alone."""

import json
import os
import shutil

import golden_files
import h5py
import keras
import numpy as np
import pytest
from keras import layers
from weight_files import content, expected, same, small_model, variables, write_keras2

from mrcnn.config import Config
from mrcnn.engine import weights
from mrcnn.engine.weights import HEADS, load_weights, save_weights, speak_layout
from mrcnn.network.assemble import build_model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def file(tmp_path, model):
    return write_keras2(tmp_path / "w.h5", content(model))


def without(saved, *prefixes):
    return {name: arrays for name, arrays in saved.items() if not name.startswith(prefixes)}


def assert_untouched(model, call, **expected_error):
    before = variables(model)
    with pytest.raises(ValueError, **expected_error) as caught:
        call()
    assert same(variables(model), before)
    return str(caught.value)


# ------------------------------------------------------------------ loading
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("form", [{}, {"names": "str"}, {"wrapped": True}, {"chunks": 3}])
def test_loads_every_array_bit_equal(tmp_path, capsys, by_name, form):
    model = small_model()
    saved = content(model)
    report = load_weights(model, write_keras2(tmp_path / "w.h5", saved, **form), by_name=by_name)
    assert same(variables(model), expected(saved))
    assert report.loaded == report.total == len(model.weights) == len(expected(saved))
    assert not (report.excluded or report.mismatched or report.missing or report.unused or report.backbone_only)
    assert f"loaded {report.total} of {report.total} arrays" in capsys.readouterr().out


def test_layers_frozen_inside_the_nested_model_are_filled_rightly(tmp_path):
    model = small_model()
    saved = content(model)
    model.get_layer("rpn_model").get_layer("rpn_conv_shared").trainable = False
    model.get_layer("bn_conv1").trainable = False
    load_weights(model, write_keras2(tmp_path / "w.h5", saved), by_name=True)
    assert same(variables(model), expected(saved))
    save_weights(model, tmp_path / "again.h5")
    with h5py.File(tmp_path / "again.h5") as file:
        assert [name.decode() for name in file["rpn_model"].attrs["weight_names"]] == [
            f"{layer}/{weight}:0" for layer in ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
            for weight in ("kernel", "bias")]


def test_nested_arrays_saved_with_frozen_ones_last(tmp_path, model):
    saved = content(model)
    names = sorted(saved["rpn_model"], key=lambda name: "shared" in name)
    saved["rpn_model"] = {name: saved["rpn_model"][name] for name in names}
    load_weights(model, write_keras2(tmp_path / "w.h5", saved), by_name=True)
    assert same(variables(model), expected(saved))


def test_numbered_names_of_a_second_model_in_one_session(tmp_path, model):
    saved = content(model)
    numbered = {layer: {name.replace("/", "_1/", 1): array for name, array in arrays.items()}
                for layer, arrays in saved.items()}
    load_weights(model, write_keras2(tmp_path / "w.h5", numbered), by_name=True)
    assert same(variables(model), expected(saved))


def test_by_order_matches_files_of_other_names(tmp_path):
    model = small_model()
    saved = content(model)
    save_weights(model, tmp_path / "order.h5")
    with weights.read_file(tmp_path / "order.h5") as found:
        order = list(found)
    renamed = {f"other_{name}": {f"x/{i}:0": array for i, array in enumerate(saved[name].values())} for name in order}
    load_weights(model, write_keras2(tmp_path / "w.h5", renamed))
    assert same(variables(model), expected(saved))


def test_by_order_with_equal_names_does_not_hang_on_order(tmp_path, model):
    saved = content(model)
    load_weights(model, write_keras2(tmp_path / "w.h5", dict(reversed(saved.items()))))
    assert same(variables(model), expected(saved))


def test_by_order_names_the_first_misfit(tmp_path, model):
    renamed = {f"x_{name}": arrays for name, arrays in content(model).items() if arrays}
    del renamed["x_conv1"]
    path = write_keras2(tmp_path / "w.h5", renamed)
    assert_untouched(model, lambda: load_weights(model, path),
                     match=r"'conv1' meets the file's 'x_bn_conv1'.*by_name=True")
    renamed = {f"x_{name}": arrays for name, arrays in content(model).items() if arrays} | {"x": {"x:0": np.zeros(3)}}
    path = write_keras2(tmp_path / "longer.h5", renamed)
    assert_untouched(model, lambda: load_weights(model, path), match="does not fit by order")


# ------------------------------------------------------------------ exclude, classes, shapes
def test_exclude_leaves_layers_alone(file, model, capsys):
    before = variables(model)
    report = load_weights(model, file, exclude=HEADS)
    after, want = variables(model), expected(content(model))
    heads = tuple(f"{name}/" for name in HEADS)
    assert same(after, {key: before[key] if key.startswith(heads) else want[key] for key in after})
    assert report.excluded == HEADS and report.loaded == report.total == len(after) - 6
    assert f"loaded {report.total} of {report.total} arrays; 4 layers excluded" in capsys.readouterr().out
    assert load_weights(model, file, exclude="heads", verbose=0) == report
    assert capsys.readouterr().out == ""


def test_exclude_reaches_into_the_nested_model(file):
    model = small_model()
    before = variables(model)
    load_weights(model, file, by_name=True, exclude=["rpn_class_raw"])
    after, want = variables(model), expected(content(model))
    assert same(after, {key: before[key] if key.startswith("rpn_class_raw/") else want[key] for key in after})
    whole = load_weights(model, file, exclude="rpn_model")
    assert whole.total == len(after) - 6


@pytest.mark.parametrize("exclude", [5, [5], b"heads", ["mrcnn_mask", None]])
def test_exclude_holds_names(file, model, exclude):
    message = f'exclude must be a list of layer names or "heads"; received {exclude!r}'
    assert assert_untouched(model, lambda: load_weights(model, file, exclude=exclude)) == message


def test_exclude_names_are_checked(file, model):
    assert_untouched(model, lambda: load_weights(model, file, exclude=["mrcnn_class_logit"]),
                     match="Did you mean 'mrcnn_class_logits'")
    with pytest.warns(UserWarning, match="'decoder'"):
        assert load_weights(model, file, exclude=["decoder"]).excluded == []


def test_other_class_count_prints_the_call_that_helps(tmp_path, file):
    model = small_model(classes=7)
    path = write_keras2(tmp_path / "seven.h5", content(small_model(classes=81)))
    text = assert_untouched(model, lambda: load_weights(model, path, by_name=True), match="81 classes, the model has 7")
    call = text[text.index("load_weights("):]
    report = eval(call, {"load_weights": lambda *args, **kwargs: load_weights(model, *args, **kwargs)})
    assert report.excluded == HEADS and report.loaded == report.total


def test_skip_mismatch_reports_what_it_leaves(tmp_path, model):
    path = write_keras2(tmp_path / "w.h5", content(small_model(classes=9)))
    before = variables(model)
    report = load_weights(model, path, by_name=True, skip_mismatch=True)
    assert sorted(report.mismatched) == sorted(f"{name}/{part}" for name in HEADS if name != "mrcnn_bbox"
                                               for part in ("kernel", "bias"))
    assert report.loaded == report.total - 6 and "6 arrays skipped" in str(report)
    assert same({k: v for k, v in variables(model).items() if k in report.mismatched},
                {k: v for k, v in before.items() if k in report.mismatched})


def test_other_shapes_are_listed_with_both(tmp_path, model):
    path = write_keras2(tmp_path / "w.h5", content(small_model(width=5)))
    text = assert_untouched(model, lambda: load_weights(model, path, by_name=True), match="of another shape")
    assert "conv1/kernel: file (3, 3, 3, 5), model (3, 3, 3, 4)" in text
    assert text.count(": file (") == 10 and "..." in text


def test_wider_head_is_not_taken_for_another_class_count(tmp_path, model):
    saved = content(model)
    saved["mrcnn_class_logits"]["mrcnn_class_logits/kernel:0"] = np.zeros((9, 4), "float32")
    path = write_keras2(tmp_path / "w.h5", saved)
    text = assert_untouched(model, lambda: load_weights(model, path, by_name=True), match="another shape")
    assert "classes" not in text


# ------------------------------------------------------------------ parts that are missing
def test_partly_unloaded_model_is_an_error(tmp_path, model):
    path = write_keras2(tmp_path / "w.h5", without(content(model), "fpn_p5", "mrcnn_mask_bn1"))
    text = assert_untouched(model, lambda: load_weights(model, path, by_name=True), match="lacks 6 of")
    assert "fpn_p5/kernel (3, 3, 4, 4)" in text and "exclude=['fpn_p5', 'mrcnn_mask_bn1']" in text
    report = load_weights(model, path, by_name=True, exclude=["fpn_p5", "mrcnn_mask_bn1"])
    assert report.loaded == len(variables(model)) - 6


def test_layer_without_its_bias_is_an_error(tmp_path, model):
    saved = content(model)
    del saved["conv1"]["conv1/bias:0"]
    path = write_keras2(tmp_path / "w.h5", saved)
    assert_untouched(model, lambda: load_weights(model, path, by_name=True), match=r"lacks 1 of .* conv1/bias \(4,\)")


def test_file_of_another_network_is_an_error(tmp_path, model):
    path = write_keras2(tmp_path / "w.h5", {"dense": {"dense/kernel:0": np.zeros((2, 2), "float32")}})
    assert_untouched(model, lambda: load_weights(model, path, by_name=True), match="another architecture")


def test_backbones_of_other_depths_are_named(tmp_path):
    small, large = small_model(blocks="a"), small_model(blocks="ab")
    path = write_keras2(tmp_path / "large.h5", content(large))
    assert_untouched(small, lambda: load_weights(small, path, by_name=True), match="larger backbone.*res2b.*BACKBONE")
    path = write_keras2(tmp_path / "small.h5", content(small))
    assert_untouched(large, lambda: load_weights(large, path, by_name=True), match="smaller backbone.*BACKBONE")


def imagenet_content(model):
    saved = without(content(model), "fpn", "rpn", "mrcnn")
    return saved | {"fc1000": {"fc1000/kernel:0": np.zeros((2, 2), "float32")}}


def test_backbone_file_fills_the_backbone(tmp_path, capsys):
    model = small_model()
    saved = imagenet_content(model)
    before = variables(model)
    report = load_weights(model, write_keras2(tmp_path / "w.h5", saved), by_name=True)
    want = expected(saved)
    assert same(variables(model), {key: want.get(key, value) for key, value in before.items()})
    assert report.backbone_only and report.loaded == len(want) - 1 and report.unused == ["fc1000"]
    assert {"fpn_c5p5", "rpn_conv_shared", "mrcnn_mask"} <= set(report.missing)
    assert "backbone file" in capsys.readouterr().out
    with pytest.raises(ValueError, match="by order"):
        load_weights(model, tmp_path / "w.h5")


def test_backbone_file_must_be_whole_and_is_of_the_named_layers(tmp_path):
    model = small_model()
    path = write_keras2(tmp_path / "w.h5", without(imagenet_content(model), "bn_conv1"))
    assert_untouched(model, lambda: load_weights(model, path, by_name=True), match="bn_conv1/gamma")
    report = load_weights(model, path, by_name=True, backbone_names=["conv1"])
    assert "bn_conv1" in report.missing


def test_keras_applications_names(tmp_path):
    model = small_model(blocks="ab")
    theirs = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "res2a_branch2a": "conv2_block1_1_conv",
              "bn2a_branch2a": "conv2_block1_1_bn", "res2b_branch2a": "conv2_block2_1_conv",
              "bn2b_branch2a": "conv2_block2_1_bn"}
    saved = without(content(model), "fpn", "rpn", "mrcnn")
    renamed = {theirs[layer]: {name.replace(layer, theirs[layer]): array for name, array in arrays.items()}
               for layer, arrays in saved.items() if arrays}
    report = load_weights(model, write_keras2(tmp_path / "w.h5", renamed), by_name=True)
    want = expected(saved)
    after = variables(model)
    assert report.loaded == len(want) and all(np.array_equal(after[key], want[key]) for key in want)
    shallow = small_model(blocks="a")
    assert_untouched(shallow, lambda: load_weights(shallow, tmp_path / "w.h5", by_name=True),
                     match="conv2_block2_1_conv")


def test_names_of_keras_1_within_a_layer(tmp_path, model):
    old = {"kernel": "W", "bias": "b", "gamma": "gamma", "beta": "beta", "moving_mean": "running_mean",
           "moving_variance": "running_std"}
    saved = imagenet_content(model)
    renamed = {layer: {f"{layer}_{old[name.split('/')[1][:-2]]}_1:0": array for name, array in arrays.items()}
               for layer, arrays in saved.items()}
    load_weights(model, write_keras2(tmp_path / "w.h5", renamed), by_name=True)
    after, want = variables(model), expected(saved)
    assert all(np.array_equal(after[key], want[key]) for key in want if not key.startswith("fc1000"))


# ------------------------------------------------------------------ saving
def test_saved_file_loads_in_a_fresh_model(tmp_path):
    first, second = small_model(mode="training"), small_model()
    save_weights(first, tmp_path / "w.h5")
    report = load_weights(second, tmp_path / "w.h5")
    assert same(variables(first), variables(second)) and report.loaded == len(variables(first))


@pytest.mark.parametrize("mode, heads", [
    ("inference", ["mrcnn_class_conv1", "mrcnn_class_bn1", "mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask_conv1",
                   "mrcnn_mask_bn1", "mrcnn_mask_deconv", "mrcnn_mask"]),
    ("training", ["mrcnn_mask_conv1", "mrcnn_mask_bn1", "mrcnn_class_conv1", "mrcnn_class_bn1", "mrcnn_bbox_fc",
                  "mrcnn_mask_deconv", "mrcnn_class_logits", "mrcnn_mask"])])
def test_saved_in_the_order_of_the_original(tmp_path, mode, heads):
    save_weights(small_model(mode=mode), tmp_path / "w.h5")
    with weights.read_file(tmp_path / "w.h5") as layers:
        assert [name for name, arrays in layers.items() if arrays] == [
            "conv1", "bn_conv1", "res2a_branch2a", "bn2a_branch2a", "fpn_c5p5", "fpn_p5", "fpn_p2", "rpn_model", *heads]
        assert list(layers["bn_conv1"]) == [f"bn_conv1/{name}:0" for name in ("gamma", "beta", "moving_mean",
                                                                              "moving_variance")]
        assert {"input_image", "pool_squeeze", "mrcnn_bbox"} <= set(layers)
        assert not any("seed" in name for arrays in layers.values() for name in arrays)


def test_further_head_layers_follow_the_one_that_they_continue(tmp_path):
    image = keras.Input((2, 2, 1))
    x = layers.Conv2DTranspose(1, 2, name="mrcnn_mask_deconv")(image)
    x = layers.Conv2DTranspose(1, 2, name="mrcnn_mask_deconv2")(x)
    save_weights(keras.Model(image, layers.Conv2D(1, 1, name="mrcnn_mask")(x)), tmp_path / "w.h5")
    with weights.read_file(tmp_path / "w.h5") as found:
        assert [name for name in found if found[name]] == ["mrcnn_mask_deconv", "mrcnn_mask_deconv2", "mrcnn_mask"]


def test_composite_layers_keep_their_inner_names(tmp_path):
    def attention():
        x = keras.Input((4, 8))
        y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
        return keras.Model(x, layers.SeparableConv1D(3, 2, name="separable")(y))

    first, second = attention(), attention()
    save_weights(first, tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert "attention/attention/query/kernel:0" in file and "separable/separable/depthwise_kernel:0" in file
    assert load_weights(second, tmp_path / "w.h5", by_name=True).loaded == len(first.weights)
    for left, right in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(left), keras.ops.convert_to_numpy(right))


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch, model):
    save_weights(model, tmp_path / "mask_rcnn_x_0001.h5")
    before = (tmp_path / "mask_rcnn_x_0001.h5").read_bytes()

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(model, tmp_path / "mask_rcnn_x_0001.h5")
    assert (tmp_path / "mask_rcnn_x_0001.h5").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_missing_and_truncated_files_leave_the_model_alone(tmp_path, file, model):
    before = variables(model)
    with pytest.raises(FileNotFoundError, match="No such weights file"):
        load_weights(model, tmp_path / "missing.h5")
    with pytest.raises(ValueError, match="path must be a path.*received None"):
        load_weights(model, None)
    shutil.copy(file, tmp_path / "cut.h5")
    os.truncate(tmp_path / "cut.h5", os.path.getsize(file) // 2)
    assert_untouched(model, lambda: load_weights(model, tmp_path / "cut.h5"), match="cut off")
    assert same(variables(model), before)


def test_order_table_agrees_with_a_file_of_the_original():
    with weights.read_file(golden_files.need("slim_shapes.h5")) as layers:
        heads = [name for name, arrays in layers.items() if arrays and not name.startswith("slim")]
    assert heads == [name for name in weights._TRAINING_ORDER if name in heads]
    assert set(heads) == set(weights._TRAINING_ORDER) - {"rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"}


class SmallImages(Config):
    NAME, BACKBONE, NUM_CLASSES, IMAGES_PER_GPU = "golden", "resnet50", 81, 1
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 128


def test_network_has_the_layers_arrays_and_order_of_the_original(golden_dir):
    manifest = json.loads((golden_dir / "manifest_resnet50.json").read_text())
    groups = weights._groups(build_model("inference", SmallImages()))
    found = [(group, [(f"{slot}:0", list(slot.variable.shape)) for slot in slots])
             for group, slots in groups.items() if slots]
    assert found == [(layer["layer"], [(weight["name"], weight["shape"]) for weight in layer["weights"]])
                     for layer in manifest["layers"] if layer["weights"]]


def test_training_network_has_the_order_of_the_original(golden_dir):
    variants = json.loads((golden_dir / "training_step_r50.json").read_text())["variants"]
    tensors = next(variant["tensors"] for variant in variants if variant["name"] == "all")
    groups = weights._groups(build_model("training", SmallImages()))
    assert [str(slot) for slots in groups.values() for slot in slots if not slot.name.startswith("moving")] == tensors


# ------------------------------------------------------------------ Keras' own methods
def test_a_model_speaks_the_layout_by_itself(tmp_path):
    model = speak_layout(small_model())
    before = variables(model)
    model.save_weights(str(tmp_path / "x.h5"))
    assert set(content(model)) <= set(h5py.File(tmp_path / "x.h5").attrs["layer_names"].astype(str))
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    model.load_weights(tmp_path / "x.h5", by_name=True)
    assert same(variables(model), before)


def test_a_file_is_only_overwritten_if_that_is_meant(tmp_path):
    model, path = speak_layout(small_model()), tmp_path / "x.h5"
    model.save_weights(path, overwrite=False)
    before = path.read_bytes()
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    with pytest.raises(ValueError, match=r"x\.h5 exists already, and overwrite is False"):
        model.save_weights(path, overwrite=False)
    with pytest.raises(ValueError, match="overwrite must be True or False; received 'h5'"):
        model.save_weights(path, "h5")
    for method in (model.save_weights, model.load_weights):
        with pytest.raises(ValueError, match="filepath must be a path.*received None"):
            method(None)
    with pytest.raises(TypeError, match="unknown arguments save_format"):
        model.save_weights(path, save_format="h5")
    assert path.read_bytes() == before
    model.save_weights(path, overwrite=True)
    assert path.read_bytes() != before


def test_names_of_keras_own_format_stay_with_keras(tmp_path):
    model = speak_layout(small_model())
    before = variables(model)
    model.save_weights(str(tmp_path / "x.weights.h5"))
    assert "layer_names" not in h5py.File(tmp_path / "x.weights.h5").attrs
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    model.load_weights(str(tmp_path / "x.weights.h5"))
    assert same(variables(model), before)

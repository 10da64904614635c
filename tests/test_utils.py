import inspect
from types import SimpleNamespace

import golden_files
import keras
import numpy as np
import pytest
from keras import ops

import mrcnn.data.dataset
import mrcnn.engine.downloads
import mrcnn.geometry.anchors
import mrcnn.geometry.boxes
import mrcnn.geometry.images
import mrcnn.geometry.masks
import mrcnn.geometry.metrics
from mrcnn import utils


def test_every_golden_function_is_offered():
    for case in golden_files.cases("utils"):
        function = getattr(utils, case.func)
        assert case.func in utils.__all__ and function.__doc__
        assert len(case.args()) <= len(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", utils.__all__)
def test_a_public_name_is_the_one_of_its_room(name):
    rooms = [mrcnn.geometry.anchors, mrcnn.geometry.boxes, mrcnn.geometry.images, mrcnn.geometry.masks,
             mrcnn.geometry.metrics, mrcnn.data.dataset]
    own = {"COCO_MODEL_URL", "batch_slice", "box_refinement_graph", "download_trained_weights", "mold_mask"}
    homes = [room for room in rooms if getattr(room, name, None) is getattr(utils, name)]
    assert homes or name in own


def test_importing_pulls_in_no_framework(run_python):
    code = (
        "import sys, mrcnn.utils; "
        "print(sorted({'keras', 'matplotlib', 'tensorflow', 'jax', 'torch', 'h5py'} & set(sys.modules)))"
    )
    assert run_python(code).strip() == "[]"


# ------------------------------------------------------------------ masks for training
def test_mold_mask_follows_the_config():
    mask = np.zeros((40, 50, 1), np.uint8)
    mask[5:25, 10:30] = 1
    config = SimpleNamespace(USE_MINI_MASK=True, MINI_MASK_SHAPE=(14, 28))
    mini = utils.mold_mask(mask, config)
    assert mini.shape == (14, 28, 1) and mini.all()
    config.USE_MINI_MASK = False
    np.testing.assert_array_equal(utils.mold_mask(mask, config), mask.astype(bool))


# ------------------------------------------------------------------ tensors
@pytest.mark.parametrize("case", golden_files.cases("model_functions", "box_refinement_graph"), ids=str)
def test_golden_tensors(case):
    case.check(utils)


def test_refinement_of_tensors_equals_that_of_arrays():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 0.5, (2, 7, 2)).astype(np.float32)
    box, gt_box = np.concatenate([corners, corners + rng.uniform(0.1, 0.5, (2, 7, 2))], axis=-1).astype(np.float32)
    deltas = utils.box_refinement_graph(ops.convert_to_tensor(box), ops.convert_to_tensor(gt_box))
    np.testing.assert_allclose(ops.convert_to_numpy(deltas), utils.box_refinement(box, gt_box), rtol=1e-5, atol=1e-6)


def test_batch_slice_stacks_what_the_function_gives():
    a = ops.convert_to_tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    b = ops.convert_to_tensor(np.array([1, 2, 3], np.float32))
    product = utils.batch_slice([a, b], lambda x, y: x * y, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(product), ops.convert_to_numpy(a) * [[1], [2], [3]])
    total, first = utils.batch_slice([a, b], lambda x, y: (x + y, x[:2]), 3, names=["total", "first"])
    assert tuple(total.shape) == (3, 4) and tuple(first.shape) == (3, 2)
    assert tuple(utils.batch_slice(a, lambda x: x * 2, 2).shape) == (2, 4)
    with pytest.raises(ValueError, match="batch_size"):
        utils.batch_slice(a, lambda x: x, 0)


def test_batch_slice_works_in_a_model():
    class PerImage(keras.layers.Layer):
        def call(self, x):
            return utils.batch_slice(x, lambda image: ops.sum(image, axis=0), 2)

    inputs = keras.Input(batch_shape=(2, 3, 4))
    model = keras.Model(inputs, PerImage()(inputs))
    batch = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(model.predict(batch, verbose=0), batch.sum(axis=1))


# ------------------------------------------------------------------ download
@pytest.fixture
def downloads(monkeypatch):
    """Records what would be downloaded."""
    calls = []
    monkeypatch.setattr(mrcnn.engine.downloads, "download", lambda url, path, **rest: calls.append((url, path, rest)))
    monkeypatch.delenv("MRCNN_COCO_URL", raising=False)
    return calls


def test_the_address_of_the_weights_can_be_overridden(downloads, monkeypatch):
    utils.download_trained_weights("w.h5", verbose=0)
    monkeypatch.setenv("MRCNN_COCO_URL", "http://mirror/coco.h5")
    utils.download_trained_weights("w.h5", verbose=0)
    utils.download_trained_weights("w.h5", verbose=0, url="http://here/coco.h5")
    assert [url for url, *_ in downloads] == [utils.COCO_MODEL_URL, "http://mirror/coco.h5", "http://here/coco.h5"]


def test_what_arrives_must_be_a_whole_weights_file(downloads, tmp_path, capsys):
    utils.download_trained_weights(str(tmp_path / "w.h5"))
    (_, path, rest), = downloads
    assert path == str(tmp_path / "w.h5") and rest["verbose"] == 1
    assert utils.COCO_MODEL_URL in capsys.readouterr().out
    (tmp_path / "page.html").write_text("<html>")
    assert not rest["check"](str(tmp_path / "page.html"))


def test_a_file_from_disk_arrives_through_the_real_download(tmp_path):
    h5py = pytest.importorskip("h5py")
    source = tmp_path / "source.h5"
    with h5py.File(source, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [b"conv1/bias:0"]
        group.create_dataset("conv1/bias:0", data=np.zeros(4, np.float32))
    target = tmp_path / "target.h5"
    utils.download_trained_weights(str(target), verbose=0, url=source.as_uri())
    assert target.read_bytes() == source.read_bytes()
    (tmp_path / "cut.h5").write_bytes(source.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a file of the expected kind"):
        utils.download_trained_weights(str(tmp_path / "other.h5"), verbose=0, url=(tmp_path / "cut.h5").as_uri())
    assert not (tmp_path / "other.h5").exists()

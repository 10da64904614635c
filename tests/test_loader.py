"""Images with their ground truth, and the arrays that batches are made of."""

import random

import numpy as np
import pytest
from golden_files import assert_close, cases, load, make_config, make_dataset
from tiny import Squares, config

from mrcnn.config import Config
from mrcnn.data import loader
from mrcnn.data.checks import ClassMismatch
from mrcnn.data.dataset import Dataset


class Fliplr:
    """What the golden cases call a flip: mirrors every image and its masks."""

    def __call__(self, image, masks):
        return image[:, ::-1], masks[:, ::-1]


class Given(Dataset):
    """Images and masks as handed in."""

    def __init__(self, images, masks, class_ids, sources=("given",)):
        super().__init__()
        self.images, self.masks, self.mask_ids = images, masks, class_ids
        for class_id in (1, 2, 3):
            self.add_class("given", class_id, f"class {class_id}")
        for i in range(len(images)):
            self.add_image(sources[i % len(sources)], image_id=f"no{i}", path=f"/x/{i}.png")
        self.prepare()

    def load_image(self, image_id):
        return self.images[image_id]

    def load_mask(self, image_id):
        return self.masks[image_id], self.mask_ids[image_id]


def block(*boxes, size=64):
    masks = np.zeros((size, size, len(boxes)), bool)
    for i, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, i] = True
    return masks


def one(image=None, masks=None, class_ids=(1,), **settings):
    """A data set of one image of 64 pixels with one object, and a config; `load_image_gt` of it."""
    image = np.zeros((64, 64, 3), np.uint8) if image is None else image
    masks = block((8, 8, 32, 40)) if masks is None else masks
    return loader.load_image_gt(Given([image], [masks], [class_ids]), config(**settings), 0)


# ------------------------------------------------------------------ golden numbers
@pytest.mark.parametrize("case", cases("model_functions", "load_image_gt"), ids=str)
def test_golden(case):
    case.check(loader, config=Config, dataset=Dataset, fliplr=Fliplr())
    got = case.run(loader, config=Config, dataset=Dataset, fliplr=Fliplr())
    assert [g.dtype for g in got] == [w.dtype for w in case.outs().values()]


def golden_batch():
    golden = load("training_step_r50")
    settings = golden.settings()
    dataset = make_dataset(Dataset, golden, "train")
    return make_config(Config, settings), dataset, [golden[f"batch/{i}"] for i in range(golden.index["n_inputs"])]


def assert_golden(inputs, want):
    assert len(inputs) == len(want)
    for i, (g, w) in enumerate(zip(inputs, want, strict=True)):
        assert_close(g, w, {"atol": 1e-4, "max_bad_frac": 2e-3 if i == 6 else 0}, f"input {i}")


def test_golden_generator():
    settings, dataset, want = golden_batch()
    inputs, outputs = next(loader.data_generator(dataset, settings, shuffle=False, batch_size=2))
    assert isinstance(inputs, list) and outputs == []
    assert_golden(inputs, want)
    assert [g.dtype for g in inputs] == [w.dtype for w in want]


def test_golden_data_generator_class():
    settings, dataset, want = golden_batch()
    generator = loader.DataGenerator(dataset, settings, shuffle=False)
    (inputs,) = generator[0]
    assert isinstance(inputs, tuple)
    assert_golden(inputs, want)
    assert inputs[1].dtype == np.float64  # also where no image was scaled
    assert len(generator.anchors) == want[2].shape[1]
    np.testing.assert_array_equal(generator.backbone_shapes, [[32, 32], [16, 16], [8, 8], [4, 4], [2, 2]])


# ------------------------------------------------------------------ load_image_gt
@pytest.mark.parametrize(
    ("image", "want"),
    [
        (np.full((64, 64), 200, np.uint8), 200),
        (np.full((64, 64, 1), 200, np.uint8), 200),
        (np.full((64, 64, 4), 200, np.uint8), 200),
        (np.full((64, 64, 3), 200 * 257, np.uint16), 200),
        (np.full((64, 64, 3), 0.8), 204),
        (np.full((64, 64, 3), 200.5, np.float32), 200.5),
    ],
)
def test_all_kinds_of_images(image, want):
    loaded, meta, *_ = one(image)
    assert loaded.shape == (64, 64, 3) and (loaded == want).all()
    assert meta[1:4].tolist() == [64, 64, 3]


def test_an_image_that_cannot_be_used():
    with pytest.raises(ValueError, match=r"image 'no0' of source 'given' \(/x/0.png\).*must lie within"):
        one(np.full((64, 64, 3), -1))
    with pytest.raises(ValueError, match="no0.*5 channels"):
        one(np.zeros((64, 64, 5), np.uint8))


def test_masks_must_fit():
    with pytest.raises(ValueError, match=r"no0.*\(/x/0.png\): load_mask must return masks of the image's height"):
        one(masks=block((1, 1, 9, 9), size=32))
    with pytest.raises(ClassMismatch, match="no0.*class id 4"):
        one(class_ids=[4])
    with pytest.raises(ValueError, match=r"no0.*\(masks, class_ids\); it returned NoneType"):
        broken = Given([np.zeros((64, 64, 3), np.uint8)], [None], [None])
        broken.load_mask = lambda image_id: None
        loader.load_image_gt(broken, config(), 0)


@pytest.mark.parametrize("use_mini_mask", [False, True])
def test_no_objects(use_mini_mask):
    dataset = Given([np.zeros((50, 60, 3), np.uint8)], [np.empty((0, 0, 0))], [np.empty(0, np.int32)])
    image, _, class_ids, bbox, mask = loader.load_image_gt(dataset, config(), 0, use_mini_mask=use_mini_mask)
    assert image.shape == (64, 64, 3) and class_ids.shape == (0,) and bbox.shape == (0, 4)
    assert mask.shape == ((16, 16, 0) if use_mini_mask else (64, 64, 0)) and mask.dtype == bool


def test_objects_without_a_pixel_are_dropped():
    large = np.zeros((640, 640, 2), bool)
    large[100:300, 100:300, 0] = True
    large[333, 337, 1] = True
    with pytest.warns(UserWarning, match=r"no0.*: 1 objects are smaller than a pixel"):
        _, _, class_ids, bbox, mask = one(np.zeros((640, 640, 3), np.uint8), large, (2, 1))
    assert class_ids.tolist() == [2] and mask.shape == (64, 64, 1)
    assert (abs(bbox - [[10, 10, 30, 30]]) <= 1).all()


def test_objects_outside_a_crop_are_dropped_silently():
    masks = block((0, 0, 128, 128), (0, 0, 1, 1), (127, 127, 128, 128), size=128)
    _, meta, class_ids, *_ = one(np.zeros((128, 128, 3), np.uint8), masks, (1, 2, 3), IMAGE_RESIZE_MODE="crop")
    assert 1 in class_ids and len(class_ids) < 3
    assert meta[4:7].tolist() == [64, 64, 3]


def test_augmentation_names_the_image():
    dataset = Given([np.zeros((64, 64, 3), np.uint8)], [block((8, 8, 32, 40))], [[1]])
    with pytest.raises(ValueError, match=r"/x/0.png.*shrink changed the image"):
        loader.load_image_gt(dataset, config(), 0, augmentation=shrink)


def shrink(image, masks):
    return image[::2], masks[::2]


def test_augment_is_deprecated_and_mirrors_every_second_image():
    dataset = Given([np.zeros((64, 64, 3), np.uint8)], [block((8, 8, 32, 40))], [[1]])
    boxes = []
    for seed in range(20):
        with pytest.warns(FutureWarning, match="use augmentation="):
            loaded = loader.load_image_gt(dataset, config(), 0, augment=True, rng=random.Random(seed))
        boxes.append(tuple(loaded[3][0].tolist()))
    assert set(boxes) == {(8, 8, 32, 40), (8, 24, 32, 56)} and 4 < boxes.count((8, 8, 32, 40)) < 16


def test_a_source_without_classes():
    dataset = Given([np.zeros((64, 64, 3), np.uint8)], [block((8, 8, 32, 40))], [[1]], sources=["other"])
    with pytest.raises(ClassMismatch, match=r"no class belongs to source 'other'.*add_class\('other'"):
        loader.load_image_gt(dataset, config(), 0)


def test_active_classes_are_those_of_the_source():
    dataset = Given([np.zeros((64, 64, 3), np.uint8)] * 2, [block((8, 8, 32, 40))] * 2, [[1]] * 2, ["given", "second"])
    dataset.add_class("second", 1, "another")
    dataset.prepare()
    metas = [loader.load_image_gt(dataset, config(NUM_CLASSES=5), i)[1] for i in (0, 1)]
    assert [meta[12:].tolist() for meta in metas] == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 1]]


def test_not_prepared():
    dataset = Given([], [], [])
    dataset.add_image("given", "x", None)
    with pytest.raises(ValueError, match=r"call prepare\(\)"):
        loader.load_image_gt(dataset, config(), 0)


# ------------------------------------------------------------------ what batches are made of
def test_check_dataset():
    loader.check_dataset(Squares(1), config())
    with pytest.raises(ValueError, match="the validation data set has no images"):
        loader.check_dataset(Squares(0), config(), "the validation data set")
    with pytest.raises(ClassMismatch, match="NUM_CLASSES is 9"):
        loader.check_dataset(Squares(1), config(NUM_CLASSES=9))


@pytest.mark.parametrize("make", [loader.DataGenerator, loader.TrainingStream, loader.ValidationData,
                                  loader.data_generator])
def test_all_check_the_data_set_when_they_are_made(make):
    with pytest.raises(ValueError, match="no images"):
        make(Squares(0), config())
    with pytest.raises(ClassMismatch):
        make(Squares(1), config(NUM_CLASSES=9))


def test_arrays():
    """CONVENTIONS of old: shapes, dtypes, and zeros at the end."""
    (inputs,) = loader.DataGenerator(Squares(2), config(), shuffle=False)[0]
    assert [(a.shape, a.dtype.name) for a in inputs] == [
        ((2, 64, 64, 3), "float32"), ((2, 16), "float64"), ((2, 1023, 1), "int32"), ((2, 32, 4), "float64"),
        ((2, 4), "int32"), ((2, 4, 4), "int32"), ((2, 16, 16, 4), "bool"),
    ]
    dataset = Squares(2)
    for i in (0, 1):
        _, meta, class_ids, bbox, mask = loader.load_image_gt(dataset, config(), i, use_mini_mask=True)
        image = dataset.load_image(i) - config().MEAN_PIXEL
        for got, want in zip(inputs, [image, meta, None, None, class_ids, bbox, mask], strict=True):
            if want is not None:
                np.testing.assert_allclose(got[i][..., :2] if want is mask else got[i][:len(want)], want, rtol=1e-6)
        assert not inputs[4][i, 2:].any() and not inputs[5][i, 2:].any() and not inputs[6][i, ..., 2:].any()


def test_full_size_masks():
    (inputs,) = loader.DataGenerator(Squares(2), config(USE_MINI_MASK=False), shuffle=False)[0]
    assert inputs[6].shape == (2, 64, 64, 4) and inputs[6].dtype == bool


def test_random_rois():
    (inputs,) = loader.DataGenerator(Squares(2), config(), random_rois=10)[0]
    assert len(inputs) == 8 and inputs[7].shape == (2, 10, 4) and inputs[7].dtype == np.int32


@pytest.mark.parametrize("use_mini_mask", [False, True])
def test_detection_targets(use_mini_mask):
    settings = config(USE_MINI_MASK=use_mini_mask)
    generator = loader.DataGenerator(Squares(2), settings, random_rois=60, detection_targets=True)
    inputs, outputs = generator[0]
    listed = next(loader.data_generator(Squares(2), settings, random_rois=60, batch_size=2, detection_targets=True))
    for got_inputs, got_outputs in ((inputs, outputs), listed):
        assert [a.shape for a in got_inputs[7:]] == [(2, 60, 4), (2, 8, 4)]
        assert [a.shape for a in got_outputs] == [(2, 8, 1), (2, 8, 4, 4), (2, 8, 28, 28, 4)]
        assert [a.dtype.name for a in got_outputs] == ["int32", "float32", "float32"]
    assert isinstance(inputs, tuple) and isinstance(outputs, tuple)
    assert isinstance(listed[0], list) and isinstance(listed[1], list)


def test_detection_targets_need_rois():
    with pytest.raises(ValueError, match="random_rois"):
        loader.DataGenerator(Squares(2), config(), detection_targets=True)


def test_more_objects_than_fit():
    """A random subset for the heads; the RPN learns from all."""
    masks = block(*[(8 * i, 8 * i, 8 * i + 8, 8 * i + 8) for i in range(8)])
    dataset = Given([np.zeros((64, 64, 3), np.uint8)], [masks], [[1, 2, 3, 1, 2, 3, 1, 2]])
    stream = loader.TrainingStream(dataset, config(IMAGES_PER_GPU=1, MAX_GT_INSTANCES=3))
    chosen = []
    for k in range(6):
        (inputs,) = stream.batch(k)
        assert inputs[4].shape == (1, 3) and inputs[4].all()
        chosen.append(tuple(sorted(inputs[5][0, :, 0] // 8)))
        assert len(set(chosen[-1])) == 3
        class_ids = [[1, 2, 3, 1, 2, 3, 1, 2][row // 8] for row in inputs[5][0, :, 0]]
        assert inputs[4][0].tolist() == class_ids
        positive = stream.anchors[inputs[2][0, :, 0] == 1]
        assert len({round(y) // 8 for y in positive.mean(axis=1)}) > 3
    assert len(set(chosen)) > 1


def test_sources_without_augmentation():
    images = [np.full((64, 64, 3), 100, np.uint8)] * 2
    dataset = Given(images, [block((8, 8, 32, 40))] * 2, [[1]] * 2, ["given", "plain"])
    dataset.add_class("plain", 1, "p")
    dataset.prepare()

    def brighten(image, masks):
        return image + np.uint8(50), masks

    for sources in (["plain"], "plain"):
        generator = loader.DataGenerator(dataset, config(NUM_CLASSES=5, MEAN_PIXEL=np.zeros(3)), shuffle=False,
                                         augmentation=brighten, no_augmentation_sources=sources)
        assert generator[0][0][0].mean(axis=(1, 2, 3)).tolist() == [150, 100]


def test_impossible_augmentation_shows_at_once():
    with pytest.raises(ValueError, match="augmentation must be"):
        loader.DataGenerator(Squares(2), config(), augmentation="flip")


def test_images_of_another_shape():
    """In the modes without a fixed shape the images must come in the shape that the network is trained on."""
    dataset = Given([np.zeros((64, 128, 3), np.uint8)], [np.ones((64, 128, 1), bool)], [[1]])
    generator = loader.DataGenerator(dataset, config(IMAGE_RESIZE_MODE="none"))
    with pytest.raises(ValueError, match=r"/x/0.png.*\(64, 128, 3\) after resizing.*trained on \(64, 64, 3\)"):
        generator.check_first_batch()


def test_compute_backbone_shapes():
    plain = type("Plain", (Config,), {"NUM_CLASSES": 2})()
    assert loader.compute_backbone_shapes(plain, (100, 64, 3)).tolist() == [[25, 16], [13, 8], [7, 4], [4, 2], [2, 1]]
    assert loader.compute_backbone_shapes(config(), (64, 64, 3)).tolist() == [[16, 16], [8, 8], [4, 4], [2, 2], [1, 1]]


def test_config_anchors():
    settings = config(RPN_ANCHOR_STRIDE=2)
    anchors = loader.config_anchors(settings, (64, 128, 3))
    assert anchors.shape == (3 * sum(h * w for h, w in [(8, 16), (4, 8), (2, 4), (1, 2), (1, 1)]), 4)
    generator = loader.DataGenerator(Squares(2), settings)
    np.testing.assert_array_equal(generator.anchors, loader.config_anchors(settings, (64, 64, 3)))


# ------------------------------------------------------------------ the generator of old
def test_generator_goes_round_and_skips_images_without_objects():
    images = [np.zeros((64, 64, 3), np.uint8)] * 4
    masks = [block((8, 8, 32, 40)), np.empty((0, 0, 0)), block((8, 8, 32, 40)), block((8, 8, 32, 40))]
    generator = loader.data_generator(Given(images, masks, [[1], [], [-1], [2]]), config(), shuffle=False, batch_size=1)
    assert [int(next(generator)[0][1][0, 0]) for _ in range(5)] == [0, 3, 0, 3, 0]


def test_generator_of_nothing():
    generator = loader.data_generator(Given([np.zeros((64, 64, 3), np.uint8)], [np.empty((0, 0, 0))], [[]]), config())
    with pytest.raises(ValueError, match="none of the 1 images .* no image has objects"):
        next(generator)


def test_generator_shuffles():
    def ids(shuffle):
        generator = loader.data_generator(Squares(5), config(), shuffle=shuffle)
        return [int(next(generator)[0][1][0, 0]) for _ in range(10)]

    assert ids(False) == [*range(5)] * 2
    assert sorted(ids(True)[:5]) == [*range(5)] and ids(True)[:5] != ids(True)[5:]
    assert ids(True) == ids(True)  # the config has a seed


def test_generator_with_augment():
    with pytest.warns(FutureWarning, match="deprecated") as caught:
        generator = loader.data_generator(Squares(1), config(), augment=True)
        boxes = {tuple(next(generator)[0][5][0, 0].tolist()) for _ in range(12)}
    assert len(boxes) == 2 and len(caught) == 1

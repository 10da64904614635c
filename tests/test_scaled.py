"""Images and masks are read and scaled once where nothing can change, and anew each time everywhere else."""

import copy
import os
import pickle
import random

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import config

from mrcnn.data import dataset as dataset_module
from mrcnn.data import loader
from mrcnn.data.dataset import Dataset
from mrcnn.data.kept import MEMORY
from mrcnn.geometry import images, masks
from mrcnn.geometry.boxed import BoxedMasks


@pytest.fixture(autouse=True)
def nothing_kept():
    MEMORY.forget()
    yield
    MEMORY.forget()


class Photos(Dataset):
    """Files with one drawn object each; counts what is asked of it."""

    def __init__(self, folder, count=3, size=(50, 70)):
        super().__init__()
        self.masks_asked = self.boxed_asked = 0
        self.add_class("photos", 1, "thing")
        for number in range(count):
            path = os.path.join(folder, f"{number}.png")
            pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(path)
            self.add_image("photos", number, path, size=size)
        self.prepare()

    def load_mask(self, image_id):
        self.masks_asked += 1
        plane = np.zeros((*self.image_info[image_id]["size"], 1), bool)
        plane[10:30, 5 + image_id:40] = True
        return plane, np.ones(1, np.int32)


class FixedPhotos(Photos):
    masks_are_fixed = True

    def load_mask(self, image_id):
        return super().load_mask(image_id)


class BoxedPhotos(Photos):
    def load_mask(self, image_id):
        raise AssertionError("load_boxed_masks was to be asked")

    def load_boxed_masks(self, image_id):
        self.boxed_asked += 1
        full, class_ids = Photos.load_mask(self, image_id)
        return BoxedMasks.cut(full), class_ids


@pytest.fixture
def reads(monkeypatch):
    """List of the paths that were read."""
    read, paths = dataset_module._read_image, []
    monkeypatch.setattr(dataset_module, "_read_image", lambda path: (paths.append(path), read(path))[1])
    return paths


def load(dataset, image_id=0, **options):
    return loader.load_image_gt(dataset, config(**options), image_id)


def assert_same(got, want):
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
        assert g.dtype == w.dtype


# ------------------------------------------------------------------ images
def test_a_file_is_read_once(tmp_path, reads):
    dataset = Photos(tmp_path)
    first = load(dataset)
    assert_same(load(dataset), first)
    assert len(reads) == 1 and dataset.masks_asked == 2
    load(dataset, 1)
    assert len(reads) == 2
    load(dataset, IMAGE_MIN_DIM=32, IMAGE_MAX_DIM=128)  # another size
    assert len(reads) == 3


def test_a_file_that_changed_is_read_again(tmp_path, reads):
    dataset = Photos(tmp_path)
    before = load(dataset)[0]
    path = dataset.image_info[0]["path"]
    PIL.Image.fromarray(np.full((50, 70, 3), 7, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    after = load(dataset)[0]
    assert len(reads) == 2 and (after != before).any() and after.max() == 7
    dataset.image_info[0]["path"] = dataset.image_info[1]["path"]
    load(dataset)
    assert len(reads) == 3


@pytest.mark.parametrize("mode", ["square", "crop", "none"])
def test_nobody_can_write_into_what_is_kept(tmp_path, mode):
    dataset, options = FixedPhotos(tmp_path), {"IMAGE_RESIZE_MODE": mode, "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64}
    random.seed(3)
    first = load(dataset, **options)
    kept = [array.copy() for array in first]
    for array in first:
        array[...] = 0
    random.seed(3)
    assert_same(load(dataset, **options), kept)


def test_an_own_load_image_is_asked_each_time(tmp_path):
    class Own(Photos):
        def load_image(self, image_id):
            return np.full((50, 70, 3), next(self.shades), np.uint8)

    dataset = Own(tmp_path)
    dataset.shades = iter(range(10, 20))
    assert [load(dataset)[0].max() for _ in range(3)] == [10, 11, 12]

    dataset = Photos(tmp_path)
    load(dataset)
    dataset.load_image = lambda image_id: np.full((50, 70, 3), 99, np.uint8)
    assert load(dataset)[0].max() == 99


def test_data_cache_is_a_limit(tmp_path, reads):
    dataset = FixedPhotos(tmp_path, count=6, size=(600, 600))
    big = {"IMAGE_MIN_DIM": 512, "IMAGE_MAX_DIM": 512, "DATA_CACHE": 2}
    for image_id in [0, 1, 2, 3, 4, 5] * 2:
        load(dataset, image_id, **big)
    assert 0 < MEMORY.used <= 2 * 2**20
    assert len(reads) == 6 + 4  # two of 786 kB fit in
    MEMORY.forget()
    load(dataset, DATA_CACHE=0)
    load(dataset, DATA_CACHE=0)
    assert len(reads) == 12 and MEMORY.used == 0


def test_a_data_set_can_be_copied_and_pickled(tmp_path, reads):
    dataset = FixedPhotos(tmp_path)
    want = load(dataset)
    for twin in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset), copy.deepcopy(dataset)):
        assert_same(load(twin), want)
    assert len(reads) == 4  # each has its own


# ------------------------------------------------------------------ masks
def test_masks_are_kept_where_the_class_says_so(tmp_path):
    dataset = FixedPhotos(tmp_path)
    assert_same(load(dataset), load(dataset))
    assert dataset.masks_asked == 1
    dataset.add_class("photos", 2, "another")  # may number classes anew
    dataset.prepare()
    loader.load_image_gt(dataset, config(), 0)
    assert dataset.masks_asked == 2


def test_a_class_that_overrides_load_mask_speaks_for_itself(tmp_path):
    class Changing(FixedPhotos):
        def load_mask(self, image_id):
            full, class_ids = super().load_mask(image_id)
            return np.roll(full, self.masks_asked, axis=0), class_ids

    dataset = Changing(tmp_path)
    assert [load(dataset)[3][0, 0] for _ in range(3)] == sorted({load(Changing(tmp_path))[3][0, 0] + i
                                                                 for i in range(3)})  # fmt: skip

    dataset = FixedPhotos(tmp_path)
    load(dataset)
    dataset.load_mask = lambda image_id: (np.ones((50, 70, 1), bool), [1])  # set on the object
    assert load(dataset)[3].tolist() == [[9, 0, 55, 64]]


def test_masks_may_be_fixed_for_one_data_set(tmp_path):
    dataset = Photos(tmp_path)
    dataset.masks_are_fixed = True
    assert_same(load(dataset), load(dataset))
    assert dataset.masks_asked == 1


def test_boxed_masks_are_asked_for_by_those_who_have_them(tmp_path):
    dataset = BoxedPhotos(tmp_path)
    assert_same(load(dataset), load(Photos(tmp_path)))
    assert dataset.boxed_asked == 1

    class Changed(BoxedPhotos):
        def load_mask(self, image_id):
            return np.ones((50, 70, 1), bool), np.ones(1, np.int32)

    assert load(Changed(tmp_path))[3].tolist() == [[9, 0, 55, 64]]  # its load_mask has the last word


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ((BoxedMasks(50, 60, [[0, 0, 9, 9]], [np.ones((9, 9), bool)]), [1]), r"'photos' .*50 x 70; received 50 x 60"),
        ((np.ones((50, 70, 1), bool), [1]), "must return BoxedMasks.*received ndarray"),
        ((BoxedMasks(50, 70, [[0, 0, 9, 9]], [np.ones((9, 9), bool)]), [1, 1]), "received 1 masks"),
        (([], [], []), r"load_boxed_masks must return \(masks, class_ids\)"),
        ((BoxedMasks(50, 70, [[0, 0, 9, 9]], [np.ones((9, 9), bool)]), [9]), "class id 9"),
    ],
)
def test_boxed_masks_are_checked(tmp_path, loaded, message):
    dataset = BoxedPhotos(tmp_path)
    dataset.load_boxed_masks = lambda image_id: loaded
    with pytest.raises(ValueError, match=message):
        load(dataset)


# ------------------------------------------------------------------ the same numbers as ever
class Drawn(Dataset):
    def __init__(self, image, stack):
        super().__init__()
        self.image, self.stack = image, stack
        self.add_class("drawn", 1, "thing")
        self.add_image("drawn", 0, None)
        self.prepare()

    def load_image(self, image_id):
        return self.image

    def load_mask(self, image_id):
        return self.stack, np.ones(self.stack.shape[2], np.int32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 3), st.sampled_from(["square", "crop", "pad64", "none"]),
       st.booleans(), st.integers(0, 2**31))  # fmt: skip
def test_ground_truth_is_what_whole_arrays_give(height, width, count, mode, mini, seed):
    drawn = np.random.default_rng(seed)
    image = drawn.integers(0, 255, (height, width, 3), np.uint8)
    stack = np.zeros((height, width, count), bool)
    for i in range(count):
        y, x = drawn.integers(0, height), drawn.integers(0, width)
        stack[y:y + drawn.integers(0, 40), x:x + drawn.integers(0, 40), i] = True
    stack &= drawn.random(stack.shape) < drawn.random()
    setting = config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_SCALE=float(drawn.choice([0, 1.7])))

    whole, window, scale, padding, crop = images.resize_image(image, 64, 64, setting.IMAGE_MIN_SCALE, mode,
                                                              random.Random(seed))  # fmt: skip
    planes = masks.resize_mask(stack, scale, padding, crop)
    boxes = masks.extract_bboxes(planes)
    planes, boxes = planes[..., boxes[:, 2] > 0], boxes[boxes[:, 2] > 0]
    want = masks.minimize_mask(boxes, planes, (16, 16)) if mini else planes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.warnings, "warn", lambda *_, **__: None)
        made = loader.load_image_gt(Drawn(image, stack), setting, 0, use_mini_mask=mini, rng=random.Random(seed))
    assert_same([made[0], made[3], made[4]], [whole, boxes, want])
    assert made[1][7:12].tolist() == [*window, scale] and made[1][1:4].tolist() == [height, width, 3]


def flip(image, planes, rng):
    return (image[:, ::-1], planes[:, ::-1]) if rng.random() < 0.5 else (image, planes)


@pytest.mark.parametrize("options", [{}, {"IMAGE_RESIZE_MODE": "crop"}, {"USE_MINI_MASK": False}])
@pytest.mark.parametrize("augmentation", [None, flip])
def test_batches_are_the_same_with_and_without_a_cache(tmp_path, options, augmentation):
    def batches(kind, size):
        setting = config(DATA_CACHE=size, NUM_CLASSES=2, **options)
        generator = loader.DataGenerator(kind(tmp_path), setting, augmentation=augmentation)
        return [array for k in range(6) for array in generator.batch(k)[0]]

    want = batches(Photos, 0)
    for kind in (Photos, FixedPhotos, BoxedPhotos):
        assert_same(batches(kind, 64), want)

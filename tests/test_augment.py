"""Augmentation of images and masks alike, whatever it comes from."""

import random
import sys
import types
import warnings

import numpy as np
import pytest

from mrcnn.data.augment import MASK_AUGMENTERS, augment, check_augmentation, warn_of_unmoved_masks


@pytest.fixture
def pair():
    """An image, and masks that are its first two channels."""
    image = np.random.default_rng(0).integers(0, 2, (16, 24, 3), np.uint8) * 255
    return image, image[..., :2] > 0


def agree(image, mask):
    return np.array_equal(image[..., :2] > 0, mask)


def mirror(image, masks):
    return image[:, ::-1], masks[:, ::-1]


# ------------------------------------------------------------------ functions
def test_function(pair):
    image, mask = augment(*pair, mirror)
    np.testing.assert_array_equal(image, pair[0][:, ::-1])
    assert mask.dtype == bool and image.dtype == np.uint8 and agree(image, mask)


def test_function_sees_uint8_and_may_work_in_place(pair):
    before = pair[0].copy(), pair[1].copy()

    def blank(image, masks):
        assert image.dtype == masks.dtype == np.uint8 and masks.max() == 1
        image[:], masks[:] = 0, 0
        return image, masks.astype(bool)

    image, mask = augment(*pair, blank)
    assert not image.any() and not mask.any()
    assert np.array_equal(before[0], pair[0]) and np.array_equal(before[1], pair[1])


def test_function_with_rng_follows_the_seed(pair):
    def noise(image, masks, rng):
        return rng.integers(0, 255, image.shape, np.uint8), masks

    first, second, other = (augment(*pair, noise, random.Random(seed))[0] for seed in (5, 5, 6))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda image, masks: (image[:8], masks), r"cat.png: <lambda> changed the image from \(16, 24, 3\) uint8 to"),
        (lambda image, masks: (image / 255, masks), "changed the image .* float64"),
        (lambda image, masks: (image, masks[..., :1]), r"changed the masks from .* to \(16, 24, 1\)"),
        (lambda image, masks: (image, masks * 0.5), "changed the masks .* float64"),
        (lambda image, masks: image, r"must return \(image, masks\)"),
    ],
)
def test_what_an_augmentation_must_not_change(pair, function, message):
    with pytest.raises(ValueError, match=message):
        augment(*pair, function, where="cat.png")


@pytest.mark.parametrize("wrong", ["Fliplr", 0.5, [mirror]])
def test_what_is_no_augmentation(pair, wrong):
    with pytest.raises(ValueError, match="imgaug augmenter, an albumentations transform or a function"):
        augment(*pair, wrong)


def test_none_is_no_error():
    check_augmentation(None)


# ------------------------------------------------------------------ called by keyword
DRAWN = []  # by the copies that are seeded


class Transform:
    """As albumentations' transforms are called."""

    state, called = None, False

    def __call__(self, *args, force_apply=False, **data):
        assert not args and data["image"].dtype == np.uint8
        flipped = {"image": data["image"][:, ::-1]}
        if "masks" in data:
            assert all(plane.dtype == np.uint8 and plane.ndim == 2 for plane in data["masks"])
            flipped["masks"] = [plane[:, ::-1] for plane in data["masks"]]
        self.called = True
        return flipped

    def set_random_state(self, generator, py_random):
        self.state = generator, py_random
        DRAWN.append(py_random.random())


def test_transform(pair):
    image, mask = augment(*pair, Transform())
    np.testing.assert_array_equal(image, pair[0][:, ::-1])
    assert mask.shape == pair[1].shape and agree(image, mask)


def test_transform_is_seeded_in_a_copy(pair):
    transform = Transform()
    DRAWN.clear()
    augment(*pair, transform, random.Random(0))
    augment(*pair, transform, random.Random(0))
    assert transform.state is None and not transform.called
    assert len(DRAWN) == 2 and len(set(DRAWN)) == 1
    augment(*pair, transform)
    assert transform.called and transform.state is None


def test_transform_without_masks(pair):
    image, mask = augment(pair[0], pair[1][..., :0], Transform())
    assert mask.shape == (16, 24, 0) and np.array_equal(image, pair[0][:, ::-1])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda image, masks: {"image": image}, "must return a dict with 'image' and 'masks'"),
        (lambda image, masks: (image, masks), "must return a dict"),
        (lambda image, masks: {"image": image, "masks": masks[:1]}, "changed the masks"),
        (lambda image, masks: {"image": image, "masks": []}, "changed the masks"),
        (lambda image, masks: {"image": image, "masks": [masks[0], masks[1][:3]]}, "changed the masks"),
    ],
)
def test_what_a_transform_must_return(pair, result, message):
    with pytest.raises(ValueError, match=message):
        augment(*pair, lambda **data: result(**data), where="cat.png")


def test_albumentations(pair):
    albumentations = pytest.importorskip("albumentations")
    transform = albumentations.Compose([
        albumentations.HorizontalFlip(p=0.5),
        albumentations.VerticalFlip(p=0.5),
    ])
    results = [augment(*pair, transform, random.Random(seed)) for seed in range(16)]
    assert all(agree(image, mask) and mask.dtype == bool for image, mask in results)
    assert len({image.tobytes() for image, _ in results}) == 4
    again = augment(*pair, transform, random.Random(3))
    assert np.array_equal(again[0], results[3][0])
    image, mask = augment(pair[0], pair[1][..., :0], transform)
    assert mask.shape == (16, 24, 0) and image.shape == pair[0].shape


# ------------------------------------------------------------------ imgaug
def test_stand_in_for_imgaug(pair, monkeypatch):
    """Little of imgaug is asked for, and masks are changed by the name of the augmenter."""

    class Fliplr:
        deterministic = False

        def to_deterministic(self):
            copy = type(self)()
            copy.deterministic = True
            return copy

        def augment_image(self, image, hooks=None):
            assert self.deterministic
            wanted = hooks is None or hooks.activator(None, self, [], True)
            return np.ascontiguousarray(image[:, ::-1]) if wanted else image

        def augment_images(self, images, hooks=None):
            return [self.augment_image(image, hooks) for image in images]

    class Blur(Fliplr):
        pass

    module = types.ModuleType("imgaug")
    module.HooksImages = lambda activator: types.SimpleNamespace(activator=activator)
    monkeypatch.setitem(sys.modules, "imgaug", module)
    image, mask = augment(*pair, Fliplr(), random.Random(1))
    assert agree(image, mask) and np.array_equal(image, pair[0][:, ::-1])
    image, mask = augment(*pair, Blur())
    assert np.array_equal(image, pair[0][:, ::-1]) and np.array_equal(mask, pair[1])


@pytest.fixture(scope="module")
def augmenters():
    return pytest.importorskip("imgaug").augmenters


def test_imgaug(pair, augmenters):
    flips = augmenters.SomeOf((0, 2), [augmenters.Fliplr(0.5), augmenters.Flipud(0.5), augmenters.Multiply(1.0)])
    results = [augment(*pair, flips, random.Random(seed)) for seed in range(16)]
    assert all(agree(image, mask) and mask.dtype == bool for image, mask in results)
    assert len({image.tobytes() for image, _ in results}) > 2
    again = [augment(*pair, flips, random.Random(seed)) for seed in reversed(range(16))][::-1]
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(results, again, strict=True))


def test_imgaug_without_rng_goes_on(pair, augmenters):
    flip = augmenters.Fliplr(0.5, seed=3)
    images = {augment(*pair, flip)[0].tobytes() for _ in range(20)}
    assert len(images) == 2


def test_imgaug_leaves_masks_alone(pair, augmenters):
    image, mask = augment(*pair, augmenters.Sequential([augmenters.Fliplr(1.0), augmenters.Invert(1.0)]))
    assert np.array_equal(image, 255 - pair[0][:, ::-1]) and np.array_equal(mask, pair[1][:, ::-1])


def test_imgaug_takes_many_masks_without_a_warning(augmenters):
    masks = np.zeros((20, 30, 40), bool)
    masks[:, :10] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, turned = augment(np.zeros((20, 30, 3), np.uint8), masks, augmenters.Fliplr(1.0))
    assert np.array_equal(turned, masks[:, ::-1])


def test_imgaug_without_masks(pair, augmenters):
    _, mask = augment(pair[0], pair[1][..., :0], augmenters.Affine(rotate=10))
    assert mask.shape == (16, 24, 0)


def test_imgaug_must_keep_the_size(pair, augmenters):
    with pytest.raises(ValueError, match="cat.png: CropAndPad changed the image"):
        augment(*pair, augmenters.CropAndPad(px=2, keep_size=False), where="cat.png")


def test_the_names_are_those_of_imgaug(augmenters):
    assert all(isinstance(getattr(augmenters, name), type) for name in MASK_AUGMENTERS)


def test_warning_of_masks_that_stay(augmenters):
    with pytest.warns(UserWarning, match="^Rot90 would move images but not their masks"):
        warn_of_unmoved_masks(augmenters.Sequential([augmenters.Fliplr(0.5), augmenters.Sometimes(0.5,
                              augmenters.Rot90(1))]))


def test_no_warning_otherwise(augmenters):
    warn_of_unmoved_masks(augmenters.SomeOf((0, 2), [
        augmenters.Fliplr(0.5), augmenters.OneOf([augmenters.Affine(rotate=90), augmenters.Affine(rotate=180)]),
        augmenters.Multiply((0.8, 1.5)), augmenters.GaussianBlur(sigma=(0.0, 5.0)),
    ]))
    warn_of_unmoved_masks(mirror)

"""Pictures: colours, masks, and what `draw_instances` writes where."""

import random
import time

import numpy as np
import pytest
import skimage.color
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageDraw

from mrcnn.drawing import labels
from mrcnn.visualize import apply_mask, class_colors, draw_instances, instance_colors, random_colors

NAMES = ["BG", "cat", "dog"]
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def result_of(boxes, size, class_ids=None, scores=None, masks=True):
    """A result as `detect` gives it; each mask fills its box but for a frame of 3 pixels."""
    filled = np.zeros((*size, len(boxes)), bool)
    for index, (y1, x1, y2, x2) in enumerate(boxes):
        filled[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3, index] = True
    return {
        "rois": np.array(boxes, np.int32).reshape(-1, 4),
        "class_ids": np.ones(len(boxes), np.int32) if class_ids is None else np.array(class_ids),
        "scores": np.full(len(boxes), 0.9, np.float32) if scores is None else scores,
        "masks": filled if masks else None,
    }


ONE = [(60, 40, 160, 180)]


def draw_one(image=None, class_names=NAMES, colors=(RED,), **changes):
    image = np.full((200, 300, 3), 100, np.uint8) if image is None else image
    result = result_of(ONE, image.shape[:2]) | changes
    return draw_instances(image, {k: v for k, v in result.items() if v is not ...}, class_names, colors)


@pytest.fixture
def written(monkeypatch):
    """[(text, fill, (x1, y1, x2, y2) of the letters)] of all that is written while the test runs."""
    seen, write = [], ImageDraw.ImageDraw.text

    def text(self, at, words, **options):
        box = self.textbbox(at, words, font=options["font"])
        seen.append((words, options["fill"], box))
        return write(self, at, words, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return seen


def test_an_empty_caption_leaves_no_label(written):
    nameless = draw_one(class_names=["", "", ""], scores=None)
    assert not written
    changed = (nameless != 100).any(axis=2)
    assert changed.any() and not changed[:50].any(), "nothing above the box, where the label would be"


# ------------------------------------------------------------------ colours and masks
@pytest.mark.parametrize(("bright", "most"), [(True, 1.0), (False, 0.7)])
def test_random_colors(bright, most):
    colors = random_colors(6, bright)
    assert isinstance(colors, list) and all(isinstance(color, tuple) for color in colors)
    wanted = np.array([(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)]) * most
    np.testing.assert_allclose(sorted(colors), sorted(map(tuple, wanted)), atol=1e-12)
    assert random_colors(0) == []


def test_random_colors_follow_the_generator():
    random.seed(1)
    first = random_colors(20)
    second = random_colors(20)
    random.seed(1)
    assert random_colors(20) == first != second and sorted(first) == sorted(second)


def test_apply_mask_blends_in_place():
    image = np.full((2, 3, 3), 101, np.uint8)
    mask = np.array([[0, 1, 0], [0, 0, 2]])
    assert apply_mask(image, mask, (1.0, 0.5, 0.0)) is image
    changed = image[0, 1].copy()
    image[0, 1] = 101
    assert changed.tolist() == [178, 114, 50] and (image == 101).all()  # fractions are cut off; 2 is not 1
    floats = apply_mask(np.zeros((2, 3, 3), np.float32), mask == 1, (0.2, 0.4, 0.6), alpha=1)
    np.testing.assert_allclose(floats[0, 1], [51, 102, 153], rtol=1e-6)


@pytest.mark.parametrize(("image", "mask"), [((4, 4, 3), (4, 5)), ((4, 4), (4, 4)), ((4, 4, 3), (4, 4, 1))])
def test_apply_mask_refuses_other_shapes(image, mask):
    with pytest.raises(ValueError, match="image must be"):
        apply_mask(np.zeros(image), np.zeros(mask), RED)


# ------------------------------------------------------------------ what is drawn where
def test_box_mask_and_label(written):
    image = np.full((200, 300, 3), 100, np.uint8)
    picture = draw_one(image)
    assert picture.shape == image.shape and picture.dtype == np.uint8 and (image == 100).all()
    y1, x1, y2, x2 = ONE[0]
    for y, x in ((y1, x2 - 1), (y2 - 1, x1), (y2 - 1, x2 - 1)):
        assert picture[y, x].tolist() == [255, 0, 0]
    assert picture[y1 + 3, x1 + 50].tolist() == [255, 0, 0]  # the rim of the mask
    assert picture[110, 110].tolist() == [162, 60, 60]  # its inside
    assert (picture[y2 + 1 :] == 100).all() and (picture[:, x2:] == 100).all()
    assert picture[y1 + 2, x2 - 3].tolist() == [100] * 3  # between box and mask
    ((text, fill, (left, top, right, bottom)),) = written
    assert text == "cat 0.90" and fill == "white"
    assert left >= x1 and right <= x2 and bottom <= y1 and top > y1 - 20
    assert (picture[top - 1 : bottom + 1, left - 1] == [255, 0, 0]).all()


def test_the_caller_may_leave_things_out(written):
    whole = draw_one()
    assert draw_one(masks=...).tobytes() == draw_one(masks=None).tobytes() != whole.tobytes()
    assert draw_one(masks=None)[110, 110].tolist() == [100] * 3
    for scores in (None, ...):
        written.clear()
        draw_one(scores=scores)
        draw_one(scores=scores, class_names=None)
        assert [text for text, *_ in written] == ["cat", "class 1"]
    written.clear()
    draw_one(scores=[0.0], class_ids=[-2])
    assert written[0][0] == "dog (crowd) 0.00"


def test_small_instances_lie_on_large_ones():
    boxes = [(50, 50, 90, 90), (10, 10, 190, 290)]
    picture = draw_instances(np.zeros((200, 300, 3), np.uint8), result_of(boxes, (200, 300)), NAMES, [GREEN, RED])
    assert picture[89, 60].tolist() == [0, 255, 0]


@pytest.mark.parametrize("color", [RED, (1.0, 1.0, 0.2), (0.0, 0.0, 0.6), (0.5, 1.0, 1.0)])
def test_text_stands_out_from_its_ground(color, written):
    draw_one(colors=[color])
    luminance = np.dot(color, (0.299, 0.587, 0.114))
    assert written[0][1] == ("white" if luminance < 0.55 else "black")


def test_lines_and_text_follow_the_size_of_the_image(written):
    thick, high = [], []
    for scale in (1, 4, 12):
        size, (y1, x1, y2, x2) = (200 * scale, 300 * scale), (value * scale for value in ONE[0])
        picture = draw_instances(np.zeros((*size, 3), np.uint8), result_of([(y1, x1, y2, x2)], size, masks=False),
                                 NAMES, [RED])  # fmt: skip
        thick.append((picture[(y1 + y2) // 2, : (x1 + x2) // 2, 0] == 255).sum())
        high.append(written[-1][2][3] - written[-1][2][1])
    assert thick[0] == 1 and thick[1] >= 3 and thick[2] >= 9
    assert high[0] >= 5 and high[1] > 1.5 * high[0] and high[2] > 4 * high[0]


@given(
    height=st.integers(16, 120), width=st.integers(16, 120), seed=st.integers(0, 99),
    name=st.sampled_from(["a", "a rather long name of a class", "Kuchenstück"]),
)  # fmt: skip
def test_labels_stay_in_the_image(height, width, seed, name):
    draw = np.random.default_rng(seed)
    corners = draw.integers(-20, (height, width), (3, 2))
    boxes = np.hstack([corners, corners + draw.integers(1, 60, (3, 2))])
    placed, place = [], labels._free_place

    def remember(box, label, size, others):
        placed.append((place(box, label, size, others), label))
        return placed[-1][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "_free_place", remember)
        image, result = np.zeros((height, width, 3), np.uint8), {"rois": boxes, "class_ids": [0, 0, 0]}
        picture = draw_instances(image, result, [name])
    assert picture.shape == (height, width, 3) and placed
    for (x, y), (label_width, label_height) in placed:
        assert 0 <= x <= x + label_width <= width and 0 <= y <= y + label_height <= height


def test_labels_give_way_to_each_other(written):
    result = result_of([(80, 40, 180, 240)] * 3, (200, 300), scores=[0.9, 0.8, 0.7])
    draw_instances(np.zeros((200, 300, 3), np.uint8), result, NAMES)
    boxes = [box for *_, box in written]
    assert len(boxes) == 3
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        for left, top, right, bottom in boxes[:index]:
            assert min(x2, right) <= max(x1, left) or min(y2, bottom) <= max(y1, top)


def test_parts_outside_of_the_image_are_cut_off():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = [[-20, 50, 40, 130], [200, 200, 300, 300]]
    picture = draw_instances(image, {"rois": boxes, "class_ids": [1, 1], "masks": np.ones((100, 100, 2), bool)}, NAMES,
                             [RED, GREEN])  # fmt: skip
    assert picture[39, 99].tolist() == [255, 0, 0] and not (picture == [0, 255, 0]).all(axis=2).any()


# ------------------------------------------------------------------ colours of instances
def color_of(picture, box):
    return tuple(picture[box[2] - 1, box[1]].tolist())


def test_colors_per_instance_and_per_class():
    boxes, size = [(40, 10, 70, 60), (40, 80, 70, 130), (40, 150, 70, 200)], (100, 220)
    image = np.zeros((*size, 3), np.uint8)
    result = result_of(boxes, size, class_ids=[1, 2, 1], masks=False)
    own = [color_of(draw_instances(image, result, NAMES), box) for box in boxes]
    assert len(set(own)) == 3
    cat, dog, again = (color_of(draw_instances(image, result, NAMES, "class"), box) for box in boxes)
    assert cat == again != dog
    elsewhere = draw_instances(image, result, ["BG", "dog", "x"], "class")
    assert color_of(elsewhere, boxes[0]) == dog


# What is left of (red, green, blue), linear, to those without green or red receptors (Machado et al. 2009, severity 1).
SEEN = {
    "all": np.eye(3),
    "no green": [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
    "no red": [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("colors", [instance_colors(8), [*class_colors(["square", "circle", "triangle"]).values()]])
def test_colors_are_told_apart_by_the_color_blind(colors, seen):
    colors = np.array(colors)
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(SEEN[seen]), 0, 1)
    lab = skimage.color.rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))
    one, other = np.triu_indices(len(lab), 1)
    assert skimage.color.deltaE_ciede2000(lab[one], lab[other]).min() > 10


def test_a_class_has_its_color_in_every_process(run_python):
    code = "from mrcnn.visualize import class_colors; print(class_colors(['cat'])['cat'])"
    assert run_python(code).strip() == str(class_colors(["cat"])["cat"])


# ------------------------------------------------------------------ images of all kinds
GREY = np.linspace(0, 1, 200 * 300).reshape(200, 300)


@pytest.mark.parametrize(
    "image",
    [
        (GREY * 255).astype(np.uint8), (GREY * 255).astype(np.uint8)[..., None], GREY, (GREY * 255).astype(np.float32),
        (GREY * 65535).astype(np.uint16), (GREY * 4000).astype(np.uint16), (GREY * 255).astype(np.int64),
        np.stack([GREY] * 3 + [np.ones_like(GREY)], axis=2), np.stack([GREY] * 7, axis=2),
    ],
    ids=["grey", "one channel", "0..1", "0..255", "16 bits", "12 bits", "int64", "alpha", "seven channels"],
)  # fmt: skip
def test_any_image_can_be_shown(image):
    picture = draw_one(image, masks=None)
    assert picture.shape == (200, 300, 3)
    np.testing.assert_allclose(picture[190], np.repeat(GREY[190, :, None] * 255, 3, axis=1), atol=1.5)


def test_black_and_white_image():
    assert set(np.unique(draw_one(GREY > 0.5, masks=None)[190:])) == {255}


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4), np.int32), np.zeros((2, 4))], ids=["list", "array", "padding"])
@pytest.mark.parametrize("colors", [None, "class"])
def test_without_instances_the_picture_is_the_image(empty, colors, written):
    result = {"rois": empty, "class_ids": np.zeros(len(empty), int), "masks": np.zeros((50, 80, len(empty)), bool)}
    picture = draw_instances(np.full((50, 80, 3), 100, np.uint8), result, NAMES, colors)
    assert not written and (picture == 100).all()


# ------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_ids": [1, 1]}, "'rois': 1, 'class_ids': 2"),
        ({"scores": [0.5, 0.5]}, "'scores': 2"),
        ({"masks": np.zeros((200, 300, 2))}, "'masks': 2"),
        ({"masks": np.zeros((100, 300, 1))}, r"masks must be \[200, 300, N\].*\(100, 300, 1\)"),
        ({"masks": [np.zeros((20, 30))]}, "masks must be"),
        ({"class_ids": [3]}, "class id 3 has no name: class_names has 3"),
        ({"class_ids": [-3]}, "class id -3 has no name"),
        ({"rois": [[0, 0, np.nan, 5]]}, r"rois\[0\] = .*nan.* is not finite"),
        ({"rois": [0, 0, 5, 5]}, "rois must be"),
        ({"rois": ...}, "lacks .'rois'."),
        ({"class_ids": None}, "lacks .'class_ids'."),
        ({"colors": [RED, GREEN]}, "each of 1 instances"),
        ({"colors": [(255, 0, 0)]}, "from 0 to 1.*0 to 255"),
        ({"colors": "klass"}, "'class' or a list.*'klass'"),
        ({"image": np.full((200, 300), np.nan)}, "finite"),
        ({"image": np.zeros((200, 300, 3)) - 5}, "within 0..255"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        draw_one(**changes)


# ------------------------------------------------------------------ speed and imports
def test_hundreds_of_instances_are_drawn_at_once():
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 1024 - 60, (400, 2))
    result = result_of(np.hstack([corners, corners + draw.integers(20, 60, (400, 2))]), (1024, 1024))
    start = time.process_time()
    draw_instances(np.zeros((1024, 1024, 3), np.uint8), result, NAMES)
    assert time.process_time() - start < 2  # about 0.2 s on a free core; full-size work per mask takes 10


def test_import_is_light(run_python):
    code = "import sys, mrcnn.visualize as v, numpy as np\n" \
           "v.draw_instances(np.zeros((50, 50)), {'rois': [[1, 1, 9, 9]], 'class_ids': [1]})\n" \
           "print([m for m in ('keras', 'tensorflow', 'matplotlib') if m in sys.modules])"  # fmt: skip
    assert run_python(code).strip() == "[]"

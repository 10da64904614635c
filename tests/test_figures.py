"""Figures of images: what they hold, how they look, and what is refused."""

import time
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import skimage.data
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from PIL import Image

from mrcnn import utils, visualize

NAMES = ["BG", "face", "suit", "rocket"]


pytestmark = pytest.mark.usefixtures("figures")


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()


def ellipses(size=(512, 512)):
    """Masks [H, W, 3], their boxes and class ids."""
    y, x = np.mgrid[: size[0], : size[1]]
    masks = np.stack(
        [((y - a) / c) ** 2 + ((x - b) / d) ** 2 < 1
         for a, b, c, d in ((120, 210, 100, 70), (330, 200, 150, 160), (150, 410, 120, 40))], axis=-1,
    )  # fmt: skip
    return masks, utils.extract_bboxes(masks), np.array([1, 2, 3])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def lines_of(ax):
    """[[points, (x, y)], whether it is solid, colour] of all lines drawn."""
    found = []
    for group in ax.collections:
        if isinstance(group, LineCollection):
            segments, styles, colors = group.get_segments(), group.get_linestyles(), group.get_colors()
            found += [(line, styles[n % len(styles)][1] is None, to_rgb(colors[n % len(colors)]))
                      for n, line in enumerate(segments)]  # fmt: skip
    return found


def boxes_of(ax):
    """[(y1, x1, y2, x2), whether it is solid, colour] of the boxes drawn, without the white that sets them off."""
    boxes = [((*line[0][::-1], *line[2][::-1]), *look) for line, *look in lines_of(ax) if len(line) == 5]
    return [box for box in boxes if box[2] != (1, 1, 1)]


def rims_of(ax):
    """[[points, (x, y)], colour] of the outlines of masks."""
    return [(line, color) for line, _, color in lines_of(ax) if len(line) > 5]


# ------------------------------------------------------------------ instances
def test_instances_have_box_rim_name_and_score(photo):
    masks, boxes, ids = ellipses()
    ax = visualize.display_instances(photo, boxes, masks, ids, NAMES, np.array([0.9, 0.51, 0.0]), "three")
    assert ax.get_title() == "three" and texts(ax) == ["face 0.90", "suit 0.51", "rocket 0.00"]
    assert sorted(b for b, *_ in boxes_of(ax)) == sorted(tuple(map(float, b)) for b in boxes)
    rims = rims_of(ax)
    assert len(rims) == 3 and len({color for _, color in rims}) == 3
    shown = ax.images[0].get_array()
    assert np.array_equal((shown != photo).any(axis=2), masks.any(axis=2) & (shown != photo).any(axis=2))
    assert (shown != photo).any(axis=2)[masks.any(axis=2)].mean() > 0.99


def test_rims_lie_on_the_border_of_the_mask(photo):
    mask = np.zeros((512, 512, 1), bool)
    mask[100:140, 200:260] = True
    ax = visualize.display_instances(photo, [[100, 200, 140, 260]], mask, [1], NAMES)
    ((rim, _),) = rims_of(ax)
    x, y = rim.T
    assert (x.min(), x.max(), y.min(), y.max()) == (200, 260, 100, 140)


@pytest.mark.parametrize("switch", ["show_mask", "show_bbox"])
def test_masks_and_boxes_can_be_left_out(photo, switch):
    masks, boxes, ids = ellipses()
    ax = visualize.display_instances(photo, boxes, masks, ids, NAMES, **{switch: False})
    assert bool(boxes_of(ax)) == (switch == "show_mask")
    assert np.array_equal(ax.images[0].get_array(), photo) == (switch == "show_mask")
    assert visualize.display_instances(photo, boxes, None, ids, NAMES).images


def test_captions_and_colors_as_asked(photo):
    masks, boxes, ids = ellipses()
    ax = visualize.display_instances(photo, boxes, masks, ids, NAMES, captions=["a", "", "$c"],
                                     colors=[(1, 0, 0), (0, 1, 0), (0, 0, 1)])  # fmt: skip
    assert texts(ax) == ["a", "$c"]
    assert {color for *_, color in boxes_of(ax)} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    ax = visualize.display_instances(photo, boxes, masks, [1, 1, 2], NAMES, colors="class")
    assert {color for *_, color in boxes_of(ax)} == set(visualize.class_colors(NAMES[1:3]).values())


def test_without_instances_the_figure_says_so(photo):
    ax = visualize.display_instances(photo, np.zeros((0, 4)), np.zeros((512, 512, 0)), [], NAMES)
    assert texts(ax) == ["no instances"]
    padding = visualize.display_instances(photo, np.zeros((2, 4)), np.zeros((512, 512, 2)), [0, 0], NAMES)
    assert texts(padding) == ["no instances"]


@pytest.mark.parametrize(
    "image", [skimage.data.camera(), skimage.data.camera().astype(np.uint16) * 200,
              np.dstack([skimage.data.astronaut()] * 2)[..., :5], skimage.data.astronaut() / 255],
)  # fmt: skip
def test_images_of_all_kinds(image):
    masks, boxes, ids = ellipses()
    ax = visualize.display_instances(image, boxes, masks, ids, NAMES)
    assert ax.images[0].get_array().shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((2, 4))}, "'boxes': 2.*'masks': 3"),
        ({"boxes": np.full((3, 4), np.nan)}, "boxes\\[0\\].*not finite"),
        ({"masks": np.zeros((100, 512, 3))}, "masks must be \\[512, 512, N\\]"),
        ({"class_ids": [1, 2, 9]}, "class id 9 has no name"),
        ({"captions": ["a"]}, "'masks': 3, 'captions': 1"),
        ({"scores": [1.0]}, "'scores': 1"),
        ({"colors": [(1, 0, 0)]}, "3 instances"),
    ],
)
def test_what_is_refused(photo, figures, changes, message):
    masks, boxes, ids = ellipses()
    arguments = {"boxes": boxes, "masks": masks, "class_ids": ids, "class_names": NAMES} | changes
    with pytest.raises(ValueError, match=message):
        visualize.display_instances(photo, **arguments)
    assert not figures.get_fignums(), "no empty figure is left"


def test_a_hundred_instances_on_a_large_photo():
    rng = np.random.default_rng(0)
    masks, boxes = np.zeros((1365, 2048, 100), bool), []
    for index in range(100):
        (y, x), (h, w) = rng.integers(0, (1200, 1850)), rng.integers(20, 160, 2)
        masks[y : y + h, x : x + w, index] = True
        boxes.append((y, x, y + h, x + w))
    photo, ids = np.full((1365, 2048, 3), 90, np.uint8), rng.integers(1, 4, 100)
    started = time.process_time()
    ax = visualize.display_instances(photo, np.array(boxes), masks, ids, NAMES)
    assert time.process_time() - started < 5, "about a second; blending all pixels for each would take 20"
    assert len(boxes_of(ax)) == 100
    started = time.process_time()
    visualize.draw_instances(photo, {"rois": np.array(boxes), "class_ids": ids, "masks": masks}, NAMES)
    assert time.process_time() - started < 0.5


# ------------------------------------------------------------------ files and axes
def test_files_are_whole_or_not_there(photo, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    visualize.display_images([photo], save=path)
    with Image.open(path) as picture:
        assert min(picture.size) > 200
    before = path.read_bytes()
    with pytest.raises(ValueError, match="xyz"):
        visualize.display_images([photo], save=tmp_path / "picture.xyz")

    def full_disk(figure, name, **options):
        Path(name).write_text("half")
        raise OSError("no space")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        visualize.display_images([photo], save=path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_given_axes_are_used_and_not_shown(photo, figures, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "show", lambda: shown.append(1))
    figure, ax = figures.subplots()
    masks, boxes, ids = ellipses()
    assert visualize.display_instances(photo, boxes, masks, ids, NAMES, ax=ax) is ax
    assert visualize.draw_boxes(photo, boxes, ax=ax) is ax and figures.get_fignums() == [figure.number]
    assert not shown
    visualize.draw_boxes(photo, boxes)
    assert shown == [1]


# ------------------------------------------------------------------ the others
def test_images_side_by_side_leave_no_row_empty(photo):
    assert len(visualize.display_images([photo] * 4).axes) == 4
    figure = visualize.display_images([photo, photo[..., 0], photo[..., :1], photo[:100], photo[:, :50]], "abcde")
    assert len(figure.axes) == 8 and [ax.get_title() for ax in figure.axes[:5]] == list("abcde")
    assert [ax.axison for ax in figure.axes] == [True] * 5 + [False] * 3  # a frame, but no ticks
    assert not any(len(ax.get_xticks()) + len(ax.get_yticks()) for ax in figure.axes[:5])
    assert texts(visualize.display_images([]).axes[0]) == ["no images"]
    with pytest.raises(ValueError, match="'images': 2, 'titles': 1"):
        visualize.display_images([photo, photo], ["a"])


def test_titles_of_panels_are_of_the_size_that_matplotlib_is_set_to(photo):
    with matplotlib.rc_context({"axes.titlesize": 9}):
        axes = plt.subplots(1, 2, figsize=(10, 5))[1]
        for ax, title in zip(axes, ("anchors", "anchors, refined and clipped to the image")):
            visualize.draw_boxes(photo, ax=ax, title=title)
    assert [ax.title.get_fontsize() for ax in axes] == [9, 9]


@pytest.mark.parametrize(("titles", "cols", "size"), [(["photo"], 8, 13), (["two\nlines"], 4, 13),
                                                      (["a potted plant (crowd), 12 times"], 5, 10)])  # fmt: skip
def test_titles_are_as_large_as_their_cells_allow(photo, titles, cols, size):
    figure = visualize.display_images([photo] * cols, titles * cols, cols=cols)
    assert figure.axes[0].title.get_fontsize() == pytest.approx(size, abs=0.5)
    figure.canvas.draw()
    edges = np.array([ax.title.get_window_extent().intervalx for ax in figure.axes])
    assert (edges[1:, 0] > edges[:-1, 1]).all(), "titles must not overlap"


def test_a_map_of_one_value_is_as_bright_as_the_value():
    limits = [ax.images[0].get_clim() for ax in visualize.display_images([np.ones((4, 4)), np.zeros((4, 4))]).axes]
    assert limits == [(0, 1), (0, 1)]
    ax = visualize.display_images([np.full((4, 4), -2.0)]).axes[0]
    assert ax.images[0].get_clim() == (-2, 1)


def test_differences_carry_score_and_overlap(photo):
    masks, boxes, ids = ellipses()
    moved = np.roll(masks, 10, axis=0)[..., [1, 0]]
    found = utils.extract_bboxes(moved)
    ax = visualize.display_differences(photo, boxes, ids, masks, found, np.array([2, 3]), np.array([0.6, 0.9]), moved,
                                       NAMES)  # fmt: skip
    overlaps = utils.compute_overlaps_masks(moved, masks)
    assert texts(ax) == [f"0.60 / {overlaps[0].max():.2f}", f"rocket 0.90 / {overlaps[1].max():.2f} wrong"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ground truth", "prediction"]
    assert len({color for *_, color in boxes_of(ax)}) == 2
    nothing = np.zeros((0, 4), int), np.zeros(0, int), np.zeros(0), np.zeros((512, 512, 0), bool)
    assert not texts(visualize.display_differences(photo, boxes, ids, masks, *nothing, NAMES))
    padded = np.vstack([np.zeros((1, 4), int), found])
    ax = visualize.display_differences(photo, boxes, ids, None, padded, [0, 2, 3], [0, 0.6, 0.3], None, NAMES)
    assert [text.split()[-1] for text in texts(ax)] == [texts(ax)[0].split()[-1], "low"]


def test_boxes_by_visibility(photo):
    _, boxes, _ = ellipses()
    ax = visualize.draw_boxes(photo, boxes, visibilities=[0, 1, 2], captions=["a", "b", None])
    (_, *grey), (_, *dotted), (_, *solid) = boxes_of(ax)
    assert not grey[0] and not dotted[0] and solid[0] and len(set(grey[1])) == 1 < len(set(dotted[1]))
    assert texts(ax) == ["a", "b"]


def test_refined_boxes_are_joined_to_where_they_come_from(photo):
    masks, boxes, _ = ellipses()
    ax = visualize.draw_boxes(photo, boxes, boxes + 5, masks)
    assert [solid for _, solid, _ in boxes_of(ax)] == [False] * 3 + [True] * 3
    joins = [line for line, *_ in lines_of(ax) if len(line) == 2]
    assert np.array_equal(joins[0], [boxes[0][[1, 0]], boxes[0][[1, 0]] + 5]) and len(joins) == 3
    assert texts(visualize.draw_boxes(photo)) == ["no boxes"]
    with pytest.raises(ValueError, match="boxes\\[1\\].*not finite"):
        visualize.draw_boxes(photo, np.where(np.arange(3)[:, None] == 1, np.nan, boxes), boxes)
    with pytest.raises(ValueError, match="0, 1 or 2"):
        visualize.draw_boxes(photo, boxes, visibilities=[0, 1, 3])
    with pytest.raises(ValueError, match="'boxes': 3.*'captions': 1"):
        visualize.draw_boxes(photo, boxes, captions=["a"])


@pytest.mark.parametrize("draw", [visualize.draw_boxes, lambda image, boxes: visualize.draw_anchors(image, [boxes])])
def test_boxes_beyond_the_image_are_seen_whole(photo, draw):
    """Where there are any, on each side apart; what is far away does not shrink the image without end."""
    _, boxes, _ = ellipses()
    inside = draw(photo, boxes)
    assert (inside.get_xlim(), inside.get_ylim()) == ((0, 512), (512, 0))
    ax = draw(photo, np.vstack([boxes, (-180, 10, 180, 200), (300, 400, 400, 600)]))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left == 0 and bottom == 512 and 600 < right < 620 and -200 < top < -180
    assert np.isclose(np.divide(*ax.get_window_extent().size), (right - left) / (bottom - top), rtol=0.01)
    far = draw(photo, [(-9999, 0, 9999, 9)])
    assert far.get_ylim() == pytest.approx((512 * 1.77, -512 * 0.77))


def test_anchors_have_a_color_per_level_and_brighten_in_their_order(photo):
    _, boxes, _ = ellipses()
    ax = visualize.draw_anchors(photo, [boxes, boxes[:1] - 200], ["fine", "coarse"])
    colors = np.array([color for *_, color in boxes_of(ax)])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fine", "coarse"]
    assert len(colors) == 4 and (np.diff(colors[:3].sum(axis=1)) > 0).all()
    np.testing.assert_allclose(colors[[2, 3]], [to_rgb("#0072b2"), to_rgb("#d55e00")])
    assert texts(visualize.draw_anchors(photo, [])) == ["no anchors"]
    with pytest.raises(ValueError, match="'levels': 1, 'labels': 2"):
        visualize.draw_anchors(photo, [boxes], ["P2", "P3"])


def test_rois_are_drawn_by_lot_and_counted(photo, capsys):
    _, boxes, _ = ellipses()
    rois, ids = np.tile(boxes, (10, 1)), np.tile([1, 0, 0], 10)
    np.random.seed(0)
    ax = visualize.draw_rois(photo, rois - 3, rois, np.ones((30, 28, 28)), ids, NAMES, limit=6)
    assert "10 positive and 20 negative regions" in capsys.readouterr().out
    solid = [solid for _, solid, _ in boxes_of(ax)]
    assert solid.count(False) == 6 and set(texts(ax)) <= {"face"} and solid.count(True) == len(texts(ax))
    with pytest.raises(ValueError, match="'mask': 30, 'class_ids': 2"):
        visualize.draw_rois(photo, rois, rois, np.ones((30, 28, 28)), [1, 2], NAMES)


def test_top_masks_show_the_largest_classes(photo):
    masks, _, _ = ellipses()
    figure = visualize.display_top_masks(photo, masks, np.array([1, 2, 1]), NAMES, limit=3)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:3] == ["512 x 512 pixels", "suit", "face, 2 times"] and not any(titles[3:])
    face = figure.axes[2].images[0].get_array()
    assert len(np.unique(face.reshape(-1, 3), axis=0)) == 3
    assert np.array_equal(face.any(axis=2), masks[..., 0] | masks[..., 2])


def test_box_frames_are_two_pixels_wide():
    image = visualize.draw_box(np.zeros((20, 30, 3), np.uint8), (5, 6, 12, 40), (9, 8, 7))
    expected = np.zeros((20, 30), bool)
    expected[5:7, 6:] = expected[12:14, 6:] = expected[5:14, 6:8] = True
    assert np.array_equal(image.any(axis=2), expected) and tuple(image[5, 6]) == (9, 8, 7)
    with pytest.raises(ValueError, match="four finite numbers"):
        visualize.draw_box(image, (0, 0, np.nan, 3), 1)


@pytest.mark.parametrize("dpi", [50, 100, 200])
def test_labels_do_not_leave_the_image(photo, figures, dpi):
    masks, boxes, ids = ellipses()
    figure, ax = figures.subplots(figsize=(5, 5), dpi=dpi)
    visualize.display_instances(photo, boxes, masks, ids, NAMES, np.ones(3), ax=ax)
    figure.canvas.draw()
    (grounds,) = [group for group in ax.collections if isinstance(group, PolyCollection)]
    frames = [path.get_extents() for path in grounds.get_paths()]
    assert len(frames) == 3 == len(ax.texts)
    for frame, text in zip(frames, ax.texts):
        assert frame.x0 >= -1 and frame.y0 >= -1 and frame.x1 <= 513 and frame.y1 <= 513
        written = text.get_window_extent().transformed(ax.transData.inverted())
        assert written.width < 1.1 * frame.width and frame.x0 - 5 < written.x0 < written.x1 < frame.x1 + 5
    assert not any(a.overlaps(b) for i, a in enumerate(frames) for b in frames[:i])

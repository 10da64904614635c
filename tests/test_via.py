"""Files of the VGG Image Annotator: versions, shapes, classes, and what is wrong with some of them."""

import json
import math

import numpy as np
import PIL.Image
import pytest
import skimage.measure
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.data import via

TRIANGLE = {"name": "polygon", "all_points_x": [2, 14, 5], "all_points_y": [1, 3, 12]}
RECT = {"name": "rect", "x": 3, "y": 4, "width": 6, "height": 5}


def region(shape=TRIANGLE, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def write(folder, images, name=via.FILE_NAME, size=(27, 20), wrap=lambda content: content):
    """A folder with photos and a VIA file: `images` is a dict of file name -> regions, a list or a dict."""
    folder.mkdir(parents=True, exist_ok=True)
    for filename in images:
        PIL.Image.new("RGB", size).save(folder / filename)
    content = {
        f"{filename}{100}": {"filename": filename, "size": 100, "regions": regions, "file_attributes": {}}
        for filename, regions in images.items()
    }
    (folder / name).write_text(json.dumps(wrap(content)))
    return folder


# ---- files


@pytest.mark.parametrize(
    ("regions", "wrap"),
    [
        ({"0": region(), "1": region(RECT)}, lambda content: content),  # version 1
        ([region(), region(RECT)], lambda content: content),  # version 2
        ([region(), region(RECT)], lambda content: {"_via_settings": {}, "_via_img_metadata": content}),
    ],
)
def test_all_versions_say_the_same(tmp_path, regions, wrap):
    (photo,) = via.read_folder(write(tmp_path, {"a.png": regions}, wrap=wrap))
    assert (photo.name, photo.width, photo.height) == ("a.png", 27, 20)
    assert photo.path == str(tmp_path / "a.png")
    assert [found.shape for found in photo.regions] == [TRIANGLE, RECT]
    assert photo.regions[1].where == f"{tmp_path / via.FILE_NAME}: a.png, region 1"


def test_photos_without_regions_are_left_out_or_kept(tmp_path):
    write(tmp_path, {"a.png": [region()], "b.png": [], "c.png": {}})
    assert [photo.name for photo in via.read_folder(tmp_path)] == ["a.png"]
    kept = via.read_folder(tmp_path, keep_empty=True)
    assert [len(photo.regions) for photo in kept] == [1, 0, 0]
    write(tmp_path, {"b.png": []})
    for keep_empty in (False, True):
        with pytest.raises(ValueError, match="no image has a region"):
            via.read_folder(tmp_path, keep_empty)


def test_the_only_other_json_will_do(tmp_path):
    write(tmp_path, {"a.png": [region()]}, name="via_project_3Jan.json")
    assert via.find_file(tmp_path).endswith("3Jan.json")
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="2 other JSON files"):
        via.find_file(tmp_path)
    write(tmp_path, {"a.png": [region()]})
    assert via.find_file(tmp_path).endswith(via.FILE_NAME)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        via.read_folder(tmp_path / "trian")
    with pytest.raises(FileNotFoundError, match="via_region_data.json: there is no such file"):
        via.read_folder(tmp_path)
    write(tmp_path, {"a.png": [region()], "b.png": [region()]})
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match="of the 2 images .*, 1 are not in .*: b.png. Put them there, or"):
        via.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "of type list"),
        ("3", "of type int"),
        ('{"_via_img_metadata": []}', "of type list"),
        ('{"images": [], "annotations": [{"id": 1}]}', "looks like COCO's"),
        ('{"a": {"filename": "a.png"}, "b": {"regions": []}}', "entry 'b' is no image"),
        ('{"a": {"filename": "a.png", "regions": [{"shape": 1}]}}', "entry 'a' is no image"),
        ('{"a": {"filename": "a.png", "regions": 5}}', "entry 'a' is no image"),
        ('{"a": {"filename": 5, "regions": []}}', "entry 'a' is no image"),
        ('{"a": {"filename": "a.png", "regions": [{"shape_attributes": {}, "region_attributes": [1]}]}}', "entry 'a'"),
        ('{"a": {"filename": "a.png", "regions": [{"shape_attributes": {}, "region_attributes": "x"}]}}', "entry 'a'"),
        (10**5 * "[" + 10**5 * "]", "not JSON"),
        ('{"version": "5.2", "shapes": [], "imagePath": "a.png"}', "entry 'version' is no image"),
    ],
)
def test_other_json_is_refused(tmp_path, content, message):
    (tmp_path / via.FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match=f"{via.FILE_NAME} is not a file of the VGG Image Annotator.*{message}"):
        via.read_folder(tmp_path)


def test_an_image_that_cannot_be_read_stays_without_a_size(tmp_path):
    write(tmp_path, {"a.png": [region()], "b.png": [region()]})
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"1 of 2 images cannot be read: b.png"):
        photos = via.read_folder(tmp_path)
    assert [(photo.width, photo.height) for photo in photos] == [(27, 20), (None, None)]


# ---- shapes


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "point", "cx": 1, "cy": 2}, "is a point, which has no area"),
        ("circle", "is a 'circle', which has no area"),
        (TRIANGLE | {"name": ["polygon"]}, "is a .'polygon'., which has no area"),
        (RECT | {"x": 1e308, "width": 1e308}, "all numbers up to 2147483648"),
        (RECT | {"y": 10**400}, "all numbers up to"),
        (RECT | {"height": True}, "all numbers up to"),
        (TRIANGLE | {"all_points_y": [1, 3, -1e18]}, "all numbers up to"),
        ({"name": "ellipse", "cx": 1, "cy": 2, "rx": 4, "ry": 4, "theta": "1"}, "all numbers"),
        ({"name": "ellipse", "cx": 1, "cy": 2, "rx": 4, "ry": 4, "theta": [1, 2]}, "all numbers"),
        ({"cx": 1}, "is a None, which has no area"),
        (7, "is a 7, which has no area"),
        (TRIANGLE | {"all_points_x": [1, 2], "all_points_y": [1, 2]}, "polygon of 2 points"),
        ({"name": "polyline", "all_points_x": [], "all_points_y": []}, "polyline of 0 points"),
        (TRIANGLE | {"all_points_x": [1, 2, 3, 4]}, "received 4 and 3"),
        (TRIANGLE | {"all_points_x": [1, 2, "x"]}, "all numbers"),
        (TRIANGLE | {"all_points_x": [1, 2, math.nan]}, "all numbers"),
        (TRIANGLE | {"all_points_x": 5}, "all numbers"),
        ({"name": "polygon"}, "needs all_points_x and all_points_y"),
        (RECT | {"width": 0}, "rect without area"),
        (RECT | {"x": [1, 2]}, "all numbers"),
        ({"name": "circle", "cx": 1, "cy": 2, "r": -1}, "circle without area"),
        ({"name": "ellipse", "cx": 5, "cy": 6, "rx": 1e-320, "ry": 2}, "ellipse without area"),
        ({"name": "ellipse", "cx": 1, "cy": 2, "rx": 4, "ry": 4, "theta": None}, "all numbers"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(tmp_path, shape, message):
    write(tmp_path, {"a.png": [region(), region(shape)]})
    with pytest.raises(ValueError, match=f"{via.FILE_NAME}: a.png, region 1.*{message}"):
        via.read_folder(tmp_path)


POINTS = st.lists(st.tuples(st.integers(-5, 25), st.integers(-5, 25)), min_size=3, max_size=8)


@given(POINTS)
def test_a_polygon_has_the_pixels_of_skimage_but_for_some_of_its_outline(points):
    x, y = np.array(points).T
    mask = via.draw_shape({"name": "polygon", "all_points_x": x.tolist(), "all_points_y": y.tolist()}, (20, 22))
    rows, columns = (axis[..., None] for axis in np.mgrid[:20, :22])
    last_x, last_y = np.roll(x, 1), np.roll(y, 1)
    on_line = (last_x - x) * (rows - y) == (last_y - y) * (columns - x)
    between = ((columns - x) * (columns - last_x) <= 0) & ((rows - y) * (rows - last_y) <= 0)
    elsewhere = ~(on_line & between).any(axis=-1)
    reference = skimage.measure.grid_points_in_poly((40, 40), np.stack([y + 8, x + 8], axis=-1))[8:28, 8:30]
    assert np.array_equal(mask[elsewhere], reference[elsewhere])


def test_left_and_upper_sides_belong_to_a_polygon():
    square = {"name": "polygon", "all_points_x": [3, 9, 9, 3], "all_points_y": [4, 4, 8, 8]}
    mask = via.draw_shape(square, (20, 27))
    assert mask.sum() == 24 and mask[4:8, 3:9].all()
    points = {key: square[key] for key in ("all_points_x", "all_points_y")}
    for name in ({"name": "polyline"}, {}):
        assert np.array_equal(via.draw_shape(points | name, (20, 27)), mask)


def test_rectangles_circles_and_ellipses():
    mask = via.draw_shape(RECT, (20, 27))
    assert mask.sum() == 30 and mask[4:9, 3:9].all()
    circle = via.draw_shape({"name": "circle", "cx": 30, "cy": 25, "r": 12.5}, (60, 60))
    assert circle.sum() == pytest.approx(math.pi * 12.5**2, rel=0.02) and circle[25, 42] and not circle[25, 43]
    ellipse = {"name": "ellipse", "cx": 30, "cy": 25, "rx": 20, "ry": 5}
    flat = via.draw_shape(ellipse, (60, 60))
    assert flat.sum() == pytest.approx(math.pi * 100, rel=0.06) and flat[25, 48] and not flat[40, 30]
    turned = via.draw_shape(ellipse | {"theta": math.pi / 4}, (60, 60))  # clockwise, as a canvas does
    assert turned[35, 40] and turned[15, 20] and not turned[15, 40] and not turned[35, 20]


@given(
    st.sampled_from(["rect", "circle", "ellipse"]), st.floats(-40, 60), st.floats(-40, 60), st.floats(1, 30),
    st.floats(1, 30), st.floats(-3, 3),
)  # fmt: skip
def test_what_is_drawn_lies_within_the_extent(name, x, y, a, b, theta):
    shape = {"name": name, "cx": x, "cy": y, "r": a, "rx": a, "ry": b, "theta": theta}
    shape |= {"x": x, "y": y, "width": a, "height": b}
    via.check_shape(shape, "here")
    mask = via.draw_shape(shape, (30, 40))
    assert mask.shape == (30, 40) and mask.dtype == bool
    rows, columns = np.nonzero(mask)
    x1, y1, x2, y2 = via.extent(shape)
    if rows.size:
        assert x1 - 1 <= columns.min() and columns.max() <= x2 + 1 and y1 - 1 <= rows.min() and rows.max() <= y2 + 1


def test_regions_out_of_the_image_are_cut_off_with_one_warning(tmp_path):
    beyond = TRIANGLE | {"all_points_x": [20, 40, 25]}
    circle = {"name": "circle", "cx": -2, "cy": 3, "r": 6}
    border = TRIANGLE | {"all_points_x": [0, 27, 27]}  # lies on the border, and no further
    write(tmp_path, {"a.png": [region(), region(beyond)], "b.png": [region(circle), region(border)]})
    with pytest.warns(UserWarning) as caught:
        photos = via.read_folder(tmp_path)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "2 regions reach out of their images" in message and "The first is a.png, region 1" in message
    assert "nothing is left" not in message
    inside = via.draw_shape(photos[0].regions[1].shape, (20, 27))
    assert np.array_equal(inside, via.draw_shape(photos[0].regions[1].shape, (60, 60))[:20, :27]) and inside.any()


def test_regions_beyond_the_image_are_counted(tmp_path):
    beyond = TRIANGLE | {"all_points_x": [100, 140, 125]}
    write(tmp_path, {"a.png": [region(), region(beyond)], "b.png": [region(TRIANGLE | {"all_points_x": [20, 40, 25]})]})
    with pytest.warns(UserWarning, match="2 regions reach out .*; of 1 of them nothing is left, and they are no"):
        photos = via.read_folder(tmp_path)
    assert not via.draw_shape(photos[0].regions[1].shape, (20, 27)).any()


# ---- classes


def names_of(*attributes, attribute=None):
    regions = [via.Region(TRIANGLE, values, f"a.png, region {n}") for n, values in enumerate(attributes)]
    return via.class_names(regions, attribute)


def test_a_class_may_be_text_or_a_ticked_box():
    assert names_of({"kind": "kite"}, {"kind": " balloon "}) == ["kite", "balloon"]
    assert names_of({"kind": {"kite": True}}, {"kind": {"kite": False, "balloon": True}}) == ["kite", "balloon"]
    assert names_of({"kind": 3, "colour": "red"}, {"kind": 4}, attribute="kind") == ["3", "4"]
    assert names_of({}, {}) == [None, None]
    assert names_of({"note": "?"}, {"other": "!"}, attribute="") == [None, None]


@pytest.mark.parametrize(
    ("attributes", "attribute", "message"),
    [
        ([{"kind": "kite"}, {"colour": "red"}], None, "attributes colour, kind: say with attribute= .--attribute"),
        ([{"kind": "kite"}], "class", "no attribute 'class'; they have kind"),
        ([{}], "class", "they have none"),
        ([{"kind": "kite"}, {}], None, "region 1: attribute 'kind' must name one class; received None"),
        ([{"kind": "kite"}, {"kind": " "}], None, "region 1: attribute 'kind' must name one class"),
        ([{"kind": {"kite": True, "balloon": True}}], None, "region 0: attribute 'kind' must name one class"),
        ([{"kind": {}}], None, "region 0: attribute 'kind' must name one class"),
    ],
)
def test_what_names_no_class_is_refused(attributes, attribute, message):
    with pytest.raises(ValueError, match=message):
        names_of(*attributes, attribute=attribute)


def test_class_ids():
    assert via.class_id("b", ["a", "b"], "here") == 2
    assert via.class_id(None, ["a"], "here") == 1
    with pytest.raises(ValueError, match="here: unknown class 'c'; known are a, b"):
        via.class_id("c", ["a", "b"], "here")
    with pytest.raises(ValueError, match="here: no attribute says which of the classes it is: a, b"):
        via.class_id(None, ["a", "b"], "here")

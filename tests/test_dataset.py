import numpy as np
import PIL.Image
import pytest
import skimage.io

from mrcnn.data.dataset import Dataset


def prepared():
    dataset = Dataset()
    for source, class_id, name in [("a", 1, "cat,feline"), ("a", 3, "dog"), ("b", 1, "car"), ("a", 1, "again")]:
        dataset.add_class(source, class_id, name)
    dataset.add_image("a", image_id=10, path="/x/0.png", width=5)
    dataset.add_image("b", "q", None)
    dataset.prepare()
    return dataset


def with_file(folder, image, name="image.png"):
    """A data set of one image that lies in a file."""
    path = folder / name
    skimage.io.imsave(path, image, check_contrast=False)
    dataset = Dataset()
    dataset.add_image("files", name, str(path))
    dataset.prepare()
    return dataset


# ------------------------------------------------------------------ bookkeeping
def test_classes_and_images_are_numbered():
    dataset = prepared()
    assert dataset.num_classes == 4 and dataset.num_images == 2
    assert dataset.class_names == ["BG", "cat", "dog", "car"]
    assert dataset.class_ids.tolist() == [0, 1, 2, 3] and dataset.image_ids.tolist() == [0, 1]
    assert dataset.class_info[1] == {"source": "a", "id": 1, "name": "cat,feline"}
    assert dataset.image_info[0] == {"source": "a", "id": 10, "path": "/x/0.png", "width": 5}
    assert dataset.class_from_source_map == {".0": 0, "a.1": 1, "a.3": 2, "b.1": 3}
    assert dataset.image_from_source_map == {"a.10": 0, "b.q": 1}
    assert dataset.sources == ["", "a", "b"]
    assert dataset.source_class_ids == {"": [0], "a": [0, 1, 2], "b": [0, 3]}


def test_preparing_again_takes_what_was_added():
    dataset = prepared()
    dataset.add_image("a", 11, None)
    dataset.prepare(class_map={"ignored": 1})
    assert dataset.num_images == 3 and dataset.image_from_source_map["a.11"] == 2


def test_an_empty_data_set_can_be_prepared():
    dataset = Dataset(class_map=None)
    assert list(dataset.image_ids) == []
    dataset.prepare()
    assert dataset.num_images == 0 and dataset.class_names == ["BG"] and dataset.image_ids.shape == (0,)


def test_source_ids_go_both_ways():
    dataset = prepared()
    assert dataset.map_source_class_id("a.3") == 2
    assert dataset.get_source_class_id(2, "a") == 3


def test_unknown_source_classes_list_the_known():
    with pytest.raises(ValueError, match=r"unknown class 'a\.7'; known are a\.1, a\.3, b\.1"):
        prepared().map_source_class_id("a.7")
    with pytest.raises(ValueError, match=r"call prepare\(\)"):
        Dataset().map_source_class_id("a.1")
    with pytest.raises(ValueError, match=r"class 2 \(dog\) comes from source 'a', not 'b'"):
        prepared().get_source_class_id(2, "b")


def test_a_source_has_no_dots():
    with pytest.raises(ValueError, match=r"'my\.photos'.*'my_photos'"):
        Dataset().add_class("my.photos", 1, "x")


def test_what_an_image_says_of_itself():
    dataset = prepared()
    assert dataset.source_image_link(0) == "/x/0.png" and dataset.source_image_link(1) is None
    assert dataset.image_reference(0) == ""


def test_there_are_no_masks_unless_a_subclass_has_some():
    masks, class_ids = prepared().load_mask(0)
    assert masks.shape == (0, 0, 0) and masks.dtype == bool
    assert class_ids.shape == (0,) and class_ids.dtype == np.int32
    assert prepared().coco_annotations(0) is None


# ------------------------------------------------------------------ files
@pytest.mark.parametrize(
    ("image", "name"),
    [
        (np.arange(48, dtype=np.uint8).reshape(6, 8) * 5, "grey.png"),
        (np.arange(144, dtype=np.uint8).reshape(6, 8, 3), "rgb.png"),
        (np.arange(192, dtype=np.uint8).reshape(6, 8, 4), "rgba.png"),
        (np.arange(96, dtype=np.uint8).reshape(6, 8, 2), "grey_alpha.png"),
        (np.arange(144, dtype=np.uint8).reshape(6, 8, 3), "rgb.tif"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_become_rgb(tmp_path, image, name):
    loaded = with_file(tmp_path, image, name).load_image(0)
    assert loaded.dtype == np.uint8 and loaded.shape == (6, 8, 3)
    colours = image[..., :3] if image.shape[2:] in [(3,), (4,)] else image.reshape(6, 8, -1)[..., :1]
    np.testing.assert_array_equal(loaded, np.broadcast_to(colours, (6, 8, 3)))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bits_are_scaled(tmp_path, name):
    loaded = with_file(tmp_path, (np.arange(48, dtype=np.uint16) * 257 * 5).reshape(6, 8), name).load_image(0)
    np.testing.assert_array_equal(loaded[..., 0].ravel(), np.arange(48) * 5)


def test_float_files_are_scaled(tmp_path):
    loaded = with_file(tmp_path, np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8), "float.tif").load_image(0)
    assert loaded.dtype == np.uint8 and loaded.max() == 255


def with_colours(folder, image, name, **options):
    """What `load_image` makes of an image of PIL."""
    image.save(folder / name, **options)
    dataset = Dataset()
    dataset.add_image("files", name, folder / name)
    return dataset.load_image(0)


@pytest.mark.parametrize("name", ["cmyk.jpg", "cmyk.tif"])
def test_cmyk_keeps_its_black(tmp_path, name):
    """A red that is half black; without K it would be as bright as can be."""
    loaded = with_colours(tmp_path, PIL.Image.new("CMYK", (8, 6), (0, 255, 255, 128)), name)
    assert loaded.dtype == np.uint8 and loaded.shape == (6, 8, 3)
    np.testing.assert_allclose(loaded, np.broadcast_to([127, 0, 0], (6, 8, 3)), atol=3)


@pytest.mark.parametrize("name", ["palette.png", "palette.gif", "palette.tif"])
def test_palettes_become_colours(tmp_path, name):
    image = PIL.Image.fromarray((np.arange(48, dtype=np.uint8) % 3).reshape(6, 8), "L")
    colours = np.array([[200, 10, 30], [0, 255, 0], [5, 6, 7]], np.uint8)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    loaded = with_colours(tmp_path, image, name)
    np.testing.assert_array_equal(loaded, colours[np.arange(48) % 3].reshape(6, 8, 3))


def test_transparent_palettes_keep_their_colours(tmp_path):
    image = PIL.Image.new("P", (8, 6), 1)
    image.putpalette([1, 2, 3, 40, 50, 60])
    loaded = with_colours(tmp_path, image, "clear.png", transparency=b"\xff\x00")
    np.testing.assert_array_equal(loaded, np.broadcast_to([40, 50, 60], (6, 8, 3)))


def test_errors_name_the_image(tmp_path):
    dataset = Dataset()
    dataset.add_image("mine", "no path", None)
    dataset.add_image("mine", "lost", str(tmp_path / "lost.png"))
    dataset.add_image("mine", "text", str(tmp_path / "text.png"))
    dataset.add_image("mine", "cut", str(tmp_path / "cut.png"))
    dataset.add_image("mine", "many", str(tmp_path / "many.tif"))
    dataset.prepare()
    (tmp_path / "text.png").write_text("this is no image")
    skimage.io.imsave(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    skimage.io.imsave(tmp_path / "many.tif", np.zeros((9, 8, 7), np.uint8), check_contrast=False)

    expected = {"no path": ValueError, "lost": FileNotFoundError, "text": ValueError, "cut": ValueError,
                "many": ValueError}
    for i, (name, error) in enumerate(expected.items()):
        with pytest.raises(error, match=rf"image '{name}' of source 'mine' \({dataset.image_info[i]['path']}\)"):
            dataset.load_image(i)

"""A folder of a camera whose files vanish, or are half-written, while its photos are looked at."""

import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import tiny

from mrcnn import model as modellib
from mrcnn.engine import pictures

FORMATS = ".bmp", ".jpg", ".png", ".tif", ".webp"


def fill(folder, count, suffix=".jpg"):
    folder.mkdir()
    for number in range(count):
        PIL.Image.fromarray(tiny.photo(48, 64, seed=number)).save(folder / f"{number:03}{suffix}")
    return folder


class Camera:
    """Draws the negative of a photo; with the n-th one it calls a function, as something that happens meanwhile."""

    def __init__(self, when, happens):
        self.when, self.happens, self.drawn = when, happens, 0

    def __call__(self, image):
        self.drawn += 1
        if self.drawn == self.when:
            self.happens()
        return 255 - image


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save(draw, source, output):
    return pictures.save_pictures(draw, "detect", str(source), None, str(output))


def assert_whole_pictures(folder, count):
    paths = list(folder.iterdir())
    assert len(paths) == count and {path.suffix for path in paths} == {".png"}
    for path in paths:
        with PIL.Image.open(path) as image:
            assert np.asarray(image).shape == (48, 64, 3)


def test_some_files_vanish_or_are_half_written(tmp_path, capsys):
    photos = fill(tmp_path / "camera", 60)

    def happens():
        (photos / "010.jpg").unlink()
        halve(photos / "020.jpg")
        (photos / "030.jpg").write_bytes(b"")

    save(Camera(3, happens), photos, tmp_path / "out")
    text = capsys.readouterr().out
    assert "3 of 60 images cannot be read" in text
    assert all(f"'{number}.jpg'" in text for number in ("010", "020", "030")) and "there is no such file" in text
    (folder,) = (tmp_path / "out").iterdir()
    assert_whole_pictures(folder, 57)


def test_the_whole_folder_vanishes(tmp_path):
    photos = fill(tmp_path / "camera", 20)
    with pytest.raises(ValueError, match=r"(?s)16 of 20 images cannot be read:.*'019\.jpg'.*The others were saved to"):
        save(Camera(4, lambda: shutil.rmtree(photos)), photos, tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert_whole_pictures(folder, 4)


def test_photos_that_arrive_meanwhile_are_for_the_next_time(tmp_path):
    photos = fill(tmp_path / "camera", 5)
    save(Camera(2, lambda: shutil.copy(photos / "000.jpg", photos / "0015.jpg")), photos, tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert_whole_pictures(folder, 5)


def test_the_folder_of_the_pictures_vanishes(tmp_path):
    photos, output = fill(tmp_path / "camera", 5), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"create it first.*detect_"):
        save(Camera(3, lambda: shutil.rmtree(output)), photos, output)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_photo_cut_off_anywhere_is_named_or_whole(tmp_path, suffix):
    """No half of a photo passes for a whole one."""
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(tiny.photo(48, 64)).save(path)
    content, whole = path.read_bytes(), pictures._load_photo(path)
    named = 0
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        try:
            assert (pictures._load_photo(path) == whole).all()
        except ValueError as error:
            assert f"a{suffix}" in str(error) and "whole image file" in str(error)
            named += 1
    assert named >= 38


@pytest.mark.slow
def test_detection_goes_on_with_the_other_photos(tmp_path, model_dir, capsys):
    model = modellib.MaskRCNN("inference", tiny.config(IMAGES_PER_GPU=1), model_dir)
    photos = fill(tmp_path / "camera", 40)
    camera = Camera(2, lambda: ((photos / "007.jpg").unlink(), halve(photos / "008.jpg")))

    def draw(image):
        found = model.detect([image])[0]
        assert found["masks"].shape[:2] == image.shape[:2]
        return camera(image)

    save(draw, photos, tmp_path / "out")
    assert "2 of 40 images cannot be read" in capsys.readouterr().out
    (folder,) = (tmp_path / "out").iterdir()
    assert_whole_pictures(folder, 38)


def test_a_full_disk_leaves_no_half_picture(tmp_path, monkeypatch):
    photos = fill(tmp_path / "camera", 5)
    original = pathlib.Path.write_bytes

    def full(path, content):
        original(path, bytes(content)[: len(content) // 2] if "003" in path.name else content)
        if "003" in path.name:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No room to save 003\.png \(No space left.*it needs [\d,]+ bytes"):
        save(Camera(0, None), photos, tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert_whole_pictures(folder, 3)

"""Files that are there whole or not at all, and what is no file."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import PIL.Image
import pytest

from mrcnn.data import coco_files, via
from mrcnn.data.dataset import Dataset
from mrcnn.data.files import check_file, kind_of_no_file, write_whole
from mrcnn.engine import archives, video
from mrcnn.engine.checkpoints import find_last
from mrcnn.engine.h5_layout import is_whole, open_hdf5
from mrcnn.engine.pictures import save_pictures

posix_only = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
PATIENCE = 20  # seconds
# What opens a pipe waits until there is a writer; this is one, late, and again and again for what opens it again.
LATE_WRITER = """
import os, sys, time
time.sleep(float(sys.argv[2]))
while True:
    os.close(os.open(sys.argv[1], os.O_RDWR))
    time.sleep(0.05)
"""


@pytest.fixture
def make_pipe():
    """Makes a named pipe; a test that waits for it fails, instead of hanging, as it gets an empty file in the end."""
    writers, begin = [], time.monotonic()

    def make(path):
        os.mkfifo(path)
        writers.append(subprocess.Popen([sys.executable, "-I", "-c", LATE_WRITER, str(path), str(PATIENCE)]))

    yield make
    for writer in writers:
        writer.kill()
        writer.wait()
    assert time.monotonic() - begin < PATIENCE, "something waited for a pipe"


def load_image(path):
    dataset = Dataset()
    dataset.add_image("some", 1, path)
    return dataset.load_image(0)


def take_picture(path):
    return save_pictures(lambda image: image, "name", path, None, os.path.join(os.path.dirname(path), "out"))


def open_video(path):
    pytest.importorskip("av")
    video.check_video(path)


def unpack(path):
    return archives.unpack(path, os.path.join(os.path.dirname(path), "out"))


READERS = {
    "some.jpg": load_image, "some.tif": load_image, "picture.jpg": take_picture, "some.mp4": open_video,
    "via.json": via.read_file, "coco.json": coco_files.read_annotations, "some.zip": unpack, "some.h5": open_hdf5,
}  # fmt: skip


@posix_only
@pytest.mark.parametrize("name", READERS)
def test_pipes_are_refused_not_waited_for(make_pipe, tmp_path, name):
    make_pipe(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}.*a pipe or a device"):
        READERS[name](str(tmp_path / name))


@pytest.mark.parametrize("name", READERS)
def test_folders_are_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    message = "the folder has no images" if name.startswith("picture") else "a folder"
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        READERS[name](str(tmp_path / name))


@posix_only
def test_a_pipe_among_photos_is_named_and_the_others_are_saved(make_pipe, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    make_pipe(photos / "a.jpg")
    for name in ("b.jpg", "c.png"):
        PIL.Image.new("RGB", (5, 4)).save(photos / name)
    saved = save_pictures(lambda image: image, "name", str(photos), None, str(tmp_path / "out"))
    assert sorted(os.listdir(saved)) == ["b.png", "c.png"]
    printed = capsys.readouterr().out
    assert "1 of 3 images cannot be read" in printed and re.search(r"a\.jpg.*a pipe or a device", printed)


@posix_only
def test_a_pipe_among_checkpoints_is_passed_over(make_pipe, tmp_path, capsys):
    run = tmp_path / "some20260101T0000"
    run.mkdir()
    make_pipe(run / "mask_rcnn_some_0001.h5")
    assert not is_whole(run / "mask_rcnn_some_0001.h5")
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        find_last(tmp_path, "some")
    assert "mask_rcnn_some_0001.h5 is not a whole weights file: skipped" in capsys.readouterr().out


def test_what_is_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    os.symlink(tmp_path / "file", tmp_path / "link")
    os.symlink(tmp_path / "turn", tmp_path / "turn")
    for name in ("file", "link", "nothing", "turn"):
        assert kind_of_no_file(tmp_path / name) is None
        check_file(tmp_path / name)
    assert kind_of_no_file(tmp_path) == "a folder"
    with pytest.raises(ValueError, match="is a folder. Give the path of a file"):
        check_file(tmp_path)


def test_whole_files_replace_whole_files(tmp_path):
    write_whole(tmp_path / "file", b"old")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError, match="No such folder"):
        write_whole(tmp_path / "nowhere" / "file", b"")


def test_the_readers_read_files(tmp_path):
    """What is refused above is refused for what it is, not for its name."""
    (tmp_path / "via.json").write_text("{}")
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("inside", "text")
    for name in ("some.jpg", "some.tif", "picture.jpg"):
        PIL.Image.new("RGB", (5, 4)).save(tmp_path / name)
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["some"] = np.ones(3)
    for name in READERS.keys() - {"some.mp4"}:
        READERS[name](str(tmp_path / name))
    assert (tmp_path / "out" / "inside").read_text() == "text"

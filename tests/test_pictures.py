"""Pictures of photos, folders and addresses: names, what is left out, and what never overwrites what."""

import functools
import http.server
import os
import re
import threading

import numpy as np
import PIL.Image
import pytest

from mrcnn.engine import pictures


def negative(image):
    return 255 - image


def save_photo(path, value=10, mode="RGB", size=(12, 9)):
    PIL.Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)
    return str(path)


def save(source, output, draw=negative, **keywords):
    return pictures.save_pictures(draw, "splash", source, None, str(output), **keywords)


def value_of(path):
    with PIL.Image.open(path) as image:
        values = np.unique(np.asarray(image))
    assert len(values) == 1
    return values[0]


@pytest.fixture
def server(tmp_path):
    """Address of a server of the folder `served`, and that folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_photo_becomes_a_picture(tmp_path, mode, capsys):
    path = save(save_photo(tmp_path / "in.png", mode=mode), tmp_path / "new" / "folder")
    assert re.fullmatch(r"splash_\d{8}T\d{6}\.png", os.path.basename(path))
    assert os.path.dirname(path) == str(tmp_path / "new" / "folder") and os.listdir(os.path.dirname(path)) == [
        os.path.basename(path)
    ]
    assert value_of(path) == 245
    assert f"Saved to {path}" in capsys.readouterr().out


def test_none_overwrites_another(tmp_path):
    source = save_photo(tmp_path / "in.png")
    paths = [save(source, tmp_path) for _ in range(3)]  # within a second
    assert len(set(paths)) == 3 and all(map(os.path.isfile, paths))
    assert len(os.listdir(tmp_path)) == 4


def test_two_at_work_at_the_same_time_do_not_share_a_name(tmp_path):
    source, inner = save_photo(tmp_path / "in.png"), []

    def draw(image):
        inner.append(save(source, tmp_path))
        return image

    outer = save(source, tmp_path, draw)
    assert outer != inner[0] and value_of(outer) == 10 and value_of(inner[0]) == 245


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_nothing(tmp_path, problem):
    def draw(image):
        raise problem

    with pytest.raises(problem):
        save(save_photo(tmp_path / "in.png"), tmp_path, draw)
    assert os.listdir(tmp_path) == ["in.png"]


def test_a_folder_keeps_its_names_and_is_left_alone(tmp_path):
    for number, name in enumerate(("a.png", "a.jpg", "B.JPG", "c.bmp")):
        save_photo(tmp_path / name, 10 * number)
    (tmp_path / "notes.txt").write_text("no photo")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    path = save(str(tmp_path), tmp_path)
    assert re.fullmatch(r"splash_\d{8}T\d{6}", os.path.basename(path))
    assert sorted(os.listdir(path)) == ["B.png", "a.jpg.png", "a.png.png", "c.png"]
    assert value_of(os.path.join(path, "c.png")) == 225
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_an_unreadable_photo_among_good_ones(tmp_path, capsys):
    for number in range(25):
        save_photo(tmp_path / f"{number:02}.png")
    (tmp_path / "07.png").write_bytes(b"no image")
    path = save(str(tmp_path), tmp_path / "out")
    assert len(os.listdir(path)) == 24
    text = capsys.readouterr().out
    assert "1 of 25 images cannot be read" in text and "'07.png'" in text
    for name in ("08.png", "09.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)3 of 25 images cannot be read.*07\.png.*09\.png.*others were saved to"):
        save(str(tmp_path), tmp_path / "second")
    (second,) = (tmp_path / "second").iterdir()
    assert len(os.listdir(second)) == 22


def test_what_cannot_be_read_is_named_before_and_while(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    (tmp_path / "empty").mkdir()
    cases = [(tmp_path / "no.png", FileNotFoundError, r"no\.png"), (text, ValueError, r"text\.png"),
             (tmp_path / "empty", ValueError, "the folder has no images")]  # fmt: skip
    for source, error, message in cases:
        with pytest.raises(error, match=message):
            pictures.check_source(str(source))
        with pytest.raises(error, match=message):
            save(str(source), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no such video"):
        pictures.check_source(None, str(tmp_path / "no.mp4"))
    assert os.listdir(tmp_path / "out") == []
    pictures.check_source("http://127.0.0.1:9/photo.png")  # nobody is asked yet
    for both in ((None, None), ("a.png", "a.mp4")):
        with pytest.raises(ValueError, match="either image_path or video_path"):
            pictures.save_pictures(negative, "splash", *both, str(tmp_path / "out"))


def test_an_output_that_cannot_be_a_folder(tmp_path):
    source = save_photo(tmp_path / "in.png")
    with pytest.raises(ValueError, match=r"cannot make the folder .*in\.png"):
        save(source, source)


def test_addresses_are_downloaded(tmp_path, server, capsys):
    address, folder = server
    save_photo(folder / "photo.tif", 20)
    path = save(f"{address}/photo.tif?size=large", tmp_path / "out")
    assert value_of(path) == 235 and os.listdir(tmp_path / "out") == [os.path.basename(path)]
    with pytest.raises(ConnectionError, match="404"):
        save(f"{address}/missing.png", tmp_path / "out")
    (folder / "page.png").write_text("<html></html>")
    with pytest.raises(ValueError, match=r"page\.png.*cannot be read"):
        save(f"{address}/page.png", tmp_path / "out")
    assert len(os.listdir(tmp_path / "out")) == 1


def test_a_video_from_an_address(tmp_path, server):
    pytest.importorskip("av")
    import test_video

    address, folder = server
    test_video.write(folder / "film.mp4", [test_video.frame_of(n) for n in range(3)])
    path = pictures.save_pictures(negative, "detect", None, f"{address}/film.mp4", str(tmp_path / "out"))
    assert re.fullmatch(r"detect_\d{8}T\d{6}\.mp4", os.path.basename(path))
    frames, _, _ = test_video.read(path)
    assert len(frames) == 3 and np.abs(frames[0].astype(int) - negative(test_video.frame_of(0))).mean() < 8
    assert os.listdir(tmp_path / "out") == [os.path.basename(path)]

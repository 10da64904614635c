"""From photos and videos, in files, folders or on servers, to pictures of them in files."""

import contextlib
import datetime
import io
import os
import tempfile
import urllib.parse
from pathlib import Path

import PIL.Image

from mrcnn.data.checks import too_many
from mrcnn.data.dataset import Dataset
from mrcnn.data.files import write_whole
from mrcnn.engine import video
from mrcnn.engine.command_line import writable_folder
from mrcnn.engine.downloads import download

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}  # what counts as a photo in a folder


def save_pictures(draw, name, image_path, video_path, output):
    """Saves what a function draws of a photo, of each photo in a folder, or of each frame of a video.

    A photo becomes `{name}_{time}.png`, a video `{name}_{time}.mp4`, a folder the folder `{name}_{time}` with a PNG of
    each photo's name. What cannot be read in a folder is listed in the end; as an error, if it is more than
    5 % (and more than one, or all).

    Args:
        draw: takes an image [H, W, 3] uint8, and returns one.
        name: str, that the names of the files begin with.
        image_path: file, address or folder; or
        video_path: file or address.
        output: folder, is made if need be.

    Returns:
        Path of what was saved.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: what cannot be read, or not be written.
        ImportError: a video, and PyAV is not installed.
    """
    if (image_path is None) == (video_path is None):
        raise ValueError(f"give either image_path or video_path; received {image_path!r} and {video_path!r}")
    writable_folder(output)
    with _local_copy(image_path or video_path) as source:
        if image_path and os.path.isdir(source):
            path = _save_folder(draw, name, source, output)
        else:
            with _new_path(output, name, ".mp4" if video_path else ".png") as path:
                if video_path:
                    video.map_frames(source, path, draw)
                else:
                    _save_png(draw(_load_photo(source)), path)
    print(f"Saved to {path}")
    return path


def check_source(image_path=None, video_path=None):
    """Raises what `save_pictures` would, if a photo, folder or video cannot be read; an address is left for later."""
    if video_path:
        video.import_av()
    if "://" in str(image_path or video_path):
        return
    if video_path:
        video.check_video(video_path)
    elif os.path.isdir(image_path):
        _photos(image_path)
    else:
        _load_photo(image_path)


def _photos(folder):
    """The paths of the photos in a folder; ValueError if there are none."""
    photos = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in SUFFIXES)
    if not photos:
        raise ValueError(f"{folder}: the folder has no images ({', '.join(sorted(SUFFIXES))})")
    return photos


def _save_folder(draw, name, folder, output):
    """Saves a picture of each photo of a folder, under the same name in a new folder."""
    photos, problems = _photos(folder), []
    stems = [photo.stem for photo in photos]
    with _new_path(output, name, "") as path:
        os.mkdir(path)
    for photo in photos:
        print(photo.name)
        try:
            image = _load_photo(photo)
        except (ValueError, OSError) as error:
            problems.append(f"  {error}")
            continue
        kept_name = photo.stem if stems.count(photo.stem) == 1 else photo.name
        _save_png(draw(image), os.path.join(path, f"{kept_name}.png"))
    if problems:
        summary = "\n".join([f"{len(problems)} of {len(photos)} images cannot be read:", *problems])
        if too_many(len(problems), len(photos)) or len(problems) == len(photos):
            raise ValueError(f"{summary}\nThe others were saved to {path}")
        print(summary)
    return path


@contextlib.contextmanager
def _local_copy(source):
    """Yields the path of a file or folder; what is an address is downloaded, for as long as it is needed."""
    if "://" not in str(source):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(urllib.parse.urlsplit(source).path)[-100:] or "download")
        download(source, path)
        yield path


@contextlib.contextmanager
def _new_path(folder, name, suffix):
    """Yields a path `{name}_{time}{suffix}` that nothing has yet; its `.part` keeps the place meanwhile."""
    moment = datetime.datetime.now()
    while True:
        path = os.path.join(folder, f"{name}_{moment:%Y%m%dT%H%M%S}{suffix}")
        with contextlib.suppress(FileExistsError):
            open(f"{path}.part", "xb").close()
            if not os.path.exists(path):
                break
            os.remove(f"{path}.part")
        moment += datetime.timedelta(seconds=1)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{path}.part")


def _save_png(image, path):
    """Saves an image; under its name there is only ever a whole file."""
    content = io.BytesIO()
    PIL.Image.fromarray(image).save(content, format="PNG")
    write_whole(path, content.getbuffer())


def _load_photo(path):
    """[H, W, 3] uint8 of any common image file."""
    photos = Dataset()
    photos.add_image("photo", os.path.basename(path), path)
    return photos.load_image(0)

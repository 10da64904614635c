"""The promises of SECURITY.md about files from elsewhere; for each of them the page names its tests."""

import base64
import contextlib
import io
import json
import marshal
import os
import pickle
import re
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
import pytest
import scripts
import weight_files
from faults.cases import Refused, attempt, cases
from hypothesis import given
from hypothesis import strategies as st
from test_downloads import server  # noqa: F401 a fixture

from mrcnn.data.dataset import Dataset
from mrcnn.engine.archives import unpack
from mrcnn.engine.h5_layout import is_whole, read_file
from mrcnn.engine.weights import load_weights, save_weights, speak_layout

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "SECURITY.md"
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs the file names of POSIX")

# ---- the page


def test_each_promise_names_tests_that_exist():
    text = PAGE.read_text()
    promises = re.findall(r"^- .*(?:\n  .*)*", text.split("## What is promised")[1].split("\n## ")[0], re.MULTILINE)
    assert len(promises) >= 8
    for promise in promises:
        named = re.findall(r"`(tests/[^`]*)`", promise)
        assert named, promise
        for test in named:
            path, _, function = test.partition("::")
            assert re.fullmatch(r"test_\w+", function), f"{test} names no test"
            assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE), test


# ---- weights are data


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def lambda_config(mark):
    """The JSON of a Keras 2 model with a Lambda layer, whose code makes a folder."""
    code = compile(f"lambda x: __import__('os').mkdir({str(mark)!r})", "<evil>", "eval").co_consts[0]
    function = [base64.b64encode(marshal.dumps(code)).decode(), None, None]
    layer = {"class_name": "Lambda", "config": {"name": "evil", "function": function, "function_type": "lambda"}}
    return json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})


def test_a_lambda_in_a_whole_model_file_is_not_run(tmp_path):
    model, mark = weight_files.small_model(), tmp_path / "evil"
    path = weight_files.write_keras2(tmp_path / "model.h5", weight_files.content(model), wrapped=True)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = lambda_config(mark)
        file.attrs["training_config"] = np.void(pickle.dumps(Evil(mark)))
    load_weights(model, path, verbose=0)
    assert is_whole(path) and not mark.exists()
    assert weight_files.same(weight_files.variables(model), weight_files.expected(weight_files.content(model)))


def test_a_keras_archive_is_refused_unread(tmp_path):
    model, mark = speak_layout(weight_files.small_model()), tmp_path / "evil"
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", lambda_config(mark))
        archive.writestr("metadata.json", "{}")
    for name in ("model.keras", "renamed.h5"):
        (tmp_path / name).write_bytes((tmp_path / "model.keras").read_bytes())
        with pytest.raises(ValueError, match=f"{name} is a zip archive"):
            model.load_weights(tmp_path / name)
    assert not mark.exists()


def test_pickles_are_refused_unread(tmp_path):
    model, mark = weight_files.small_model(), tmp_path / "evil"
    for protocol in (2, 4, 5):
        (tmp_path / "w.h5").write_bytes(pickle.dumps(Evil(mark), protocol))
        with pytest.raises(ValueError, match="w.h5 is "):
            load_weights(model, tmp_path / "w.h5")
    np.save(tmp_path / "w.npy", np.array([Evil(mark)], object), allow_pickle=True)
    with pytest.raises(ValueError, match="w.npy is not HDF5"):
        load_weights(model, tmp_path / "w.npy")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists(), "the test would have shown it"


def test_pickled_arrays_within_a_file_are_refused_unread(tmp_path):
    mark = tmp_path / "evil"
    for value in (np.void(pickle.dumps(Evil(mark))), pickle.dumps(Evil(mark), 0)):
        path = weight_files.write_keras2(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": value}})
        with pytest.raises(ValueError, match=r"w\.h5: the array 'conv1/kernel:0' holds .*not numbers"), read_file(path):
            pass
    assert not mark.exists()


LINKS = {
    "external link": lambda group, name: group.__setitem__(name, h5py.ExternalLink("secret.h5", "/numbers")),
    "external storage": lambda group, name: group.create_dataset(
        name, (4,), "float32", external=[(Path(group.file.filename).with_name("secret.bin"), 0, 16)]),
    "virtual": lambda group, name: group.create_virtual_dataset(name, _virtual_layout()),
}


def _virtual_layout():
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource("secret.h5", "numbers", (4,))
    return layout


@pytest.mark.parametrize("kind", LINKS)
def test_a_weights_file_opens_no_other_file(tmp_path, kind):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["numbers"] = np.arange(4, dtype="float32")
    np.arange(4, dtype="float32").tofile(tmp_path / "secret.bin")
    path = weight_files.write_keras2(tmp_path / "w.h5", {"conv1": {}})
    with h5py.File(path, "a") as file:
        file["conv1"].attrs["weight_names"] = [b"bias:0"]
        LINKS[kind](file["conv1"], "bias:0")
        assert file["conv1/bias:0"][2] == 2, "h5py itself follows it"
    with pytest.raises(ValueError, match=r"w\.h5.*'bias:0'.*(missing|in another file)"), read_file(path):
        pass


# ---- archives


def zip_with(path, entries):
    """A zip archive of (name, content, kind of file) in this order."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content, kind in entries:
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is, with what ZipInfo would change
            info.create_system = 3
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = zip_with(tmp_path / "v.zip", [("good", b"x", stat.S_IFREG), ("bad", b"/etc/passwd", kind)])
    with pytest.raises(ValueError, match=r"v\.zip has a (link|device or the like), 'bad'"):
        unpack(archive, tmp_path / "data", verbose=0)
    assert os.listdir(tmp_path) == ["v.zip"]


def test_tar_archives_are_not_unpacked(tmp_path):
    """The format that has hard links and devices."""
    with tarfile.open(tmp_path / "v.zip", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"v\.zip is no whole zip archive"):
        unpack(tmp_path / "v.zip", tmp_path / "data", verbose=0)
    assert os.listdir(tmp_path) == ["v.zip"]


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_hard_link_in_the_folder_is_not_written_through(tmp_path):
    folder, other = tmp_path / "data", tmp_path / "other.txt"
    folder.mkdir()
    other.write_bytes(b"mine")
    for name in ("a", "b.part"):
        os.link(other, folder / name)
    unpack(zip_with(tmp_path / "v.zip", [("a", b"longer", stat.S_IFREG), ("b", b"yours", 0)]), folder, verbose=0)
    assert other.read_bytes() == b"mine" and (folder / "a").read_bytes() == b"longer"


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a.part"), ("a.part", "a"), ("a/b", "a"), ("a", "./a"),
                                   ("a.part/b", "a")])
def test_no_file_of_an_archive_takes_the_place_of_another(tmp_path, names):
    archive = zip_with(tmp_path / "v.zip", [(name, name.encode(), stat.S_IFREG) for name in names])
    with pytest.raises(ValueError, match=r"v\.zip has the files a.* and a"):
        unpack(archive, tmp_path / "data", verbose=0)
    assert os.listdir(tmp_path) == ["v.zip"]


parts = st.sampled_from(("a", "b", "..", ".", "", "a.part", "c:", "\\", "é", "a b", "~", "..\\x", "x" * 300, "\n"))
entries = st.lists(st.tuples(
    st.lists(parts, min_size=1, max_size=4).map("/".join), st.binary(max_size=40),
    st.sampled_from((stat.S_IFREG,) * 9 + (0, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFCHR))), max_size=4)  # fmt: skip


@pytest.mark.slow
@cases(0.08)
@given(entries)
def test_whatever_an_archive_holds_it_stays_in_its_folder(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("archives")
    folder = root / "deep" / "data"
    folder.mkdir(parents=True)
    archive = zip_with(root / "v.zip", drawn)
    result = attempt("archives", lambda: unpack(archive, folder, verbose=0), "v.zip")
    outside = [path for path in root.rglob("*") if not path.is_relative_to(folder) and path != archive]
    assert outside == [root / "deep"]
    if isinstance(result, Refused):
        assert not list(folder.iterdir())
    else:
        contents = sorted(content for name, content, _ in drawn if not name.endswith("/"))
        assert sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file()) == contents


# ---- downloads


def test_photos_from_a_server_have_a_time_limit_and_whole_length(server, monkeypatch):  # noqa: F811
    picture = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), (1, 2, 3)).save(picture, "PNG")
    server.data, server.announced = picture.getvalue(), len(picture.getvalue())
    photos = Dataset()
    photos.add_image("web", "one", server.url)
    assert (photos.load_image(0) == (1, 2, 3)).all()
    monkeypatch.setattr("mrcnn.data.dataset.TIMEOUT", 0.3)
    server.cut, server.stall = 20, True
    with pytest.raises(ValueError, match=r"image 'one' of source 'web' \(http.*TimeoutError"):
        photos.load_image(0)
    server.stall = False
    with pytest.raises(ValueError, match=r"image 'one' of source 'web' \(http.*IncompleteRead"):
        photos.load_image(0)


def test_photos_from_a_server_have_a_largest_size_and_a_slowest_speed(server, monkeypatch):  # noqa: F811
    photos = Dataset()
    photos.add_image("web", "one", server.url)
    monkeypatch.setattr("mrcnn.data.dataset.LARGEST", 1_000_000)
    for announced in (len(server.data), None, 10**15):
        server.announced = announced
        with pytest.raises(ValueError, match=r"image 'one' of source 'web' \(http.*more than 1,000,000 bytes"):
            photos.load_image(0)
    server.announced, server.drip = len(server.data), 1000
    monkeypatch.setattr("mrcnn.data.dataset.LARGEST", 2_000_000)
    monkeypatch.setattr("mrcnn.data.transfers.WINDOW", 0.5)
    with pytest.raises(ValueError, match=r"image 'one' of source 'web' \(http.*too slow"):
        photos.load_image(0)


def test_names_in_annotation_files_are_never_fetched(server, tmp_path):  # noqa: F811
    from coco_folders import annotation, load, make_folder

    folder = make_folder(tmp_path, [annotation(1)], sizes=((30, 20),))
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("000000000001.png", server.url))
    with pytest.raises((ValueError, FileNotFoundError), match="image 1 of source 'coco'"):
        load(folder).load_image(0)
    assert not server.requests


# ---- paths are taken as they are

ODD = "a $(touch x) ; *?[b] %s {} ~ 'q' \"d\" #&|> -é%20"


@posix_only
@pytest.mark.parametrize("name", [ODD, "~", "-rf", "$HOME", "%2e%2e", "file:x", "a\nb", "http:", "pipe:0"])
def test_paths_are_used_as_they_are(tmp_path, monkeypatch, name):
    """A folder and files of this name: nothing is expanded, decoded or taken for an option."""
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    folder.mkdir()
    model = weight_files.small_model()
    save_weights(model, f"{name}/{name}.h5")
    load_weights(model, f"{name}/{name}.h5", verbose=0)
    unpack(zip_with(Path("v.zip"), [("image.png", _png(), 0)]), name, verbose=0)
    os.rename(folder / "image.png", folder / f"{name}.png")
    photos = Dataset()
    photos.add_image("mine", 1, f"{name}/{name}.png")
    assert photos.load_image(0).shape == (6, 8, 3)
    balloon = scripts.load_script(ROOT / "samples" / "balloon", "balloon")
    with contextlib.redirect_stdout(io.StringIO()):
        saved = balloon.save_pictures(lambda image: image, "splash", f"{name}/{name}.png", None, name)
    assert Path(saved).parent == folder
    os.remove(saved)
    assert sorted(os.listdir()) == sorted([name, "v.zip"])
    assert sorted(os.listdir(name)) == sorted([f"{name}.h5", f"{name}.png"])


def _png():
    content = io.BytesIO()
    PIL.Image.new("RGB", (8, 6)).save(content, "PNG")
    return content.getvalue()


def write_video(path, frames=3, **options):
    """A video of black frames; `options` are those of `av.open`."""
    av = pytest.importorskip("av")
    with av.open(path, "w", **options) as target:
        stream = target.add_stream("libx264", rate=5)
        stream.width = stream.height = 32
        for _ in range(frames):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        target.mux(stream.encode())


@posix_only
@pytest.mark.parametrize("name", ["pipe:0", "http:x.mp4", "a:b.mp4", "concat:a|b.mp4", "%03d.mp4", "subfile,,:x.mp4"])
def test_videos_are_opened_by_their_path_alone(tmp_path, monkeypatch, name):
    """FFmpeg takes what stands before a colon for a protocol."""
    from mrcnn.engine import video

    monkeypatch.chdir(tmp_path)
    write_video("plain.mp4")
    os.rename("plain.mp4", name)
    video.check_video(name)
    assert video.map_frames(name, f"out-{name}", lambda frame: frame, verbose=0) == 3
    assert sorted(os.listdir()) == sorted([name, f"out-{name}"])


def test_a_playlist_fetches_nothing(server, tmp_path):  # noqa: F811
    """What looks like a video may be a list of addresses to fetch."""
    pytest.importorskip("av")
    from mrcnn.engine import video

    (tmp_path / "film.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{server.url}.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match=r"film\.m3u8 cannot be read as a video"):
        video.map_frames(tmp_path / "film.m3u8", tmp_path / "out.mp4", lambda frame: frame, verbose=0)
    assert not server.requests and sorted(os.listdir(tmp_path)) == ["film.m3u8"]


def test_a_playlist_opens_plain_files_only(tmp_path, monkeypatch):
    """Of FFmpeg's protocols none but files, be it one that a playlist may use by itself, such as that of a cipher."""
    av = pytest.importorskip("av")
    from mrcnn.engine import video

    monkeypatch.chdir(tmp_path)
    Path("key.ts").write_bytes(bytes(16))
    Path("info").write_text("key.ts\nkey.ts\n")  # the key's address, and its path
    write_video("film.m3u8", 20, format="hls", options={"hls_key_info_file": "info"})
    with av.open("file:film.m3u8") as film:
        assert len(list(film.decode(film.streams.video[0]))) == 20, "FFmpeg itself follows it"
    with pytest.raises(ValueError, match=r"film\.m3u8 cannot be read as a video"):
        video.map_frames("film.m3u8", "out.mp4", lambda frame: frame, verbose=0)
    assert not Path("out.mp4").exists()


def test_addresses_are_asked_for_as_they_are(server):  # noqa: F811
    """What is escaped in an address stays so on its way to the server, and its last part names no other folder."""
    asked = []

    class Handler(server.RequestHandlerClass):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

    server.RequestHandlerClass = Handler
    from mrcnn.engine.pictures import _local_copy

    for path in ("/a%20b;c=1?x=$(y)&z=%2e%2e", "/..%2f..%2fevil", "/dir/"):
        with contextlib.suppress(ConnectionError), _local_copy(f"http://127.0.0.1:{server.server_port}{path}") as copy:
            assert Path(copy).read_bytes() == server.data
    assert asked == ["/a%20b;c=1?x=$(y)&z=%2e%2e", "/..%2f..%2fevil", "/dir/"]

"""ImageNet weights: the right file for the backbone, checked, from a server on this machine."""

import hashlib
import http.server
import os
import threading
import time
from pathlib import Path

import keras
import pytest
from test_downloads import DATA, server  # noqa: F401 a fixture

from mrcnn.engine import imagenet
from mrcnn.engine.imagenet import applications_name, imagenet_weights


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder that a local server offers in place of the real addresses."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("MRCNN_IMAGENET_URL", f"http://127.0.0.1:{made.server_port}/")
    yield folder
    made.shutdown()
    made.server_close()


NAMES = {backbone: f"{backbone}_weights_tf_dim_ordering_tf_kernels_notop.h5" for backbone in ("resnet50", "resnet101")}


@pytest.fixture
def known(monkeypatch):
    """The bytes that pass for the weights of ResNet-50."""
    monkeypatch.setattr(imagenet, "RESNET50_MD5", hashlib.md5(DATA).hexdigest())
    return DATA


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_downloads_once_into_the_cache_of_keras(tmp_path, mirror, known, capsys):
    (mirror / NAMES["resnet50"]).write_bytes(known)
    path = imagenet_weights("resnet50", cache_dir=str(tmp_path))
    assert path == str(tmp_path / "models" / NAMES["resnet50"]) and Path(path).read_bytes() == known
    assert "Downloading http://127.0.0.1:" in capsys.readouterr().out
    (mirror / NAMES["resnet50"]).unlink()
    assert imagenet_weights("resnet50", cache_dir=str(tmp_path)) == path
    assert listing(tmp_path / "models") == [NAMES["resnet50"]] and not capsys.readouterr().out


def test_takes_what_keras_has_fetched(tmp_path, mirror, known):
    (mirror / NAMES["resnet50"]).write_bytes(known)
    address = f"{os.environ['MRCNN_IMAGENET_URL']}{NAMES['resnet50']}"
    path = keras.utils.get_file(NAMES["resnet50"], address, cache_subdir="models", cache_dir=str(tmp_path))
    (mirror / NAMES["resnet50"]).unlink()
    assert imagenet_weights("resnet50", cache_dir=str(tmp_path)) == path


def test_the_home_of_keras_is_where_keras_has_it(tmp_path, run_python):
    """In a process of its own, as Keras reads its variable when it is imported."""
    ask = ("import keras\nfrom mrcnn.engine import imagenet\nasked = []\n"
           "imagenet._fetch = lambda url, path, *_: asked.append(str(path))\n"
           "imagenet.imagenet_weights('resnet50')\n"
           "print(asked == [keras.utils.get_file('resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5', "
           "'file:///dev/null', cache_subdir='models')], asked)")
    for variable in ("KERAS_HOME", "HOME"):
        code = f"import os, pathlib\nhome = {str(tmp_path / variable)!r}\nos.environ[{variable!r}] = home\n"
        said = run_python(code + "pathlib.Path(home).mkdir()\n" + ask)
        assert "True" in said and str(tmp_path / variable) in said, said


def test_a_folder_that_cannot_be_written_to_is_left_for_another(tmp_path, monkeypatch, mirror, known):
    monkeypatch.setattr(imagenet, "_cache_folders", lambda given: [tmp_path / "file" / "models", tmp_path / "other"])
    (tmp_path / "file").touch()
    (mirror / NAMES["resnet50"]).write_bytes(known)
    assert imagenet_weights("resnet50") == str(tmp_path / "other" / NAMES["resnet50"])


def test_resnet50_has_the_hash_of_its_release():
    assert imagenet._resnet50() == (
        "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/", NAMES["resnet50"],
        "a268eb855778b3df3c7506639542a6af")  # fmt: skip


def test_resnet101_takes_address_and_hash_of_keras():
    folder, name, md5 = imagenet._resnet101()
    assert folder.startswith("https://") and name == NAMES["resnet101"]
    assert len(md5) == 32 and md5 != imagenet.RESNET50_MD5


@pytest.mark.parametrize("backbone", NAMES)
@pytest.mark.parametrize("before", [None, b"cut off"])
def test_another_file_is_refused(tmp_path, mirror, capsys, backbone, before):
    """It gets no good name, and does not take the place of what was there."""
    (mirror / NAMES[backbone]).write_bytes(b"something else")
    models = tmp_path / "models"
    models.mkdir()
    if before:
        (models / NAMES[backbone]).write_bytes(before)
    found = hashlib.md5(b"something else").hexdigest()
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"127.*{NAMES[backbone]} is not the expected file: its MD5 is {found}"):
            imagenet_weights(backbone, cache_dir=str(tmp_path))
    assert listing(models) == ([NAMES[backbone]] if before else [])
    assert ("is fetched again" in capsys.readouterr().out) == bool(before)


def test_a_file_that_was_cut_off_is_fetched_again(tmp_path, mirror, known):
    (mirror / NAMES["resnet50"]).write_bytes(known)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / NAMES["resnet50"]).write_bytes(known[:1000])
    assert Path(imagenet_weights("resnet50", cache_dir=str(tmp_path))).read_bytes() == known


def test_server_without_the_file_is_named(tmp_path, mirror):
    with pytest.raises(ConnectionError, match=r"Cannot fetch.*resnet50.*127\.0\.0\.1.*404.*MRCNN_IMAGENET_URL"):
        imagenet_weights("resnet50", cache_dir=str(tmp_path))


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch, server, known):  # noqa: F811
    """The file has no good name until it is whole, and the next attempt goes on where this one ended."""
    monkeypatch.setenv("MRCNN_IMAGENET_URL", server.url)
    monkeypatch.setattr(imagenet, "TIMEOUT", 0.3)
    server.cut, server.stall = 1000, True
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match=r"Cannot fetch.*resnet50.*127\.0\.0\.1.*timed out"):
        imagenet_weights("resnet50", cache_dir=str(tmp_path))
    assert time.monotonic() - begin < 5 and len(server.requests) == 1
    assert NAMES["resnet50"] not in listing(tmp_path / "models")
    server.cut, server.stall = None, False
    assert Path(imagenet_weights("resnet50", cache_dir=str(tmp_path))).read_bytes() == known
    assert server.requests[1]["Range"] == "bytes=1000-"


def test_processes_that_fetch_together_keep_apart(tmp_path, monkeypatch, server, known):  # noqa: F811
    """Each of them appends to a part of its own."""
    monkeypatch.setenv("MRCNN_IMAGENET_URL", server.url)
    numbers = {}
    monkeypatch.setattr(imagenet.processes, "index", lambda: numbers[threading.get_ident()])
    server.drip, paths = 100, []

    def fetch(number):
        numbers[threading.get_ident()] = number
        paths.append(imagenet_weights("resnet50", cache_dir=str(tmp_path)))

    together = [threading.Thread(target=fetch, args=(number,)) for number in range(3)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert len(server.requests) == len(paths) == 3 and len(set(paths)) == 1
    assert Path(paths[0]).read_bytes() == known and listing(tmp_path / "models") == [NAMES["resnet50"]]


@pytest.mark.parametrize("backbone", ["resnet18", None, len])
def test_other_backbones_are_refused(backbone):
    with pytest.raises(ValueError, match="'resnet50' and 'resnet101'"):
        imagenet_weights(backbone)


@pytest.mark.parametrize("theirs, ours", [
    ("conv1_conv", "conv1"), ("conv1_bn", "bn_conv1"), ("conv2_block1_0_conv", "res2a_branch1"),
    ("conv2_block1_0_bn", "bn2a_branch1"), ("conv4_block23_3_conv", "res4w_branch2c"),
    ("conv5_block3_2_bn", "bn5c_branch2b"), ("res4b_branch2a", "res4b_branch2a"),
    ("conv2_block1_out", "conv2_block1_out")])
def test_names_of_keras_applications(theirs, ours):
    assert applications_name(theirs) == ours


def test_every_layer_of_keras_applications_has_a_name_of_the_original():
    model = keras.applications.ResNet50(weights=None, include_top=False)
    weighted = [layer.name for layer in model.layers if layer.weights]
    names = {applications_name(name) for name in weighted}
    assert len(weighted) == len(names) == 106
    assert all(name.startswith(("res", "bn", "conv1")) for name in names)

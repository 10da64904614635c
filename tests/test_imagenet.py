"""ImageNet weights: the right file for the backbone, checked, from a server on this machine."""

import hashlib
import http.server
import socket
import threading
import time

import keras
import pytest
from test_downloads import server  # noqa: F401 a fixture

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


def test_downloads_once_into_the_cache_of_keras(tmp_path, monkeypatch, mirror):
    monkeypatch.setattr(imagenet, "RESNET50_MD5", hashlib.md5(b"weights").hexdigest())
    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    (mirror / name).write_bytes(b"weights")
    path = imagenet_weights("resnet50", cache_dir=str(tmp_path))
    assert path == str(tmp_path / "models" / name)
    (mirror / name).unlink()
    assert imagenet_weights("resnet50", cache_dir=str(tmp_path)) == path


def test_resnet101_takes_address_and_hash_of_keras(tmp_path, mirror):
    folder, name, md5 = imagenet._resnet101()
    assert folder.startswith("https://") and len(md5) == 32 and md5 != imagenet.RESNET50_MD5
    (mirror / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the expected file"):
        imagenet_weights("resnet101", cache_dir=str(tmp_path))


def test_server_without_the_file_is_named(tmp_path, mirror):
    with pytest.raises(ConnectionError, match=r"Cannot fetch.*resnet50.*127\.0\.0\.1.*404.*MRCNN_IMAGENET_URL"):
        imagenet_weights("resnet50", cache_dir=str(tmp_path))


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch, server):  # noqa: F811
    monkeypatch.setenv("MRCNN_IMAGENET_URL", server.url)
    monkeypatch.setattr(imagenet, "TIMEOUT", 0.3)
    server.cut, server.stall = 1000, True
    begin, limit = time.monotonic(), socket.getdefaulttimeout()
    with pytest.raises(ConnectionError, match=r"Cannot fetch.*resnet50.*127\.0\.0\.1.*timed out"):
        imagenet_weights("resnet50", cache_dir=str(tmp_path))
    assert time.monotonic() - begin < 5 and len(server.requests) == 1
    assert socket.getdefaulttimeout() == limit, "other connections of the program have theirs again"


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

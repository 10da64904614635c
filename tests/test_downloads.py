"""Downloads from a server on this machine that cuts off, stalls, lies and changes its file."""

import contextlib
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time

import pytest

from mrcnn.data import transfers
from mrcnn.engine import downloads
from mrcnn.engine.downloads import download

DATA = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Offers `server.data`; the attributes of the server say how it behaves."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if server.status != 200:
            return self.send_error(server.status)
        tag = f'"{hashlib.md5(server.data).hexdigest()}"'
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = 0
        if match and server.ranges and self.headers.get("If-Range") == tag:
            start = int(match.group(1))
            if start >= len(server.data):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + server.shift}-{len(server.data) - 1}/{len(server.data)}")
        else:
            self.send_response(200)
        if server.announced is not None:
            told = server.announced if isinstance(server.announced, str) else server.announced - start
            self.send_header("Content-Length", str(told))
        if server.tagged:
            self.send_header("ETag", tag)
        self.send_header("Connection", "close")
        self.end_headers()
        stop = len(server.data) if server.cut is None else server.cut
        if drip := getattr(server, "drip", 0):
            for at in range(start, min(stop, start + drip), 10):  # ten bytes at a time, 25 times a second
                with contextlib.suppress(OSError):  # who reads has gone
                    self.wfile.write(server.data[at : at + 10])
                if server.released.wait(0.04):
                    return
            start += drip
        self.wfile.write(server.data[start:stop])
        if server.stall:
            self.wfile.flush()
            server.released.wait(10)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.data, made.announced, made.status, made.requests = DATA, len(DATA), 200, []
    made.ranges, made.tagged, made.shift, made.cut, made.stall = True, True, 0, None, False
    made.drip = 0  # bytes that come slowly, before the others
    made.released = threading.Event()
    made.url = f"http://127.0.0.1:{made.server_port}/mask_rcnn_coco.h5"
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mask_rcnn_coco.h5"


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def cut_off(server, path, at=300_000):
    """A first attempt that ends in the middle."""
    server.cut = at
    with pytest.raises(ConnectionError, match=rf"broke off after {at:,} of {len(DATA):,} bytes.*goes on from there"):
        download(server.url, path, verbose=0)
    server.cut = None
    assert not path.exists() and path.with_name(path.name + ".part").stat().st_size == at


@pytest.mark.parametrize("verbose", [0, 1])
def test_fetches_the_file(server, path, capsys, verbose):
    seen = []
    download(server.url, str(path), len(DATA), check=lambda part: seen.append(part) or True, verbose=verbose)
    assert path.read_bytes() == DATA and names(path) == [path.name] and len(seen) == 1
    assert ("mask_rcnn_coco.h5" in capsys.readouterr().out) == bool(verbose)


def test_goes_on_where_it_was_cut_off(server, path):
    cut_off(server, path)
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA and names(path) == [path.name]
    assert server.requests[1]["Range"] == "bytes=300000-" and "If-Range" in server.requests[1]


def test_starts_again_without_ranges(server, path):
    cut_off(server, path)
    server.ranges = False
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA and "Range" in server.requests[1]


def test_starts_again_when_the_file_changed(server, path):
    cut_off(server, path)
    server.data = DATA[::-1]
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA[::-1]


def test_starts_again_when_the_answer_begins_elsewhere(server, path):
    cut_off(server, path)
    server.shift = 5
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA and len(server.requests) == 3


def test_starts_again_when_the_part_is_too_long(server, path):
    cut_off(server, path)
    with path.with_name(path.name + ".part").open("ab") as part:
        part.write(bytes(len(DATA)))
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA


def test_part_of_another_address_or_unknown_version_is_not_used(server, path):
    cut_off(server, path)
    download(server.url + "?other", path, verbose=0)
    assert path.read_bytes() == DATA and "Range" not in server.requests[1]
    server.tagged = False
    cut_off(server, path.with_name("second.h5"))
    download(server.url, path.with_name("second.h5"), verbose=0)
    assert path.with_name("second.h5").read_bytes() == DATA and "Range" not in server.requests[3]


def test_complete_part_only_gets_its_name(server, path):
    path.with_name(path.name + ".part").write_bytes(DATA)
    path.with_name(path.name + ".part.json").write_text(json.dumps({"url": server.url, "length": len(DATA)}))
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA and not server.requests and names(path) == [path.name]


def test_server_that_tells_no_length(server, path):
    server.announced = None
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA
    with pytest.raises(ValueError, match="expected 7"):
        download(server.url, path, expected_length=7, verbose=0)
    assert path.read_bytes() == DATA and names(path) == [path.name]


@pytest.mark.parametrize("announced", ["abc", "-5", "1e3"])
def test_server_that_tells_a_length_that_is_none(server, path, announced):
    server.announced = announced
    path.write_bytes(b"good")
    with pytest.raises(ConnectionError, match=rf"127\.0\.0\.1.*Content-Length '{announced}', which is no number"):
        download(server.url, path, verbose=0)
    assert path.read_bytes() == b"good" and names(path) == [path.name]


@pytest.mark.parametrize("url, says", [
    ("bar", "unknown url type"), ("http://[bad/x", "Invalid IPv6 URL"), ("http://127.0.0.1/\u00fc", "ascii"),
    (5, "unknown url type"),
])  # fmt: skip
def test_what_is_no_address(path, url, says):
    with pytest.raises(ValueError, match=rf"url = {re.escape(repr(url))} cannot be asked for \(.*{says}.*http://"):
        download(url, path, verbose=0)
    assert names(path) == []


def test_other_length_than_expected(server, path):
    with pytest.raises(ValueError, match=r"has 1,024,000 bytes, expected 1,000\. Nothing was fetched"):
        download(server.url, path, expected_length=1000, verbose=0)
    assert names(path) == []


def test_file_that_fails_its_check_does_not_replace_a_good_one(server, path):
    path.write_bytes(b"good")
    with pytest.raises(ValueError, match=r"not a file of the expected kind.*was not touched"):
        download(server.url, path, check=lambda part: False, verbose=0)

    def refuse(part):
        raise KeyError("no layers")

    with pytest.raises(KeyError, match="no layers"):
        download(server.url, path, check=refuse, verbose=0)
    assert path.read_bytes() == b"good" and names(path) == [path.name]


@pytest.mark.parametrize("status, says", [(404, "404 Not Found"), (503, "503 Service Unavailable"), (416, "ranges")])
def test_refusing_server(server, path, status, says):
    path.write_bytes(b"good")
    server.status = status
    with pytest.raises(ConnectionError, match=says):
        download(server.url, path, verbose=0)
    assert path.read_bytes() == b"good" and names(path) == [path.name]


def test_error_keeps_the_part_for_the_next_attempt(server, path):
    cut_off(server, path)
    server.status = 503
    with pytest.raises(ConnectionError, match="503"):
        download(server.url, path, verbose=0)
    server.status = 200
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA and server.requests[2]["Range"] == "bytes=300000-"


def test_stalled_server_times_out(server, path):
    server.cut, server.stall = 1000, True
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match=r"broke off after 1,000 of .*timed out"):
        download(server.url, path, verbose=0, timeout=0.3)
    assert time.monotonic() - begin < 5
    server.cut, server.stall = None, False
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA


def test_a_server_that_drips_is_given_up(server, path, monkeypatch):
    """It is never silent, and would take two days for COCO's weights."""
    monkeypatch.setattr(transfers, "WINDOW", 0.5)
    server.drip = 1000
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match=r"broke off after [1-9]\d* of .*too slow: \d+ bytes in \d.*Try again"):
        download(server.url, path, verbose=0)
    assert time.monotonic() - begin < 3
    server.drip = 0
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA


def test_a_server_that_hesitates_is_waited_for(server, path, monkeypatch):
    monkeypatch.setattr(transfers, "WINDOW", 0.5)
    monkeypatch.setattr(transfers, "SLOWEST", 20)
    server.drip = 500
    download(server.url, path, verbose=0)
    assert path.read_bytes() == DATA


def test_unreachable_server_and_missing_folder(server, path):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"Cannot reach http://127\.0\.0\.1.*refused"):
        download(url, path, verbose=0)
    with pytest.raises(ConnectionError, match="Cannot reach"):
        download("http://name.invalid/x", path, verbose=0)
    with pytest.raises(FileNotFoundError, match="create it first"):
        download(url, path.parent / "no" / "x.h5", verbose=0)


def test_full_disk_keeps_what_arrived(server, path, monkeypatch):
    cut_off(server, path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads.os, "fsync", full)
    with pytest.raises(OSError, match=r"Cannot write .*\.part: No space left on device") as caught:
        download(server.url, path, verbose=0)
    assert caught.value.errno == 28 and path.with_name(path.name + ".part").exists()


def test_file_address(tmp_path, path):
    (tmp_path / "source.bin").write_bytes(DATA)
    download((tmp_path / "source.bin").as_uri(), path, expected_length=len(DATA), verbose=0)
    assert path.read_bytes() == DATA


def test_needs_no_keras():
    code = "import sys, mrcnn.engine.downloads, mrcnn.engine.h5_layout; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=re.sub(r"[/\\]mrcnn[/\\]engine[/\\]downloads\.py$", "", downloads.__file__))
    assert done.stdout.strip() == "False"

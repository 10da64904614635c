"""A download and an unpacking that are killed at any moment go on, and end with the files of a calm one."""

import io
import random
import signal
import threading
import time
import zipfile
from collections import Counter
from http.server import ThreadingHTTPServer

import killing
import numpy as np
import pytest
from reliability import keep_beside
from test_downloads import Handler

SIGNALS = signal.SIGKILL, signal.SIGTERM
FILES = {f"train/{n:02}.jpg": np.random.default_rng(n).bytes(60_000 + n) for n in range(24)}
PIECES = 20  # in which the server sends the archive
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")


class SlowHandler(Handler):
    """Takes its time: some 0.2 s for the archive."""

    def handle_one_request(self):
        connection, self.wfile = self.wfile, self
        self._connection = connection
        try:
            super().handle_one_request()
        except OSError:  # the other side has been killed
            self.close_connection = True
        finally:
            self.wfile = connection

    def write(self, data):
        size = max(len(data) // PIECES, 1000)
        for start in range(0, len(data), size):
            self._connection.write(data[start : start + size])
            time.sleep(0.01 if len(data) > 1000 else 0)

    def flush(self):
        self._connection.flush()


@pytest.fixture
def server():
    """A server of an archive of `FILES`."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    made = ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler)
    made.data, made.status, made.requests = memory.getvalue(), 200, []
    made.announced = len(made.data)
    made.ranges, made.tagged, made.shift, made.cut, made.stall = True, True, 0, None, False
    made.url = f"http://127.0.0.1:{made.server_port}/photos.zip"
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_only_whole_files(folder, archive):
    """What has the name of a file of the archive, or of the archive, is whole."""
    found = {name: content for name, content in contents(folder).items() if not name.endswith((".part", ".part.json"))}
    assert found.items() <= (FILES | {"photos.zip": archive}).items()


def until_part_has(path, size, process):
    """Waits until a download has so many bytes, or is over."""
    while process.exitcode is None and not (path.exists() and path.stat().st_size > size):
        time.sleep(0.005)


def kill_and_resume(server, folder, kills, seed):
    """Kills one fetch after another; what each leaves is looked at, and the last one is left in peace.

    Returns:
        list of str, where the kills came.
    """
    draw, places, count = random.Random(seed), [], 0
    folder.mkdir()
    while len(places) < kills:
        target = folder / "photos"
        ends_by, count = draw.choice(SIGNALS), count + 1
        aim = draw.choice([None, *((name, draw.randint(1, 3)) for name in killing.FETCH_AIMS)])
        log = folder / f"log{count}.txt"
        process = killing.start(killing.fetch, server.url, str(target), aim, ends_by, log=log)
        if aim is None:
            until_part_has(target / "photos.zip.part", draw.uniform(0, 1) * len(server.data), process)
            process.join(draw.choice((0, draw.uniform(0, 0.2))))
            (process.kill if ends_by == signal.SIGKILL else process.terminate)()
        process.join(60)
        assert process.exitcode in (0, -ends_by), log.read_text()
        if process.exitcode:
            places.append(f"{ends_by.name}, {aim[0] if aim else 'a random moment'}")
            if target.exists():
                assert_only_whole_files(target, server.data)
        else:  # it was done before it could be killed: the next one starts from nothing
            assert contents(target) == FILES
            target = target.rename(folder / f"done{count}")
    log = folder / "end.txt"
    process = killing.start(killing.fetch, server.url, str(folder / "photos"), log=log)
    process.join(60)
    assert process.exitcode == 0, log.read_text()
    assert contents(folder / "photos") == FILES
    return places


@pytest.mark.slow
def test_five_kills_of_a_download(server, tmp_path):
    assert len(kill_and_resume(server, tmp_path / "0", 5, seed=3)) == 5
    assert any("Range" in headers for headers in server.requests), "nothing went on where it was cut off"


@pytest.mark.long
def test_many_kills_of_a_download(server, tmp_path):
    places = [place for seed in range(12) for place in kill_and_resume(server, tmp_path / str(seed), 5, seed)]
    at_random = sum(place.endswith("a random moment") for place in places)
    keep_beside("kills", download_and_unpacking={
        "kills": len(places), "at_random_moments": at_random, "at_aims": len(places) - at_random, "downloads": 12,
        "places": Counter(places)})  # fmt: skip

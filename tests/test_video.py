"""Videos: what is written, in which size, rate and colours, and what is left when something goes wrong."""

import os
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest

from mrcnn.engine import video

av = pytest.importorskip("av")

HEIGHT, WIDTH = 48, 64


def frame_of(number, height=HEIGHT, width=WIDTH):
    """Red on the left, blue on the right, and a white bar on top that moves."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = (200, 30, 40), (30, 60, 210)
    image[:8, number * 4 : number * 4 + 8] = 255
    return image


def write(path, frames, rate=Fraction(30000, 1001), codec="libx264", times=None, format=None):
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path):
    """Frames [H, W, 3], their times, and what a browser wants to know."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        context = stream.codec_context
        facts = {"rate": stream.average_rate, "codec": context.name, "pixels": context.pix_fmt}
        return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames], facts


def test_each_frame_is_what_the_function_made_of_it(tmp_path):
    source = write(tmp_path / "in.mp4", [frame_of(n) for n in range(7)])
    target = tmp_path / "out.mp4"
    seen = []

    def mirror(image):
        seen.append(image)
        return image[:, ::-1]

    assert video.map_frames(source, target, mirror, verbose=0) == 7
    frames, times, facts = read(target)
    assert facts == {"rate": Fraction(30000, 1001), "codec": "h264", "pixels": "yuv420p"}
    assert times == pytest.approx(np.arange(7) * 1001 / 30000, abs=1e-4)
    for number, (before, after) in enumerate(zip(seen, frames, strict=True)):
        assert before.shape == after.shape == (HEIGHT, WIDTH, 3) and before.dtype == np.uint8
        assert np.abs(before.astype(int) - frame_of(number)).mean() < 8
        assert np.abs(before[:, ::-1].astype(int) - after).mean() < 6
        assert np.abs(after[30, 50].astype(int) - (200, 30, 40)).max() < 12
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # browsers start before all of it has arrived
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize(("name", "codec", "format"), [("in.avi", "mpeg4", None), ("in.h264", "libx264", "h264")])
def test_other_containers_are_read(tmp_path, name, codec, format):
    source = write(tmp_path / name, [frame_of(n) for n in range(4)], rate=25, codec=codec, format=format)
    assert video.map_frames(source, tmp_path / "out.mp4", lambda image: image, verbose=0) == 4
    _, times, facts = read(tmp_path / "out.mp4")
    assert facts["rate"] == 25 and times == pytest.approx([0, 0.04, 0.08, 0.12])


def test_uneven_times_are_kept(tmp_path):
    source = write(tmp_path / "in.mp4", [frame_of(n) for n in range(4)], times=[0, 30, 130, 200])
    video.map_frames(source, tmp_path / "out.mp4", lambda image: image, verbose=0)
    assert read(tmp_path / "out.mp4")[1] == pytest.approx([0, 0.03, 0.13, 0.2], abs=2e-3)


def test_odd_sides_grow_by_a_pixel_and_say_so(tmp_path, capsys):
    source = write(tmp_path / "in.mp4", [frame_of(n) for n in range(3)])
    video.map_frames(source, tmp_path / "out.mp4", lambda image: image[:47, :63], verbose=0)
    frames, _, _ = read(tmp_path / "out.mp4")
    assert frames[0].shape == (48, 64, 3) and np.abs(frames[0][47].astype(int) - frames[0][46]).max() < 30
    assert "grew by a pixel" in capsys.readouterr().out


def test_frames_stand_upright(tmp_path):
    """A phone held upright: a matrix in the file says that the picture is to be turned clockwise."""
    source = write(tmp_path / "in.mp4", [frame_of(n) for n in range(2)])
    content = bytearray(source.read_bytes())
    matrix = content.index(b"tkhd") + 44
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, HEIGHT * one, 0, 1 << 30)
    source.write_bytes(content)
    video.map_frames(source, tmp_path / "out.mp4", lambda image: image, verbose=0)
    frame = read(tmp_path / "out.mp4")[0][0]
    assert frame.shape == (WIDTH, HEIGHT, 3)
    assert frame[20, 20, 0] > 150 > frame[50, 20, 0] and frame[3, 44].min() > 200


def test_progress_is_shown(tmp_path, capsys):
    source = write(tmp_path / "in.mp4", [frame_of(n) for n in range(3)])
    video.map_frames(source, tmp_path / "out.mp4", lambda image: image)
    assert "3 of 3 frames" in capsys.readouterr().out


# ---- what goes wrong


def test_a_failure_or_an_interruption_leaves_the_older_file(tmp_path):
    source = write(tmp_path / "in.mp4", [frame_of(n) for n in range(3)])
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an older one")
    for problem in (KeyboardInterrupt, ValueError):
        images = []

        def interrupted(image, problem=problem, images=images):
            images.append(image)
            if len(images) == 2:
                raise problem
            return image

        with pytest.raises(problem):
            video.map_frames(source, target, interrupted, verbose=0)
    assert target.read_bytes() == b"an older one" and sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4"]


def test_what_is_no_video_is_named(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    cases = [(tmp_path / "no.mp4", FileNotFoundError, "no such video"), (text, ValueError, "cannot be read as a video"),
             (sound, ValueError, "no video in it"), (tmp_path, ValueError, "is a folder")]  # fmt: skip
    for path, error, message in cases:
        with pytest.raises(error, match=message):
            video.check_video(path)
        with pytest.raises(error, match=message):
            video.map_frames(path, tmp_path / "out.mp4", lambda image: image, verbose=0)
    assert sorted(os.listdir(tmp_path)) == ["sound.wav", "text.mp4"]


def test_a_video_without_frames_is_named(tmp_path):
    source = write(tmp_path / "in.avi", [frame_of(0)], codec="mpeg4", rate=25)
    content = source.read_bytes()
    start = content.index(b"movi") + 4
    source.write_bytes(content[:start])  # all of the head, and nothing else
    with pytest.raises(ValueError, match=r"in\.avi: the video has no frames"):
        video.map_frames(source, tmp_path / "out.mp4", lambda image: image, verbose=0)
    assert os.listdir(tmp_path) == ["in.avi"]


def test_a_video_that_breaks_off_is_used_as_far_as_it_goes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)
    whole = write(tmp_path / "whole.mp4", list(noise))
    video.map_frames(whole, tmp_path / "in.mp4", lambda image: image, verbose=0)  # its index comes first
    content = (tmp_path / "in.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"in\.mp4 is damaged: only its first \d+ of 20 frames"):
        count = video.map_frames(tmp_path / "in.mp4", tmp_path / "out.mp4", lambda image: image, verbose=0)
    assert 0 < count < 20 and len(read(tmp_path / "out.mp4")[0]) == count


def test_without_pyav_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        video.map_frames("in.mp4", tmp_path / "out.mp4", lambda image: image)

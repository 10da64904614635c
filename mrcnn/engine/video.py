"""Videos, frame by frame: read, changed by a function, and written again, through PyAV, which brings its codecs."""

import contextlib
import os
import warnings
from fractions import Fraction

import numpy as np

from mrcnn.data.files import check_file
from mrcnn.engine.progress import progress

USUAL_RATE = Fraction(25)  # frames per second where a file does not say
BT709 = 1  # how colours are coded, in the terms of the H.264 standard


def import_av():
    """The module `av`; ImportError with the remedy if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ImportError('videos need PyAV: pip install av') from error
    return av


def map_frames(source, target, function, verbose=1):
    """Writes a video in which each frame is what a function made of a frame of another video.

    The result is an MP4 (H.264, 4:2:0) that browsers play while it loads. Times and size of the frames are kept, but
    odd sides grow by a pixel, as the format demands; frames stand upright if the video says how it was held. Sound is
    left out. The file gets its name when it is whole; whatever fails before, one that was there stays as it was.

    Args:
        source: path of the video to read.
        target: path of the video to write.
        function: takes a frame [H, W, 3] uint8 and returns one of that shape.
        verbose: 0 shows no progress.

    Returns:
        int: number of frames.

    Raises:
        ValueError: `source` cannot be read as a video, or has no frames.
        ImportError: PyAV is not installed.
    """
    av = import_av()
    unfinished = f"{target}.part"
    try:
        with _open_video(av, source) as video, _Writer(av, unfinished) as writer:
            stream = video.streams.video[0]
            with progress(stream.frames or None, "Converting the video", verbose, unit="frames") as advance:
                for image, time in _frames(av, video, stream, source):
                    writer.write(function(image), time, stream)
                    advance()
        if not writer.count:
            raise ValueError(f"{source}: the video has no frames")
        os.replace(unfinished, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)
    if writer.padded:
        print(f"{target}: the frames grew by a pixel, because H.264 needs even sides")
    return writer.count


def check_video(path):
    """Raises a ValueError, FileNotFoundError or ImportError if a file cannot be opened as a video."""
    _open_video(import_av(), path).close()


def _open_video(av, source):
    check_file(source)
    try:
        # Of a path alone FFmpeg might take the beginning for a protocol, and a playlist might send it elsewhere.
        video = av.open(f"file:{os.fspath(source)}", options={"protocol_whitelist": "file"})
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}: there is no such video") from error
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{source} cannot be read as a video ({error.strerror})") from error
    if not video.streams.video:
        video.close()
        raise ValueError(f"{source}: the file has no video in it")
    return video


def _frames(av, video, stream, source):
    """Yields ([H, W, 3] uint8, seconds since the first frame) of each frame, upright and in the size of the first."""
    stream.thread_type = "AUTO"
    count, problem = 0, None
    start = time = size = None
    try:
        for count, frame in enumerate(video.decode(stream), start=1):
            size = size or (frame.width, frame.height)
            image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
            image = np.rot90(image, getattr(frame, "rotation", 0) // 90)  # degrees, counterclockwise
            now = (count - 1) / _rate(stream) if frame.pts is None else frame.pts * frame.time_base
            start = now if start is None else start
            # Times have to rise, whatever the file says.
            time = now - start if time is None or now - start > time else time + 1 / _rate(stream)
            yield np.ascontiguousarray(image), time
    except av.FFmpegError as error:
        problem = error.strerror
    if problem and not count:
        raise ValueError(f"{source} cannot be read as a video ({problem})")
    if problem or 0 < count < 0.95 * stream.frames:  # the announced number may be off by a few
        of = f" of {stream.frames}" if stream.frames else ""
        warnings.warn(f"{source} is damaged: only its first {count}{of} frames could be read", stacklevel=2)


def _rate(stream):
    """Frames per second."""
    return Fraction(stream.average_rate or stream.guessed_rate or USUAL_RATE)


class _Writer:
    """Writes frames into an MP4; its size is that of the first."""

    def __init__(self, av, path):
        self.av, self.path = av, path
        self.count, self.padded = 0, False
        self._container = self._stream = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self._container is None:
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()

    def write(self, image, time, source):
        height, width = image.shape[:2]
        if self._container is None:
            self._start(height + height % 2, width + width % 2, source)
            self.padded = bool(height % 2 or width % 2)
        if self.padded:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.time_base = self._stream.codec_context.time_base
        frame.pts = round(time / frame.time_base)
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def _start(self, height, width, source):
        options = {"movflags": "+faststart"}  # the index at the beginning, so that browsers start at once
        self._container = self.av.open(f"file:{self.path}", "w", format="mp4", options=options)
        self._stream = stream = self._container.add_stream("libx264", rate=_rate(source), options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = source.time_base or 1 / _rate(source)
        context.colorspace = context.color_primaries = context.color_trc = BT709

"""Reading what a server sends: in parts, with an end to patience."""

import time
from collections.abc import Iterator

CHUNK = 1 << 18
# A server that sends less than this over so long a time would hold a program for days. What is silent is not seen
# here: the socket has a time limit for that.
SLOWEST = 1000  # bytes a second
WINDOW = 60.0  # seconds


def chunks(answer) -> Iterator[bytes]:
    """Yields what a server sends, as it comes.

    Args:
        answer: of `urllib.request.urlopen`.

    Yields:
        bytes, until there are no more; whether that is all that was announced is left to the caller.

    Raises:
        TimeoutError: it sends too slowly, or nothing within the time limit of the connection.
    """
    begin, received = time.monotonic(), 0
    while chunk := answer.read1(CHUNK):
        yield chunk
        received += len(chunk)
        if (passed := time.monotonic() - begin) >= WINDOW:
            if received < SLOWEST * passed:
                raise TimeoutError(f"too slow: {received:,} bytes in {passed:.0f} seconds")
            begin, received = time.monotonic(), 0

"""How many cases of bad input are tried, and what may come of one: a good result, or a clear error of ours.

The environment variable MRCNN_CASES is the number of cases that all tests together try at least; each test here, and
one in test_security.py, takes a share. Up to 500 they are the same ones each time, so that a change elsewhere does not
meet bad luck; more are drawn anew. With MRCNN_CASES_REPORT the outcomes are written there as JSON when Python ends.
"""

import atexit
import collections
import faulthandler
import os
import time
import traceback
import warnings
from pathlib import Path

import hypothesis
import reliability

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = 500
TOTAL = int(os.environ.get("MRCNN_CASES") or SAMPLE)
REPORT = os.environ.get("MRCNN_CASES_REPORT")
LIMIT = 120  # seconds, after which a case counts as one that hangs: Python ends with a traceback

OUR_CODE = tuple(str(ROOT / folder) + os.sep for folder in ("mrcnn", "samples"))
EXPECTED = (ValueError, FileNotFoundError)

outcomes = collections.defaultdict(collections.Counter)
slowest = collections.defaultdict(float)


def cases(share):
    """Settings of hypothesis for a test that takes a share (0..1) of all cases."""
    return hypothesis.settings(
        max_examples=max(1, round(TOTAL * share)), deadline=None, derandomize=TOTAL <= SAMPLE,
        database=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=True,
    )  # fmt: skip


class Refused:
    """Stands for the result of an action that was refused with a good message."""

    def __init__(self, error):
        self.error = error


def attempt(kind, action, *names):
    """Runs a function: what it returns, or Refused where it raised an error as it should.

    Such an error is a ValueError or a FileNotFoundError, raised by a line of the package or of a sample (not by a
    library that was handed nonsense), and has one of the names in its message. Any other goes through, and so do the
    warnings of numpy about numbers that went wrong, which are errors here.

    Args:
        kind: str, what the case is counted under.
        action: function without arguments.
        *names: str, of which the message of an error must have one.
    """
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # ours: what was left out, clipped or scaled
            result = action()
        outcomes[kind]["worked"] += 1
        return result
    except EXPECTED as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = str(error)
        is_good = place.filename.startswith(OUR_CODE) and any(str(name) in message for name in names)
        if not is_good:
            raise AssertionError(f"{place.filename}:{place.lineno} says {type(error).__name__}: {message!r}, without "
                                 f"any of {names}") from error
        outcomes[kind]["refused"] += 1
        return Refused(error)
    finally:
        faulthandler.cancel_dump_traceback_later()
        slowest[kind] = max(slowest[kind], time.perf_counter() - begin)


def listing(folder):
    """Names of all files in a folder and below: before and after a case they must be the same."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


def write_report(path):
    """Writes what came of all cases so far."""
    kinds = {kind: {"cases": sum(counts.values()), **counts, "slowest_s": round(slowest[kind], 2)}
             for kind, counts in sorted(outcomes.items())}
    reliability.write(path, {"cases": sum(kind["cases"] for kind in kinds.values()), "kinds": kinds})


if REPORT:
    atexit.register(lambda: outcomes and write_report(ROOT / REPORT))

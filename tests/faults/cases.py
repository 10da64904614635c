"""How many cases of bad input are tried, and what may come of one: a good result, or a clear error of ours.

The environment variable MRCNN_CASES is the number that each test here, and one in test_security.py, takes a share of.
The shares add up to SHARES: 500 make 648 cases, 10,000 make 12,960. Up to 500 they are the same ones each time, so that
a change elsewhere does not meet bad luck; more are drawn anew. With MRCNN_CASES_REPORT the outcomes are written there
as JSON, if all tests of a session passed and none of these was left out.
"""

import collections
import faulthandler
import functools
import math
import os
import time
import traceback
import warnings
from pathlib import Path

import hypothesis
import reliability

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = 500
SHARES = 1.296  # of all tests; a new one, or another share, belongs into this sum
TOTAL = int(os.environ.get("MRCNN_CASES") or SAMPLE)
REPORT = os.environ.get("MRCNN_CASES_REPORT")
LIMIT = 120  # seconds, after which a case counts as one that hangs: Python ends with a traceback

OUR_CODE = tuple(str(ROOT / folder) + os.sep for folder in ("mrcnn", "samples"))
EXPECTED = (ValueError, FileNotFoundError)

outcomes = collections.defaultdict(collections.Counter)
slowest = collections.defaultdict(float)
finished = {}  # name of a test that passed -> its share
looked_at = collections.Counter()  # what the tests compared with a truth; a test that compares nothing shows nothing


def cases(share, **least):
    """Makes a test with `given` take a share (0..1) of all cases.

    Args:
        share: float.
        **least: what the test counts in `looked_at` -> how many of it, per case, there must be on average in the end.
    """
    settings = hypothesis.settings(
        max_examples=max(1, round(TOTAL * share)), deadline=None, derandomize=TOTAL <= SAMPLE,
        database=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=True,
    )  # fmt: skip

    def decorate(test):
        tried = settings(test)

        @functools.wraps(tried)
        def run(*arguments, **fixtures):
            before = looked_at.copy()
            tried(*arguments, **fixtures)
            for what, per_case in least.items() if TOTAL >= SAMPLE else ():  # a handful of cases may be unlucky
                found, wanted = looked_at[what] - before[what], per_case * settings.max_examples
                assert found >= wanted, f"{found} {what} in {settings.max_examples} cases; at least {wanted:.0f} should"
            finished[f"{test.__module__}.{test.__name__}"] = share

        return run

    return decorate


class Refused:
    """Stands for the result of an action that was refused with a good message."""

    def __init__(self, error):
        self.error = error


def attempt(kind, action, *names, begins=False):
    """Runs a function: what it returns, or Refused where it raised an error as it should.

    Such an error is a ValueError or a FileNotFoundError, raised by a line of the package or of a sample (not by a
    library that was handed nonsense), and has one of the names in its message. Any other goes through, and so do the
    warnings of numpy about numbers that went wrong, which are errors here.

    Args:
        kind: str, what the case is counted under.
        action: function without arguments.
        *names: str, of which the message of an error must have one.
        begins: bool, the message must begin with the name.
    """
    is_there = str.startswith if begins else str.__contains__
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
        is_good = place.filename.startswith(OUR_CODE) and any(is_there(message, name) for name in names)
        if not is_good:
            outcomes[kind]["other errors"] += 1
            raise AssertionError(f"{place.filename}:{place.lineno} says {type(error).__name__}: {message!r}, without "
                                 f"any of {names}") from error
        outcomes[kind]["refused"] += 1
        return Refused(error)
    except BaseException:  # a failure, unless the test knows the error, as one of the file system
        outcomes[kind]["other errors"] += 1
        raise
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


def pytest_sessionfinish(session, exitstatus):
    """Publishes the outcomes, unless tests failed or were left out; a hook of pytest, which conftest.py hands on."""
    if not REPORT or not outcomes:
        return
    shares = sum(finished.values())
    if exitstatus == 0 and math.isclose(shares, SHARES):
        write_report(ROOT / REPORT)
    else:
        errors = sum(counts["other errors"] for counts in outcomes.values())
        print(f"\nThe outcomes are not written to {REPORT}: exit status {int(exitstatus)}, {errors} other errors than "
              f"expected ones, tests of the shares {shares:.3f} passed, of all {SHARES}.")  # fmt: skip

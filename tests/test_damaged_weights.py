"""Weights files with damage that shows late: the error comes before the first variable has changed."""

import base64
import zlib

import numpy as np
import pytest
from test_weights import assert_untouched
from weight_files import content, small_model, write_keras2

from mrcnn.engine import weights
from mrcnn.engine.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path, model, value):
    saved = content(model)
    saved["mrcnn_class_logits"] |= {"mrcnn_class_logits/bias:0": np.array([1, 2, value, 3])}
    path = write_keras2(tmp_path / "w.h5", saved)
    assert_untouched(model, lambda: load_weights(model, path),
                     match=r"w\.h5: the array 'mrcnn_class_logits/bias' holds values that are no finite numbers")


def test_damage_that_shows_only_in_reading_leaves_the_model_alone(tmp_path, model):
    """The last array of the file: by then all others would have been assigned."""
    path = tmp_path / "w.h5"
    save_weights(model, path)
    with weights.read_file(path) as found:
        *_, (name, array) = [item for arrays in found.values() for item in arrays.items()]
        place = array.id.get_offset()
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    assert weights.is_whole(path)
    assert_untouched(model, lambda: load_weights(model, path),
                     match=rf"w\.h5 is damaged: the array '{name.split(':')[0]}' has changed since.*Fetch or save")


def heap_of(path):
    """(content of a file as bytearray, place of its heap, places of the heap's parts)."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"GCOL")
    end, parts = at + int.from_bytes(raw[at + 8 : at + 16], "little"), [at + 16]
    while raw[parts[-1]] or raw[parts[-1] + 1]:  # number 0 is the free space at the end
        size = int.from_bytes(raw[parts[-1] + 8 : parts[-1] + 16], "little")
        parts.append(parts[-1] + 16 + -(-size // 8) * 8)
    assert len(parts) > 10 and parts[-1] + int.from_bytes(raw[parts[-1] + 8 : parts[-1] + 16], "little") == end
    return raw, at, parts


def read_elsewhere(run_python, path):
    """What reading a file says, in another process, which ends by itself."""
    return run_python("import faulthandler\nfaulthandler.dump_traceback_later(60, exit=True)\n"
                      "from mrcnn.engine.h5_layout import read_file\n"
                      f"try:\n    with read_file({str(path)!r}): print('read')\n"
                      "except ValueError as error: print(error)")


@pytest.mark.parametrize("damage", ["no bytes", "too many bytes", "a heap beyond the file", "reserved bytes, too"])
def test_a_heap_in_which_hdf5_would_turn_in_circles_is_refused(tmp_path, model, run_python, damage):
    """Names as texts of any length lie in a heap without checksum."""
    path = write_keras2(tmp_path / "w.h5", content(model), "str")
    raw, at, parts = heap_of(path)
    assert "read" in read_elsewhere(run_python, path)
    if damage in ("no bytes", "reserved bytes, too"):
        raw[parts[5] : parts[5] + 16] = bytes(16)
        raw[at + 5] = damage != "no bytes"  # at which HDF5 does not look
    elif damage == "too many bytes":
        raw[parts[5] + 8 : parts[5] + 16] = (10**6).to_bytes(8, "little")
    else:
        raw[at + 8 : at + 16] = (10**9).to_bytes(8, "little")
    path.write_bytes(raw)
    assert "w.h5 is damaged: the attribute" in read_elsewhere(run_python, path)


def test_a_damaged_heap_within_a_whole_one_is_refused(tmp_path, model, run_python):
    """A file made on purpose: its names lie among numbers that look like a whole heap with a single part."""
    room = np.full(1036, 12345, "uint32")
    path = write_keras2(tmp_path / "w.h5", content(model) | {"room": {"room:0": room}}, "str")
    raw, at, parts = heap_of(path)
    heap = raw[at : at + 4096]
    around = b"GCOL\x01\0\0\0" + (4144).to_bytes(8, "little") + bytes([1, *[0] * 7]) + (4096).to_bytes(8, "little")
    place = raw.index(room.tobytes())
    for spot in range(4, len(raw), 8):  # each text is looked up by 4 bytes of its length, and 8 of its heap's place
        if raw[spot : spot + 8] == at.to_bytes(8, "little"):
            raw[spot : spot + 8] = (place + 32).to_bytes(8, "little")
    for is_good in (True, False):
        if not is_good:
            heap[parts[5] - at : parts[5] - at + 16] = bytes(16)
        raw[place : place + 4144] = around + heap + bytes([0] * 8 + [16] + [0] * 7)
        path.write_bytes(raw)
        assert ("read" if is_good else "w.h5 is damaged: the attribute") in read_elsewhere(run_python, path)


# A weights file of 10,896 bytes that fuzzing changed: its list of names became a list of lists, which HDF5 crashed on.
CRASHED = (
    'c-rlnyG{Z@6ozLOHf{_=NKCk>ff8-h)<%q?TNp8FL5HXtA>opU@lt7t9d<S*mOg@yVCO6NCb+vZ<Ib#H6gAQCe+fCv%wcAkIr%sH!;QJ'
    'N9v)AQ69>Z}K@uS{9Zq{rZHw`J9x0D49v?N)Pu;ON?~n5N{ds#kxtx>T@gdfE)mbzM7)8w7%C-{=ye;bKSyS_BjU%gCJhv*x<<q8Am)R'
    'lLr6i!#Z-m!xW{kBj$mi<!E{Xa@{d)B)RJNt7d54Yq*`idp<~P^f-O8^y3M}d_9Z>b!<n6MKGwO%9Z~6Bt#7~sk?<Q@PsFp6RlVZJ8vz'
    'l&yLT6_kdEaw(5|mQq97NP5k)VC_=XFZepI-Ob@(i!DRQK<-v6|ncQb8)$VRPTUy?L>Fh0KQJI-NhLl$uKm@_bJds1*PJ00000007{xG'
    '03+h85ZDMjwZc)%WP83`)%Lyf&1-ZeqnT_lQ^S(2p`bDU!HFnc703si-~7kCg|6E%a9}zn%l3lF)H%n%ICR_D#f^)8cnB2kX<Q>86<Ya'
    '$8~#hXI#@X%9djD1*o0qU4caFU+Jtl3!R0|e$?4VpKmW5_n*>PLavv+7XSbN07e1-bJnx(Icw1W2SE3IEKFlhhT#pK=9v@'
)


def test_a_file_that_crashed_hdf5_is_refused(tmp_path, run_python):
    path = tmp_path / "w.h5"
    path.write_bytes(zlib.decompress(base64.b85decode(CRASHED)))
    said = read_elsewhere(run_python, path)
    assert "w.h5 is damaged: the attribute layer_names of /model_weights is neither texts nor numbers" in said

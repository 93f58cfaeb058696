"""Pickles of arrays come back to the bit; nothing in a pickle runs, and none takes much memory."""

import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from diffpolicy.data.unpickler import ARRAYS, unpickle
from diffpolicy.errors import DiffpolicyError

ARRAY = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        ARRAY,
        np.asfortranarray(ARRAY),
        ARRAY.astype("f4")[:0],
        np.array(3.5),
        np.arange(5, dtype=np.uint8),
        np.ones(3, bool),
        np.float32(0.1),
        np.int64(-7),
    ],
)
def test_arrays_come_back_to_the_bit(value, protocol):
    [episode] = unpickle(pickle.dumps([{"x": value, "n": 1, "t": "ü"}], protocol), "it")
    assert episode["n"] == 1 and episode["t"] == "ü"
    assert (episode["x"].dtype, episode["x"].shape) == (value.dtype, value.shape)
    assert np.array_equal(episode["x"], value)


def test_names_of_both_generations_of_numpy_are_admitted():
    content = pickle.dumps(ARRAY, 3)
    for name in (b"core", b"_core"):
        assert np.array_equal(unpickle(content.replace(b"._core", b"." + name), "it"), ARRAY)
    assert {module for module, _ in ARRAYS} == {
        "numpy",
        "numpy.core.multiarray",
        "numpy._core.multiarray",
        "numpy.core.numeric",
        "numpy._core.numeric",
    }


class Plain:
    """An instance takes the opcode NEWOBJ."""


class Evil:
    """Runs a command when it is unpickled the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Evil(os.system, "touch ran"), "posix.system"),
        (Evil(eval, "open('ran', 'w')"), "builtins.eval"),
        (Evil(np.load, "x"), "numpy.load"),
        (complex, "builtins.complex"),
        (Plain(), "test_unpickler.Plain"),
        (OrderedDict(a=1), "collections.OrderedDict"),
    ],
)
def test_anything_but_arrays_is_refused_by_its_name(thing, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiffpolicyError, match=f"asks for '{name}'; only arrays are admitted"):
        unpickle(pickle.dumps([thing]), "it")
    assert not list(tmp_path.iterdir())


def test_tuples_of_a_usual_size_are_read():
    content = {(1, (2.0, "x")): [tuple(range(5000)), ((),)]}
    for protocol in range(6):
        assert unpickle(pickle.dumps([content, content], protocol), "it") == [content, content]


def memo(number: int) -> bytes:
    return b"\x80\x04Nr" + struct.pack("<I", number) + b"."


@pytest.mark.parametrize(
    "content",
    [
        memo(2**31),
        b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        pickle.dumps(Evil(np.ndarray, (2**40,))),
        pickle.dumps(np.array(["text"])),
        pickle.dumps(np.array([{}], object)),
        pickle.dumps(np.array([Evil(os.system, "exit 1")], object)),
        pickle.dumps(np.zeros(2, [("a", "f8")])),
        pickle.dumps(np.zeros(2, ">f8")),
        pickle.dumps(np.zeros(2, "M8[s]")),
        pickle.dumps(ARRAY, 4)[:-20],
        b"",
        b"not a pickle",
        b"cnumpy\nndarray\n}b.",
        b"cnumpy\ndtype\n}b.",
        b"\x80\x02cnumpy\ndtype\n)\x81.",
        b"(inumpy\nndarray\n.",
        b"\x80\x04(((((",
        b"\x80\x04})" + 10**6 * b"\x85" + b"Ns.",  # a key whose hash would exhaust the stack
        b"\x80\x04})" + 60 * b"2\x86" + b"Ns.",  # one of 2^60 values
        b"\x80\x04}" + b")" + 60 * b"\x94h\x00h\x00\x86q\x00" + b"Ns.",
        b"\x82\x01.",
    ],
)
def test_damaged_and_greedy_pickles_are_refused_in_one_line(content):
    tracemalloc.start()
    with pytest.raises(DiffpolicyError) as caught:
        unpickle(content, "it")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 2**24

"""Damaged and hostile checkpoints: right data or a `CheckpointError`, and nothing is ever run."""

import contextlib
import io
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import CheckpointError
from treadle.io import load, save
from treadle.tensor import Tensor, from_numpy

CANARY: list[object] = []


def trip(*args, **kwargs):
    """What a hostile pickle tries to reach."""
    CANARY.append((args, kwargs))
    return {}


@pytest.fixture(autouse=True)
def nothing_ran():
    CANARY.clear()
    yield
    assert not CANARY


def archive(program, byteorder=b"little", **storages):
    """A checkpoint around a pickle program."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("archive/data.pkl", program)
        target.writestr("archive/byteorder", byteorder)
        for name, data in storages.items():
            target.writestr(f"archive/data/{name.removeprefix('s')}", data)
    file.seek(0)
    return file


def refuses(file, says):
    with pytest.raises(CheckpointError, match=says) as caught:
        load(file)
    return str(caught.value)


# --- programs that ask to run something --------------------------------------------------------


class Reduces:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


class Sets:
    def __setstate__(self, state):
        trip(state)

    def __getstate__(self):
        return {"x": 1}


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HOSTILE = {
    "os.system": pickle.dumps(Reduces(os.system, ("true",)), 2),
    "eval": pickle.dumps(Reduces(eval, ("1",)), 2),
    "a function of this test": pickle.dumps(Reduces(trip, (1,)), 2),
    "nested": pickle.dumps({"w": [1, Reduces(trip, (Reduces(eval, ("1",)),))]}, 4),
    "state": pickle.dumps(Sets(), 2),
    "list items": pickle.dumps(Reduces(trip, (), None, iter([1])), 2),
    "state setter": pickle.dumps(Reduces(OrderedDict, (), {"a": 1}, None, None, trip), 4),
    "getattr": b"\x80\x02" + name("builtins", "getattr") + b".",
    "stack global": b"\x80\x04" + text("os") + text("system") + b"\x93.",
    "dotted": b"\x80\x04" + text("torch") + text("_utils.os.system") + b"\x93.",
    "inst": b"\x80\x02(ios\nsystem\n.",
    "obj": b"\x80\x02(" + name("torch", "Size") + b"o.",
    "newobj": b"\x80\x02" + name("collections", "OrderedDict") + b")\x81.",
    "newobj_ex": b"\x80\x04" + name("collections", "OrderedDict") + b")}\x92.",
    "extension": b"\x80\x02\x82\x01.",
    "call of text": b"\x80\x02" + text("os.system") + b")R.",
    "call of a tuple that looks like a name": b"\x80\x02"
    + text("torch") + text("Size") + b"\x86)\x85R.",
    "call of a list": b"\x80\x02])R.",
    "call with no tuple": b"\x80\x02" + name("torch", "Size") + b"]R.",
    "attributes of a list": b"\x80\x02]}b.",
    "attributes of a dict": b"\x80\x02}}b.",
    "attributes of an OrderedDict": b"\x80\x02" + name("collections", "OrderedDict")
    + b")R}" + text("items") + b"Nsb.",
    "state of two parts": b"\x80\x02" + name("collections", "OrderedDict") + b")RN}\x86b.",
}  # fmt: skip


@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE)
def test_a_program_that_asks_to_run_something_is_refused(program):
    says = refuses(archive(program), "nothing was run")
    assert "the file object" in says


def test_the_refusal_names_what_was_asked_for(tmp_path):
    path = tmp_path / "evil.pt"
    path.write_bytes(archive(HOSTILE["os.system"]).read())
    says = refuses(path, r"posix\.system|nt\.system|os\.system")
    assert "evil.pt" in says
    with pytest.raises(CheckpointError, match="nothing was run"):
        load(path, weights_only=False)


# --- programs that are wrong -----------------------------------------------------------------

STORAGE = text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu")
HOOKS = name("collections", "OrderedDict") + b")R"


def number(value):
    return b"\x8a\x09" + int(value).to_bytes(9, "little", signed=True)


def tensor(total=4, offset=0, shape=(4,), strides=(1,), grad=b"\x89", storage=STORAGE, end=b""):
    """The program of a tensor on a storage of four float32."""

    def tuple_of(numbers):
        return b"(" + b"".join(n if isinstance(n, bytes) else number(n) for n in numbers) + b"t"

    return (
        name("torch._utils", "_rebuild_tensor_v2") + b"((" + storage + number(total) + b"tQ"
        + number(offset) + tuple_of(shape) + tuple_of(strides) + grad + HOOKS + end + b"tR"
    )  # fmt: skip


def call(what, args):
    return name(*what) + args + b"R"


LONG = text("storage") + name("torch", "LongStorage") + text("0") + text("cpu")
META = text("storage") + name("torch", "FloatStorage") + text("../data.pkl") + text("cpu")
BOMB = text("x" * 10_000) + b"q\x00" + b"0](" + (
    name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 10_000 + b"e"  # fmt: skip
COPIES = b"](" + tensor(shape=(2,), strides=(3,)) * 1000 + b"e"

WRONG = {
    "nothing": (b"", "cut short"),
    "no end": (b"N", "cut short"),
    "empty stack": (b".", "cut short"),
    "unknown instruction": (b"\xff.", "unknown instruction"),
    "text instruction": (b"I1\n.", "unknown instruction"),
    "unknown protocol": (b"\x80\x63N.", "protocol 99"),
    "memo without entry": (b"h\x05.", "has not kept"),
    "negative length": (b"\x8b\xff\xff\xff\xffN.", "claims"),
    "huge text": (b"X\xff\xff\xff\xffabc.", "claims"),
    "huge bytes": (b"\x8e" + b"\xff" * 8 + b".", "claims"),
    "huge bytearray": (b"\x96" + b"\xff" * 7 + b"\x7f.", "claims"),
    "no utf-8": (b"X\x01\x00\x00\x00\xff.", "damaged"),
    "endless name": (b"ctorch", "cut short"),
    "no mark": (b"t.", "cut short"),
    "odd items": (b"}(Nu.", "without a value"),
    "append to a dict": (b"}Na.", "as if it were a container"),
    "items of a list": (b"]NNs.", "as if it were a container"),
    "set items of a list": (b"](N\x90.", "as if it were a container"),
    "unhashable key": (b"}]Ns.", "as a dictionary key"),
    "unhashable in a set": (b"\x8f(]\x90.", "as a dictionary key"),
    "unhashable in a frozenset": (b"(]\x91.", "as a dictionary key"),
    "tuples without bound as key": (b"})" + b"2\x86" * 64 + b"Ns.", "as a dictionary key"),
    "deep tuple as key": (b"})" + b"\x85" * 100_000 + b"Ns.", "as a dictionary key"),
    "global of numbers": (b"K\x01K\x02\x93.", "no text"),
    "bare constructor": (name("torch", "Size") + b".", "neither a tensor nor plain data"),
    "bare storage": (b"(" + STORAGE + number(4) + b"tQ.", "neither a tensor nor plain data"),
    "call of a storage": (call(("torch", "FloatStorage"), b")"), "takes no arguments"),
    "persistent text": (text("0") + b"Q.", "no storage"),
    "persistent module": (b"(" + text("module") + b"tQ.", "no storage"),
    "storage of another record": (tensor(storage=META), "is missing"),
    "storage of no type": (tensor(storage=text("storage") + text("torch") * 3), "no storage"),
    "wrong size": (tensor(total=5), "16 bytes, not the 5 elements"),
    "negative size": (tensor(total=-1), "no storage"),
    "absurd size": (tensor(total=1 << 62), "elements"),
    "two types": (b"](" + tensor() + tensor(storage=LONG, total=2) + b"e", "two different"),
    "offset": (tensor(offset=1), "reaches element 4 of a storage of 4"),
    "negative offset": (tensor(offset=-1), "non-negative"),
    "shape": (tensor(shape=(5,)), "reaches element 4"),
    "negative shape": (tensor(shape=(-1,)), "non-negative"),
    "stride": (tensor(strides=(2,)), "reaches element 6"),
    "negative stride": (tensor(offset=3, strides=(-1,)), "non-negative"),
    "lengths": (tensor(shape=(2, 2)), "differ in length"),
    "overlapping": (tensor(shape=(3, 3), strides=(0, 1), total=4), None),
    "overlapping windows": (tensor(shape=(2, 2, 2), strides=(1, 1, 1)), "overlap"),
    "shape of text": (tensor(shape=(text("4"),)), "non-negative"),
    "many dimensions": (tensor(shape=(1,) * 100, strides=(1,) * 100), "100 dimensions"),
    "uncountable": (tensor(shape=(1 << 40, 1 << 40), strides=(0, 0)), "more elements"),
    "empty but absurd": (tensor(shape=(0, 1 << 62), strides=(1, 1)), None),
    "gradient of integers": (
        tensor(storage=LONG, total=2, shape=(2,), grad=b"\x88"), "asks for a gradient"),
    "hooks": (tensor().replace(HOOKS, HOOKS + text("a") + b"Ns"), "hooks"),
    "bits": (tensor(end=b"}" + text("neg") + b"\x88s"), "bits"),
    "no storage": (call(("torch._utils", "_rebuild_tensor_v2"), b"(NNNNNNt"), "do not fit"),
    "no arguments": (call(("torch._utils", "_rebuild_tensor_v2"), b")"), "do not fit"),
    "parameter of a number": (
        call(("torch._utils", "_rebuild_parameter"), b"(K\x01\x88" + HOOKS + b"t"), "do not fit"),
    "bytearray of a size": (
        call(("builtins", "bytearray"), number(1 << 60) + b"\x85"), "do not fit"),
    "bytes of a size": (call(("builtins", "bytes"), number(1 << 60) + b"\x85"), "do not fit"),
    "encoding": (
        call(("_codecs", "encode"), text("x") + text("zip") + b"\x86"), "coding 'zip'"),
    "no latin1": (call(("_codecs", "encode"), text("€") + text("latin1") + b"\x86"), "damaged"),
    "copies without end": (BOMB, "again and again"),
    "copies of a storage without end": (COPIES, "again and again"),
    "foreign device": (call(("torch", "device"), text("cuda") + b"\x85"), "map_location"),
}  # fmt: skip


def wrong_file(program):
    """A checkpoint around a program, with a head and an end where it lacks them."""
    program = b"\x80\x02" * (not program.startswith(b"\x80")) + program
    program += b"." * (not program.endswith(b".") and len(program) > 10)
    return archive(program, s0=np.arange(4, dtype=np.float32).tobytes())


@pytest.mark.parametrize(("program", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_program_says_what_is_wrong(program, says):
    file = wrong_file(program)
    if says is None:
        assert isinstance(load(file), Tensor)
    else:
        refuses(file, says)


def test_what_a_hostile_file_claims_is_not_allocated():
    tracemalloc.start()
    try:
        for program, says in WRONG.values():
            if says is not None:
                with pytest.raises(CheckpointError):
                    load(wrong_file(program))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_as_a_program(program):
    with contextlib.suppress(CheckpointError):
        load(archive(b"\x80\x02" + program + b"."))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_instructions_as_a_program(data):
    pieces = [
        b"(", b"0", b"1", b"2", b"N", b"\x88", b"K\x01", b")", b"\x85", b"\x86", b"t", b"]", b"}",
        b"\x8f", b"l", b"\x91", b"a", b"e", b"s", b"u", b"\x90", b"q\x00", b"\x94", b"h\x00", b"R",
        b"b", b"Q", text("latin1"), text("0"), HOOKS, tensor(), STORAGE, name("torch", "Size"),
        name("_codecs", "encode"), name("builtins", "set"), name("collections", "Counter"),
        name("torch", "device"), name("torch._utils", "_rebuild_tensor_v2"),
    ]  # fmt: skip
    program = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=25)))
    with contextlib.suppress(CheckpointError):
        load(archive(b"\x80\x02" + program + b".", s0=bytes(16)))


# --- files that are damaged ------------------------------------------------------------------


def sample():
    weights = {f"layer{i}.weight": from_numpy(np.full((3, i + 1), i, np.float32)) for i in range(4)}
    return {"model": weights, "epoch": 3, "names": ["a", "b"], "bytes": b"\x00\x01"}


def plain(value):
    """`sample()` with lists instead of tensors, to compare."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, Tensor) else value


@pytest.fixture(scope="module")
def good():
    file = io.BytesIO()
    save(sample(), file)
    return file.getvalue()


def right_or_refused(data, expected):
    try:
        found = load(io.BytesIO(data))
    except CheckpointError:
        return False
    assert plain(found) == expected
    return True


def test_every_truncation_is_refused(good):
    expected = plain(sample())
    for length in [*range(0, len(good), 7), len(good) - 1]:
        assert not right_or_refused(good[:length], expected)


def test_every_byte_flipped_gives_the_right_data_or_an_error(good):
    expected = plain(sample())
    chance = random.Random(0)
    survived = 0
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << chance.randrange(8)
        survived += right_or_refused(bytes(damaged), expected)
    assert survived  # the padding between records means nothing


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_many_bytes_changed(good, data):
    damaged = bytearray(good)
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=8)
    ):
        damaged[place] = value
    cut = data.draw(st.integers(0, len(good)))
    insert = data.draw(st.binary(max_size=4))
    right_or_refused(bytes(damaged[:cut] + insert + damaged[cut:]), plain(sample()))


def test_damaged_data_names_the_file_and_the_record(tmp_path, good):
    path = tmp_path / "model.pt"
    place = good.rindex(np.full(3, 3, np.float32).tobytes())
    path.write_bytes(good[:place] + b"\1" + good[place + 1 :])
    says = refuses(path, "checksum")
    assert str(path) in says and "data/3" in says


def rewritten(good, change):
    """The archive with its records passed through `change(name, data)`; `None` drops one."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(file, "w") as target:
        for info in source.infolist():
            data = change(info.filename, source.read(info))
            if data is not None:
                target.writestr(info.filename, data)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n, d: None if n.endswith("data/1") else d, "'data/1' is missing"),
        (lambda n, d: None if n.endswith("pkl") else d, "not one that PyTorch or treadle saved"),
        (lambda n, d: d[:-4] if n.endswith("data/1") else d, "20 bytes, not the 6 elements"),
        (lambda n, d: d + d if n.endswith("data/1") else d, "48 bytes, not the 6 elements"),
        (lambda n, d: b"middle" if n.endswith("byteorder") else d, "byte order is 'middle'"),
    ],
)
def test_records_that_are_missing_or_wrong(good, change, says):
    refuses(rewritten(good, change), says)


def test_compressed_records_are_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", b"\x80\x02N." + b"N" * 50_000_000)
    file.seek(0)
    refuses(file, "claim more than|compressed")
    small = io.BytesIO()
    with zipfile.ZipFile(small, "w") as target:
        target.writestr("archive/data.pkl", b"\x80\x02N.", zipfile.ZIP_DEFLATED)
    small.seek(0)
    refuses(small, "compressed")


def test_records_that_lie_over_each_other_are_refused(good):
    """Many directory entries for the same bytes: a bomb that needs no compression."""
    size = 100_000
    body = b"PK\3\4" + struct.pack(
        "<5H3I2H", 20, 0, 0, 0, 33, zlib.crc32(bytes(size)), size, size, 1, 0
    )
    file = io.BytesIO()
    file.write(body + b"a" + bytes(size))
    start = file.tell()
    for i in range(1000):
        label = f"archive/data/{i}".encode()
        file.write(
            b"PK\1\2" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 33, zlib.crc32(bytes(size)), size,
                                    size, len(label), 0, 0, 0, 0, 0, 0) + label
        )  # fmt: skip
    end = file.tell()
    file.write(b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 1000, 1000, end - start, start, 0))
    file.seek(0)
    refuses(file, "claim more than")


def test_two_records_of_one_name_are_refused(good):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("archive/data.pkl", b"\x80\x02N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            target.writestr("archive/data.pkl", b"\x80\x02N.")
    file.seek(0)
    refuses(file, "the same name")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"hello", "not a checkpoint"),
        (pickle.dumps([1]), "bare pickle"),
        (struct.pack("<Q", 2) + b"{}", "load_safetensors"),
        (b"PK\3\4 and nothing more", "zip directory"),
        (b"PK\5\6" + bytes(18), "not a checkpoint"),
    ],
)
def test_files_of_another_kind(data, says):
    refuses(io.BytesIO(data), says)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


# --- the format before the zip ---------------------------------------------------------------


def legacy(
    value=None, keys=("0",), body=None, protocol=1001, system=None, magic=0x1950A86A20F9469CFC6C
):
    head = [magic, protocol, system or {"little_endian": True}]
    program = b"\x80\x02" + (tensor() if value is None else value) + b"."
    stored = struct.pack("<q4f", 4, 0, 1, 2, 3) if body is None else body
    parts = [
        *(pickle.dumps(part, 2) for part in head),
        program,
        pickle.dumps(list(keys), 2),
        stored,
    ]
    return b"".join(parts)


def test_legacy_files_are_read():
    assert load(io.BytesIO(legacy())).tolist() == [0, 1, 2, 3]
    swapped = legacy(system={"little_endian": False},
                     body=struct.pack("<q", 4) + struct.pack(">4f", 0, 1, 2, 3))  # fmt: skip
    assert load(io.BytesIO(swapped)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"protocol": 7}, "protocol 7"),
        ({"keys": ()}, "does not agree"),
        ({"keys": ("0", "0")}, "does not agree"),
        ({"keys": ("1",)}, "does not agree"),
        ({"keys": ([],)}, "does not agree"),
        ({"body": b""}, "within its storages"),
        ({"body": struct.pack("<q3f", 4, 0, 1, 2)}, "within its storages"),
        ({"body": struct.pack("<q4f", 3, 0, 1, 2, 3)}, "3 elements instead of 4"),
        ({"value": tensor(total=1 << 40)}, "claim more than"),
        ({"value": HOSTILE["os.system"][2:-1]}, "nothing was run"),
        ({"magic": 5}, "bare pickle"),
    ],
)
def test_legacy_files_that_are_wrong(options, says):
    refuses(io.BytesIO(legacy(**options)), says)


def test_every_truncation_of_a_legacy_file_is_refused():
    data = legacy()
    for length in range(len(data)):
        with pytest.raises(CheckpointError):
            load(io.BytesIO(data[:length]))

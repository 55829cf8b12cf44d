"""Checkpoints: what is saved is read again, by treadle and by PyTorch, in either direction."""

import io
import math
import pathlib
import sys
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base import dtype as dtypes
from treadle.base.device import CPU
from treadle.base.errors import CheckpointError
from treadle.io import load, save
from treadle.tensor import Size, Tensor, from_numpy

DTYPES = {d.name: d for d in dtypes.ALL}


def through(value, **options):
    """`value`, saved to memory and loaded again."""
    file = io.BytesIO()
    save(value, file)
    file.seek(0)
    return load(file, **options)


def some(dtype, shape):
    """A tensor with a few awkward numbers among the elements."""
    count = math.prod(shape)
    numbers = np.resize(np.array([0, 1, -1, 100, np.nan, np.inf, -0.0, 3.5]), count)
    if dtype.kind != "f":
        numbers = np.resize(np.array([0, 1, 2, 100, 127]), count)
    return from_numpy(numbers.astype(dtype.numpy).reshape(shape))


def bits(tensor):
    """All that a tensor is: its type, its shape and its bytes."""
    array = tensor.detach().numpy()
    return tensor.dtype, tuple(array.shape), array.tobytes()


def same(a, b):
    """Whether two nests of plain data and tensors are equal, with NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return bits(a) == bits(b) and a.requires_grad == b.requires_grad
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and same([*a.values()], [*b.values()])
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float | complex):
        return repr(a) == repr(b)
    return a == b


PLAIN = [
    None, True, False, 0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**63),
    1 << 100, -(1 << 4000), 0.0, -0.0, 1.5, math.nan, math.inf, 1e-320, "", "text", "é€😀",
    "\udc80", b"", b"\x00\xff bytes", bytearray(b"q\x80"), 1 - 2j, (), (1,), (1, 2), (1, 2, 3),
    (1, 2, 3, 4), [], [[]], {}, {"a": {"b": [1, (2, {})]}},
    {1: 2, None: 3, (1, "x"): 4, b"k": 5, 1.5: 6}, set(), {1, "a", (2, 3)},
    frozenset({1, frozenset({2})}), Counter({30: 1, 80: 2}), OrderedDict(), OrderedDict(b=1, a=2),
    Size((2, 3)), dtypes.float32, dtypes.bool_, CPU, {dtypes.int8: CPU},
    list(range(1000)), {str(i): i for i in range(1000)},
]  # fmt: skip


def name(value):
    # The order of a set changes from process to process, and a test's name must not.
    text = sorted(map(repr, value)) if isinstance(value, set | frozenset) else repr(value)
    return f"{type(value).__name__} {text}"[:40]


@pytest.mark.parametrize("value", PLAIN, ids=name)
def test_plain_data_comes_back(value):
    assert same(through(value), value)
    assert same(through([value, value]), [value, value])


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,), (3, 0, 2), (1, 1, 1), (2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_tensors_come_back_bit_for_bit(dtype, shape):
    tensor = some(dtype, shape)
    assert bits(through(tensor)) == bits(tensor)


def test_optimizer_state_comes_back():
    state = {
        "state": {0: {"step": 3, "exp_avg": some(dtypes.float32, (4, 2)), "max": None}, 1: {}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "amsgrad": False, "params": [0, 1]}],
    }
    assert same(through(state), state)


def test_requires_grad_comes_back():
    weight = some(dtypes.float32, (2,)).requires_grad_()
    assert through(weight).requires_grad
    assert not through(weight.detach()).requires_grad


def test_a_pending_value_is_computed_and_saved():
    a = from_numpy(np.arange(6.0).reshape(2, 3))
    assert through(a + a).numpy().tolist() == [[0, 2, 4], [6, 8, 10]]


def test_metadata_of_a_state_dict_comes_back():
    state = OrderedDict(w=some(dtypes.float32, (1,)))
    state._metadata = OrderedDict({"": {"version": 1}})
    assert through(state)._metadata == {"": {"version": 1}}


def test_shared_and_circular_data_keep_their_shape():
    part = [1]
    loop = {"self": part}
    part.append(loop)
    out = through([part, part, loop])
    assert out[0] is out[1] and out[0][1] is out[2] and out[2]["self"] is out[0]


# --- storages ---------------------------------------------------------------------------------


def test_tied_weights_stay_tied():
    weight = some(dtypes.float32, (3, 2))
    out = through({"a": weight.detach(), "b": weight.detach(), "c": weight})
    out["a"].zero_()
    assert not out["b"].numpy().any() and not out["c"].numpy().any()


def test_views_of_one_tensor_stay_views_of_one():
    whole = from_numpy(np.arange(24.0).reshape(4, 6))
    cases = {
        "row": whole[1], "column": whole[:, 2], "block": whole[1:3, 2:5], "steps": whole[::2, 1::2],
        "t": whole.t(), "part_t": whole[1:, 1:].t(), "flat": whole.reshape(3, 8), "last": whole[3:],
    }  # fmt: skip
    out = through({"whole": whole, **cases})
    for name, view in cases.items():
        assert bits(out[name]) == bits(view), name
    out["whole"].zero_()
    assert not any(out[name].numpy().any() for name in cases)


def test_tensors_that_share_memory_are_stored_once(tmp_path):
    big = from_numpy(np.zeros(10_000, np.float32))
    save([big, big.detach(), big[5:], big.reshape(100, 100).t()], tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 45_000


def test_a_small_part_does_not_drag_the_whole_along(tmp_path):
    big = from_numpy(np.zeros((1000, 1000), np.float32))
    save({"row": big[3], "column": big[:, 3]}, tmp_path / "a.pt")
    # The two cross, so they share a storage; alone, each is stored by itself.
    save({"column": big[:, 3]}, tmp_path / "b.pt")
    assert (tmp_path / "b.pt").stat().st_size < 8_000


def test_the_same_data_gives_the_same_bytes(tmp_path):
    for name in "ab":
        save({"w": some(dtypes.float32, (3,)), "s": {"x", "y", "z"}}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_storages_are_aligned_and_plain(tmp_path):
    path = tmp_path / "a.pt"
    save([some(dtypes.uint8, (n,)) for n in (1, 3, 64, 100)], path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            head = info.header_offset
            name, extra = (
                int.from_bytes(data[head + i : head + i + 2], "little") for i in (26, 28)
            )
            assert (head + 30 + name + extra) % 64 == 0


def test_files_of_the_other_byte_order_are_read(tmp_path):
    tensors = {name: some(d, (2, 3)) for name, d in DTYPES.items()}
    file = io.BytesIO()
    save(tensors, file)
    other = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("byteorder"):
                data = b"big" if sys.byteorder == "little" else b"little"
            elif "/data/" in name:
                size = list(DTYPES.values())[int(name.rpartition("/")[2])].itemsize
                data = np.frombuffer(data, f"u{size}").byteswap().tobytes()
            target.writestr(name, data)
    other.seek(0)
    assert same(load(other), tensors)


# --- where to -----------------------------------------------------------------------------------


def test_paths_and_file_objects(tmp_path):
    value = {"w": some(dtypes.float32, (2, 2))}
    path = tmp_path / "modèle.pt"
    save(value, path)
    assert same(load(path), value)
    assert same(load(str(path)), value)
    with open(path, "rb") as file:
        assert same(load(file), value)
    with open(path, "wb") as file:
        save(value, file)
    assert same(load(path, mmap=True), value)
    with open(path, "rb", buffering=0) as file:
        assert same(load(file), value)


def test_a_stream_that_cannot_seek():
    class Stream:
        def __init__(self, data=b""):
            self.data = data

        def write(self, data):
            self.data += bytes(data)

        def read(self):
            return self.data

    stream = Stream()
    save([1, "x"], stream)
    assert load(stream) == [1, "x"]


def test_a_mapped_file_is_not_changed_by_writes(tmp_path):
    path = tmp_path / "a.pt"
    save(some(dtypes.float32, (100,)), path)
    before = path.read_bytes()
    tensor = load(path, mmap=True)
    tensor.zero_()
    assert not tensor.numpy().any()
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", [None, "cpu", CPU, {"cuda:0": "cpu"}, {}])
def test_map_location(where):
    assert through([1], map_location=where) == [1]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"map_location": "cuda:0"}, ValueError, "cuda"),
        ({"map_location": lambda storage, place: storage}, TypeError, "map_location"),
        ({"mmap": True}, ValueError, "takes a path"),
    ],
)
def test_options_that_cannot_be(options, error, says):
    with pytest.raises(error, match=says):
        through([1], **options)


@pytest.mark.parametrize("function", [lambda: save(1, 3), lambda: load(3)])
def test_what_is_no_file(function):
    with pytest.raises(TypeError, match="a path or a file object"):
        function()


# --- what cannot be saved --------------------------------------------------------------------


class Model:
    def state_dict(self):
        return {}


deep: list = []
for _ in range(100_000):
    deep = [deep]
looped: list = []
looped.append((looped, (looped,)))
knot: list = []
knot_tuple = (knot,)
knot.append(knot_tuple)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda: 1, r"\['a'\]\[1\]: a function is not plain data"),
        (Model(), "save its state_dict"),
        (np.ones(2), "from_numpy"),
        (np.float32(2), r"\.item\(\)"),
        (np.float64(2), r"\.item\(\)"),
        (pathlib.PurePath("x"), "not plain data"),
        (type("Named", (tuple,), {})(), r"tuple\(value\)"),
        (type("Bag", (dict,), {})(), r"dict\(value\)"),
        ({(1, pathlib.PurePath("x")): 1}, "its key"),
        ({from_numpy(np.ones(1)): 1}, "its key"),
        (int, "a type is not plain data"),
        (deep, "nested too deeply"),
        (knot_tuple, "contains itself"),
    ],
    ids=lambda v: v if type(v) is str else type(v).__name__,
)
def test_what_cannot_be_saved(tmp_path, value, says):
    path = tmp_path / "a.pt"
    save("old", path)
    with pytest.raises(CheckpointError, match=says):
        save({"a": [0, value]}, path)
    assert load(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_an_ordered_dict_with_attributes_cannot_be_saved(tmp_path):
    state = OrderedDict()
    state.extra = 1
    with pytest.raises(CheckpointError, match="attributes of its own"):
        save(state, tmp_path / "a.pt")


# --- properties ------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
tensors = st.builds(some, st.sampled_from(dtypes.ALL), shapes)
nests = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(nests)
def test_any_nest_of_plain_data_comes_back(value):
    assert same(through(value), value)


@st.composite
def windows(draw):
    """An array and a view of it by slices, a permutation and broadcasting."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    array = from_numpy(np.arange(math.prod(shape), dtype=np.int32).reshape(shape))
    cut = []
    for n in shape:
        start = draw(st.integers(0, n - 1))
        stop = draw(st.integers(start, n))
        cut.append(slice(start, stop, draw(st.integers(1, 3))))
    view = array[tuple(cut)].permute(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        view = view.unsqueeze(0).expand(3, *view.shape)
    return array, view


@settings(max_examples=150, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=3))
def test_any_views_come_back_with_their_bases_or_without(pairs):
    flat = [tensor for pair in pairs for tensor in pair]
    views = [view for _, view in pairs]
    assert same(through(flat), flat)
    assert same(through(views), views)

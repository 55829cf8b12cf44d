"""PyTorch reads what treadle saves, and treadle reads what PyTorch saves."""

import io
import warnings
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest

from treadle.base import dtype as dtypes
from treadle.base.errors import CheckpointError
from treadle.io import load, save
from treadle.io.archive import ArchiveWriter
from treadle.tensor import Size, Tensor, from_numpy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

SHAPES = [(), (3,), (2, 3), (0, 4), (2, 1, 2, 2)]
FORMATS = {
    "zip": {},
    "zip, protocol 3": {"pickle_protocol": 3},
    "zip, protocol 4": {"pickle_protocol": 4},
    "zip, protocol 5": {"pickle_protocol": 5},
    "legacy": {"_use_new_zipfile_serialization": False},
}


def saved_by_torch(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    file.seek(0)
    return file


def to_torch(value, **options):
    """`value` saved by treadle and loaded by PyTorch's restricted reader."""
    file = io.BytesIO()
    save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True, **options)


def bits(tensor):
    """The bytes of a tensor of either library."""
    tensor = tensor.detach()
    if isinstance(tensor, torch.Tensor):
        return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return tensor.numpy().tobytes()


def same(ours, theirs):
    assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
    assert tuple(ours.shape) == tuple(theirs.shape)
    assert ours.requires_grad == theirs.requires_grad
    assert bits(ours) == bits(theirs)
    return True


def example(dtype, shape):
    numbers = (torch.rand(shape, dtype=torch.float64) * 200 - 50).abs()
    return numbers.to(getattr(torch, dtype.name))


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_tensors_in_both_directions(dtype, options):
    theirs = [example(dtype, shape) for shape in SHAPES]
    ours = load(saved_by_torch(theirs, **options))
    assert all(map(same, ours, theirs))
    assert all(map(same, ours, to_torch(ours)))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
        self.tied = torch.nn.Linear(4, 3)
        self.tied.weight = self.body[0].weight


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_a_state_dict_in_both_directions(options):
    network = Network()
    state = network.state_dict()
    ours = load(saved_by_torch(state, **options))
    assert type(ours) is OrderedDict and list(ours) == list(state)
    assert all(same(ours[key], state[key]) for key in state)
    assert ours._metadata == state._metadata
    back = to_torch(ours)
    assert back._metadata == state._metadata
    assert back["body.0.weight"].data_ptr() == back["tied.weight"].data_ptr()
    Network().load_state_dict(back)
    ours["tied.weight"].zero_()
    assert not ours["body.0.weight"].numpy().any()


def test_a_whole_training_state_in_both_directions():
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 8])
    network.body(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    schedule.step()
    state = {"o": optimizer.state_dict(), "s": schedule.state_dict(), "epoch": 3}
    ours = load(saved_by_torch(state))
    back = to_torch(ours)
    optimizer.load_state_dict(back["o"])
    schedule.load_state_dict(back["s"])
    assert back["s"] == state["s"]
    again = optimizer.state_dict()
    for key, entry in state["o"]["state"].items():
        assert torch.equal(again["state"][key]["exp_avg_sq"], entry["exp_avg_sq"])


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_plain_data_in_both_directions(options):
    data = {
        "list": [1, -1, 1 << 70, 1.5, None, True, "é", b"\x00\xff", bytearray(b"x"), 1 + 2j],
        "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "set": {1, "a"}, "counter": Counter({3: 1}), (1, "k"): OrderedDict(a=1),
        "text" * 100: ["shared", "shared"],
    }  # fmt: skip
    assert load(saved_by_torch(data, **options)) == data
    assert to_torch(data) == data


def test_names_of_types_in_both_directions():
    theirs = {"dtype": torch.bfloat16, "size": torch.Size([2, 3]), "device": torch.device("cpu")}
    ours = load(saved_by_torch(theirs))
    assert ours["dtype"] is dtypes.bfloat16
    assert ours["size"] == Size((2, 3)) and type(ours["size"]) is Size
    assert str(ours["device"]) == "cpu"
    assert to_torch(ours) == theirs


def test_a_parameter_is_a_tensor_that_requires_grad():
    weight = torch.nn.Parameter(torch.rand(2, 2))
    frozen = torch.nn.Parameter(torch.rand(2), requires_grad=False)
    ours = load(saved_by_torch([weight, frozen, weight]))
    assert same(ours[0], weight) and same(ours[1], frozen) and ours[2] is ours[0]


class Parameter(Tensor):
    """Stands for the class of the room of modules, which this room does not see."""

    __slots__ = ()


def test_a_parameter_is_saved_as_one():
    weight = from_numpy(np.ones((2, 2), np.float32)).requires_grad_()
    frozen = from_numpy(np.ones(2, np.float32))
    weight.__class__ = frozen.__class__ = Parameter
    back = to_torch([weight, frozen])
    assert [type(t) for t in back] == [torch.nn.Parameter] * 2
    assert same(weight, back[0]) and same(frozen, back[1])


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_views_with_offsets_and_strides(options):
    whole = torch.arange(60, dtype=torch.float32).reshape(5, 4, 3)
    views = [
        whole[1], whole[:, 2], whole[..., 1], whole.permute(2, 0, 1), whole[::2, 1:, ::2],
        whole[0].diagonal(), whole[4].t()[1:], whole.reshape(-1)[7:], whole[:0], whole[1:1, 2],
        whole[2:3, 1:2, 1:2].expand(3, 4, 5), whole[3, 3, 2], whole.as_strided((2, 3), (7, 2), 5),
        whole[:, :1].expand(5, 9, 3), whole.reshape(-1)[::7],
    ]  # fmt: skip
    for part in (views, [whole, *views], [views[3]], [views[5], views[12]]):
        assert all(map(same, load(saved_by_torch(part, **options)), part))


def test_tensors_beyond_a_copy_are_refused():
    windows = torch.arange(10.0).unfold(0, 4, 1)
    with pytest.raises(CheckpointError, match="overlap"):
        load(saved_by_torch(windows))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.ones(2, dtype=torch.complex64), "ComplexFloatStorage"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8|UntypedStorage|v3"),
        (torch.float8_e5m2, "float8"),
        (torch.device("cuda:0"), 'map_location="cpu"'),
        (torch.ones(2, dtype=torch.complex64).conj(), "ComplexFloatStorage"),
        (torch.nn.Linear(1, 1), "asks to run code"),
        (torch.ones(2).to_sparse(), "_rebuild_sparse_tensor"),
        ({"storage": torch.ones(2).untyped_storage()}, "UntypedStorage"),
        ([torch.nn.Parameter], "Parameter"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_treadle_does_not_have(value, says):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = saved_by_torch(value)
    with pytest.raises(CheckpointError, match=says):
        load(file)


def test_a_negated_view_is_not_read_as_its_negative():
    x = torch.ones(2, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    with pytest.raises(CheckpointError):
        load(saved_by_torch(x))


def test_devices_can_be_replaced():
    assert str(load(saved_by_torch(torch.device("cuda:1")), map_location="cpu")) == "cpu"


def test_torchscript_is_named():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    file.seek(0)
    with pytest.raises(CheckpointError, match="TorchScript"):
        load(file)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_of_either_is_read_from_a_path(tmp_path, mmap):
    theirs = {"a": torch.rand(1000), "b": torch.arange(5)}
    torch.save(theirs, tmp_path / "theirs.pt")
    ours = load(tmp_path / "theirs.pt", mmap=mmap)
    save(ours, tmp_path / "ours.pt")
    back = torch.load(tmp_path / "ours.pt", mmap=mmap, weights_only=True)
    assert all(same(ours[key], back[key]) for key in theirs)


def test_archives_beyond_the_32_bit_fields():
    """The 64-bit fields, which begin at 4 GiB, tried on a small file by lowering that limit."""
    parts: list[bytes] = []
    archive = ArchiveWriter(lambda data: parts.append(bytes(data)), limit=40)
    source = io.BytesIO()
    save(from_numpy(np.arange(100.0)), source)
    with zipfile.ZipFile(source) as plain:
        for name in plain.namelist():
            archive.add(name.removeprefix("archive/"), plain.read(name))
    archive.finish()
    data = b"".join(parts)
    assert b"PK\6\6" in data
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    assert load(io.BytesIO(data)).numpy().tolist() == list(range(100))
    assert torch.load(io.BytesIO(data), weights_only=True).tolist() == list(range(100))

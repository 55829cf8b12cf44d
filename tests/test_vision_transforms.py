"""Transforms: their values, and that whole batches and single samples get the same ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import treadle
from treadle.utils.data import DataLoader, Subset
from treadle.vision import transforms as T
from treadle.vision.datasets import VisionDataset

Image = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (23, 8, 6), np.uint8)
COLOUR = RNG.integers(0, 256, (23, 8, 6, 3), np.uint8)


class Pictures(VisionDataset):
    def __init__(self, images, transform, target_transform=None):
        super().__init__(".", transform, target_transform)
        self.data = images
        self.targets = np.arange(len(images)) % 10


def batches(images, transform, **options):
    treadle.manual_seed(3)
    loader = DataLoader(Pictures(images, transform), 8, shuffle=True, **options)
    return [(x.numpy(), y.numpy()) for x, y in loader]


CHAINS = [
    [T.ToTensor()],
    [T.ToTensor(), T.Normalize((0.5,), (0.5,))],
    [T.ToTensor(), T.Normalize((0.1307,), (0.3081,))],
    [T.Compose([T.ToTensor()]), T.Compose([T.Normalize(0.25, 2)])],
    [T.PILToTensor(), T.ConvertImageDtype(treadle.float32)],
    [T.CenterCrop((4, 5)), T.ToTensor()],
    [T.ToTensor(), T.CenterCrop(4)],
    [T.ToTensor(), T.CenterCrop((10, 4))],
    [T.Pad((1, 2), 7), T.ToTensor()],
    [T.Pad((1, 2, 3, 0), padding_mode="reflect"), T.ToTensor()],
    [T.RandomCrop(4), T.ToTensor()],
    [T.RandomCrop((8, 6), padding=2, padding_mode="edge"), T.ToTensor()],
    [T.RandomCrop(12, pad_if_needed=True), T.ToTensor()],
    [T.RandomHorizontalFlip(), T.RandomVerticalFlip(0.3), T.ToTensor()],
    [T.ToTensor(), T.RandomHorizontalFlip(0.7)],
    [T.RandomHorizontalFlip(), T.RandomCrop(5), T.ToTensor(), T.RandomVerticalFlip()],
    [T.Resize((5, 9)), T.ToTensor()],
    [T.Resize(4), T.ToTensor(), T.Normalize(0.5, 0.5)],
    [T.ToTensor(), T.Resize((4, 12))],
]


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("steps", CHAINS, ids=[" ".join(map(repr, c)) for c in CHAINS])
def test_batch_and_sample_agree(images, steps) -> None:
    chain = T.Compose(steps)
    fast = batches(images, chain)
    slow = batches(images, lambda image: chain(image))
    for (x, y), (a, b) in zip(fast, slow, strict=True):
        assert x.dtype == a.dtype and x.shape == a.shape
        np.testing.assert_allclose(x, a, rtol=1e-6, atol=1e-7)
        assert np.array_equal(y, b)


def test_the_main_chain_agrees_to_the_last_bit() -> None:
    chain = T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,))])
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    fast = batches(every, chain)[0][0]
    wanted = ((every / np.float32(255)).astype(np.float32) - np.float32(0.5)) / np.float32(0.5)
    assert np.array_equal(fast[0, 0], wanted[0])
    assert np.array_equal(batches(every, lambda i: chain(i))[0][0], fast)


@pytest.mark.skipif(sys.platform == "win32", reason="lambdas need fork")
def test_random_transforms_do_not_depend_on_workers() -> None:
    chain = T.Compose([T.RandomCrop(5), T.ToTensor(), T.RandomHorizontalFlip()])
    for transform in (chain, lambda image: chain(image)):
        alone = batches(COLOUR, transform)
        shared = batches(COLOUR, transform, num_workers=2)
        for (x, y), (a, b) in zip(alone, shared, strict=True):
            assert np.array_equal(x, a) and np.array_equal(y, b)


def test_random_transforms_differ_between_epochs_and_samples() -> None:
    data = Pictures(np.repeat(GREY[:1], 64, 0), T.Compose([T.RandomCrop(3), T.ToTensor()]))
    loader = DataLoader(data, 64)
    (first, _), (second, _) = next(iter(loader)), next(iter(loader))
    assert not np.array_equal(first.numpy(), second.numpy())
    assert len({x.tobytes() for x in first.numpy()}) > 10


def test_a_subset_keeps_to_batches() -> None:
    calls = []

    class Spy(T.ToTensor):
        def __call__(self, image):
            calls.append("sample")
            return super().__call__(image)

        def to_tensors(self, images):
            calls.append("batch")
            return super().to_tensors(images)

    part = Subset(Pictures(GREY, T.Compose([Spy()])), [5, 1])
    x, y = next(iter(DataLoader(part, 2)))
    assert calls == ["batch"] and y.tolist() == [5, 1] and x.shape == (2, 1, 8, 6)


def test_an_overridden_call_is_respected() -> None:
    class Brighter(T.Normalize):
        def __call__(self, tensor):
            return super().__call__(tensor) + 100

    chain = T.Compose([T.ToTensor(), Brighter(0.0, 1.0)])
    assert batches(GREY, chain)[0][0].min() >= 100


def test_changing_the_transform_takes_effect() -> None:
    data = Pictures(GREY, T.Compose([T.ToTensor()]))
    loader = DataLoader(data, 23)
    assert next(iter(loader))[0].max().item() <= 1
    data.transform.transforms.append(T.Normalize(-5.0, 1.0))
    assert next(iter(loader))[0].min().item() >= 5
    data.transform = T.PILToTensor()
    assert next(iter(loader))[0].dtype is treadle.uint8


def test_target_transform() -> None:
    data = Pictures(GREY, T.ToTensor(), lambda label: label / 2)
    labels = next(iter(DataLoader(data, 4)))[1]
    assert labels.dtype is treadle.float64 and labels.tolist() == [0, 0.5, 1, 1.5]
    assert data[3][1] == 1.5


def test_to_tensor() -> None:
    wanted = COLOUR[0].transpose(2, 0, 1) / np.float32(255)
    for picture in (COLOUR[0], Image.fromarray(COLOUR[0])):
        assert np.array_equal(T.ToTensor()(picture).numpy(), wanted)
    assert T.ToTensor()(GREY[0]).shape == (1, 8, 6)
    floats = T.ToTensor()(np.full((2, 2), 7.5))
    assert floats.dtype is treadle.float64 and floats.max().item() == 7.5
    bilevel = Image.fromarray(GREY[0]).convert("1")
    assert set(T.ToTensor()(bilevel).flatten().tolist()) == {0.0, 1.0}
    with pytest.raises(TypeError, match="PIL Image or ndarray"):
        T.ToTensor()(treadle.ones(2))
    with pytest.raises(ValueError, match="2/3 dimensional"):
        T.ToTensor()(np.ones(3))


def test_there_and_back() -> None:
    for picture in (GREY[0], COLOUR[0]):
        back = T.ToPILImage()(T.ToTensor()(picture))
        assert np.array_equal(np.asarray(back), picture)
        assert np.array_equal(np.asarray(T.ToPILImage()(picture)), picture)
    assert T.ToPILImage("L")(COLOUR[0]).mode == "L"
    with pytest.raises(ValueError, match="4 channels"):
        T.ToPILImage()(treadle.ones(5, 2, 2))
    with pytest.raises(TypeError, match="Tensor or ndarray"):
        T.ToPILImage()("cat.png")
    with pytest.raises(ValueError, match="2/3 dimensional"):
        T.ToPILImage()(treadle.ones(5))


def test_normalize() -> None:
    x = RNG.random((4, 3, 5, 5), np.float32)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    got = T.Normalize(mean, std)(treadle.from_numpy(x))
    columns = [np.array(v, np.float32)[:, None, None] for v in (mean, std)]
    np.testing.assert_allclose(got.numpy(), (x - columns[0]) / columns[1], rtol=1e-6)
    leaf = treadle.ones(1, 2, 2, requires_grad=True)
    T.Normalize(0.5, 0.25)(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.flatten().tolist() == [4] * 4


@pytest.mark.parametrize(
    ("norm", "image", "error", "match"),
    [
        (T.Normalize(0.5, 0.5), treadle.ones(1, 2, 2, dtype=treadle.uint8), TypeError, "float"),
        (T.Normalize(0.5, 0.5), treadle.ones(2, 2), ValueError, "C, H, W"),
        (T.Normalize(0.5, 0.0), treadle.ones(1, 2, 2), ValueError, "zero"),
        (
            T.Normalize((0.5, 0.5), 1.0),
            treadle.ones(3, 2, 2),
            ValueError,
            "2 numbers .* 3 channels",
        ),
        (T.Normalize(0.5, 0.5), GREY[0], TypeError, "ToTensor"),
    ],
)
def test_normalize_mistakes(norm, image, error, match) -> None:
    with pytest.raises(error, match=match):
        norm(image)


@pytest.mark.parametrize(
    ("have", "want", "values", "expected"),
    [
        (np.uint8, treadle.float32, [0, 51, 255], [0.0, 0.2, 1.0]),
        (np.uint8, treadle.int32, [0, 1, 255], [0, 1 << 23, 255 << 23]),
        (np.int32, treadle.uint8, [0, 1 << 23, (1 << 31) - 1], [0, 1, 255]),
        (np.float32, treadle.uint8, [0.0, 0.5, 1.0], [0, 127, 255]),
        (np.float32, treadle.float64, [0.5], [0.5]),
        (np.uint8, treadle.uint8, [3], [3]),
    ],
)
def test_convert_image_dtype(have, want, values, expected) -> None:
    got = T.ConvertImageDtype(want)(treadle.from_numpy(np.array(values, have)))
    assert got.dtype is want
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


def test_convert_image_dtype_mistakes() -> None:
    with pytest.raises(RuntimeError, match="safely"):
        T.ConvertImageDtype(treadle.int32)(treadle.ones(1))
    with pytest.raises(TypeError, match="Tensor"):
        T.ConvertImageDtype(treadle.int32)(GREY[0])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(5, 4), (16, 13), (3, 20), (8, 6)])
def test_resizing_tensors_as_pytorch_does(size, antialias) -> None:
    torch = pytest.importorskip("torch")
    x = RNG.random((2, 3, 8, 6), np.float32)
    got = T.Resize(size, antialias=antialias)(treadle.from_numpy(x))
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(x), size, mode="bilinear", antialias=antialias
    )
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=2e-6)
    got = T.Resize(size, T.InterpolationMode.NEAREST)(treadle.from_numpy(x))
    wanted = torch.nn.functional.interpolate(torch.from_numpy(x), size)
    assert np.array_equal(got.numpy(), wanted.numpy())


def test_resizing_bytes_is_near_to_pillow() -> None:
    picture = Image.fromarray(COLOUR[0])
    wanted = T.PILToTensor()(T.Resize((5, 4))(picture)).numpy().astype(int)
    got = T.Resize((5, 4))(T.PILToTensor()(picture))
    assert got.dtype is treadle.uint8 and abs(got.numpy() - wanted).max() <= 1


@pytest.mark.parametrize(
    ("options", "shape", "wanted"),
    [
        ({"size": 4}, (8, 6), (5, 4)),
        ({"size": 12}, (6, 8), (12, 16)),
        ({"size": [4]}, (8, 6), (5, 4)),
        ({"size": 8, "max_size": 10}, (20, 10), (10, 5)),
        ({"size": (2, 3)}, (8, 6), (2, 3)),
    ],
)
def test_sizes_after_resizing(options, shape, wanted) -> None:
    assert T.Resize(**options)(treadle.zeros(1, *shape)).shape[1:] == wanted
    assert T.Resize(**options)(Image.new("L", shape[::-1])).size == wanted[::-1]


def test_geometry_on_images_and_tensors() -> None:
    picture = Image.fromarray(COLOUR[0])
    for transform in (
        T.CenterCrop(3),
        T.CenterCrop((9, 3)),
        T.Pad(2, padding_mode="symmetric"),
        T.Pad(-1),
        T.RandomHorizontalFlip(1.0),
        T.RandomVerticalFlip(1.0),
        T.RandomHorizontalFlip(0.0),
    ):
        by_image = T.PILToTensor()(transform(picture)).numpy()
        by_tensor = transform(T.PILToTensor()(picture)).numpy()
        assert np.array_equal(by_image, by_tensor), transform
    flipped = np.asarray(T.RandomHorizontalFlip(1.0)(picture))
    assert np.array_equal(flipped, COLOUR[0][:, ::-1])
    assert np.array_equal(np.asarray(T.CenterCrop(4)(picture)), COLOUR[0][2:6, 1:5])


def test_seed_decides_outside_of_a_loader() -> None:
    crop = T.RandomCrop(3)
    treadle.manual_seed(1)
    first = [crop(treadle.from_numpy(GREY[:1])).tolist() for _ in range(8)]
    treadle.manual_seed(1)
    assert [crop(treadle.from_numpy(GREY[:1])).tolist() for _ in range(8)] == first
    assert len({str(f) for f in first}) > 1


def test_random_apply_and_grayscale_and_lambda() -> None:
    picture = Image.fromarray(COLOUR[0])
    assert T.RandomApply([T.Grayscale()], 1.0)(picture).mode == "L"
    assert T.RandomApply([T.Grayscale()], 0.0)(picture).mode == "RGB"
    assert T.Grayscale(3)(picture).mode == "RGB"
    assert T.Lambda(len)("abc") == 3


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: T.Lambda(3), TypeError, "callable"),
        (lambda: T.Pad((1, 2, 3)), ValueError, "3 elements"),
        (lambda: T.Pad(1, padding_mode="mirror"), ValueError, "mirror"),
        (lambda: T.RandomCrop(9)(Image.fromarray(GREY[0])), ValueError, "larger than input"),
        (lambda: T.RandomHorizontalFlip(1.5), ValueError, "probability"),
        (lambda: T.RandomHorizontalFlip()("cat.png"), TypeError, "PIL image or a tensor"),
        (lambda: T.Resize((1, 2, 3)), ValueError, "1 or 2"),
        (lambda: T.Resize((1, 2), max_size=4), ValueError, "max_size"),
        (lambda: T.Resize(4, max_size=4)(treadle.ones(1, 8, 8)), ValueError, "strictly greater"),
        (
            lambda: T.Resize(4, T.InterpolationMode.LANCZOS)(treadle.ones(1, 8, 8)),
            ValueError,
            "LANCZOS",
        ),
        (lambda: T.Grayscale(2), ValueError, "1 or 3"),
        (lambda: T.Grayscale()(treadle.ones(1, 2, 2)), TypeError, "before ToTensor"),
        (lambda: T.CenterCrop((1, 2, 3)), ValueError, "1 or 2"),
    ],
)
def test_mistakes(make, error, match) -> None:
    with pytest.raises(error, match=match):
        make()


def test_without_pillow(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    data = Pictures(GREY, T.Compose([T.ToTensor(), T.Lambda(lambda x: x.flatten())]))
    assert data[0][0].shape == (48,)
    data.transform = T.Lambda(lambda x: x)
    with pytest.raises(ImportError, match=r"treadle\[vision\]"):
        data[0]


def test_how_they_print() -> None:
    chain = T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,)), T.Resize(4), T.Lambda(len)])
    assert repr(chain) == (
        "Compose(\n    ToTensor()\n    Normalize(mean=(0.5,), std=(0.5,))\n    Resize(size=4, "
        "interpolation=bilinear, max_size=None, antialias=True)\n    Lambda()\n)"
    )
    assert repr(T.RandomApply([T.CenterCrop(2)], 0.1)) == (
        "RandomApply(\n    p=0.1\n    CenterCrop(size=(2, 2))\n)"
    )

"""What differs from PyTorch, and why: the honest list behind the coverage figures.

A row of `KNOWN` excuses failures of an operator by their message; `MISSING` names operators that
treadle does not have. A row that excuses nothing any more is to be taken out.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Difference(NamedTuple):
    """Failures that are known: of which operators, in which dtypes, with which message."""

    names: re.Pattern[str]
    dtypes: str
    message: re.Pattern[str]
    reason: str


def _row(names: str, dtypes: str, message: str, reason: str) -> Difference:
    return Difference(re.compile(names), dtypes, re.compile(message), reason)


ALL = "float32 float64 int64 bool"
FLOATS = "float32 float64"
WHOLE = "int64 bool"

KNOWN: tuple[Difference, ...] = (
    _row(
        r"linalg\..*|norm\.nuc|logdet|svd|qr|pinverse",
        FLOATS,
        r".",
        "linear algebra is a later issue",
    ),
    _row(r"addr", "bool", r"dtype int64", "a product of bools with factors counts as int64"),
    _row(r"sum_to_size", "bool", r"dtype bool", "a scalar that is not summed stays a bool"),
    _row(r"cov", FLOATS, r"value", "PyTorch computes with aweights in float32"),
    _row(r"diff", ALL, r"shape", "PyTorch prepends along dim twice for n > 1 and negative dims"),
    _row(r"kthvalue|mode|topk|sort|argsort", WHOLE, r"value", "which of equal elements is named"),
    _row(r"normal\.in_place", FLOATS, r".", "the in-place form is a method here"),
    _row(r"fill|zero_", FLOATS, r"leaf Variable", "samples are leaves; PyTorch's wrapper clones"),
    _row(r"nn\.functional\.layer_norm", "float32", r"gradient 1: 0 where", "rounding around 0"),
    _row(r"nn\.functional\.local_response_norm", "int64", r"value", "integers: rounding"),
    _row(
        r"nn\.functional\.pad\.replicate_negative",
        ALL,
        r"nothing to read",
        "padding what was cut down to nothing",
    ),
    _row(
        r"nn\.functional\.scaled_dot_product_attention",
        "float32",
        r"value|gradient 1",
        "scores of hundreds: 2e-5 and 3e-5 from float64, in which both agree",
    ),
    _row(
        r"nn\.functional\.ctc_loss",
        "float32",
        r"gradient 1",
        "PyTorch's gradient is 8e-5 from that in float64, treadle's 8e-6",
    ),
    _row(
        r"nn\.functional\.ctc_loss",
        "float64",
        r"has no derivative",
        "PyTorch's second derivative is wrong by its own tests; here an error",
    ),
    _row(r"nn\.functional\.hardsigmoid", "float64", r"gradient 1", "PyTorch's 1/6 is a float32"),
    _row(r"nn\.functional\.batch_norm", FLOATS, r"at least 2 dimensions", "an empty vector"),
    _row(r"(special\.)?polygamma\..*", "float32 bool", r"value", "poles, and next to them"),
    _row(r"gather", ALL, r"differ in rank", "an empty index of another rank"),
    _row(r"logcumsumexp", "float32", r"gradient 1", "values of thousands: rounding of both"),
    _row(
        r"nn\.functional\.(cosine_embedding|poisson_nll)_loss",
        WHOLE,
        r"where: expected one",
        "losses of integers",
    ),
    _row(
        r"(scatter|index)_reduce\.prod", "float64", r"factor 0", "second derivatives at 0: an error"
    ),
)

MISSING: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        # Later issues: complex numbers, transforms, sparse, linear algebra, masked tensors.
        r"fft\..*", r"linalg\..*", r"sparse\..*", r"masked\..*", r"signal\.windows\..*",
        r"to_sparse|stft|istft|chalf|cfloat|cdouble|complex|polar|imag|view_as_(real|complex)",
        # Inside of PyTorch: nobody calls them by these names.
        r"_.*|torch\..*|jiterator_.*|native_.*|.*_copy|slice|max_pool2d_with_indices_backward",
        r"grid_sampler_[23]d|hash_tensor",
        r"conj.*|resolve_.*|real|angle|H|mH|as_strided.*|(new_)?empty_(strided|permuted)",
        # To be built: special functions, and rarer functions of tensors.
        r"special\.(airy_ai|(modified_|spherical_|scaled_modified_)?bessel.*|erfcx|log_ndtr|ndtri)",
        r"special\.((shifted_)?chebyshev.*|hermite.*|laguerre.*|legendre.*|zeta)",
        r"igammac?|nextafter|frexp|histogramdd|resize_(as_)?|nonzero_static",
        r"geqrf|lu.*|matrix_exp|ormqr|triangular_solve|.*_lowrank",
    )
)  # fmt: skip


def known(name: str, dtype: str, message: str) -> str | None:
    """Why a failure is expected; `None` where it is not."""
    for row in KNOWN:
        if row.names.fullmatch(name) and dtype in row.dtypes and row.message.search(message):
            return row.reason
    return None


LAYERS: tuple[tuple[re.Pattern[str], re.Pattern[str], str], ...] = tuple(
    (re.compile(names), re.compile(text), reason)
    for names, text, reason in (
        ("Hardsigmoid", "gradient", "PyTorch's kernel rounds the sixth to float32"),
        (
            "CosineSimilarity",
            "gradient",
            "below eps PyTorch lets the gradient of the norm through, which the formula does not",
        ),
        ("CTCLoss", "has no derivative", "first derivatives only, and an error that says so"),
        ("CTCLoss", "gradient 1", "PyTorch's float32 is 8e-5 from float64, treadle's 8e-6"),
        ("TransformerEncoder", "not a Module subclass", "the case holds a layer of PyTorch's own"),
    )
)


def known_layer(name: str, message: str) -> str | None:
    """Why a failure of a layer is expected; `None` where it is not."""
    for names, text, reason in LAYERS:
        if names.fullmatch(name) and text.search(message):
            return reason
    return None


OPTIMIZERS_WITHOUT_CASE = {
    "Optimizer": "the base class",
    "SparseAdam": "sparse gradients are a later issue",
}

SCHEDULES_WITHOUT_CASE = {
    "LRScheduler": "the base class",
    "ChainedScheduler": "tests/test_optim_parity.py",
    "SequentialLR": "tests/test_optim_parity.py",
}

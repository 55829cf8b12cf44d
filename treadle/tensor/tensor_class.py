"""The tensor: a value that is recorded now and computed when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from treadle.base import dtype as dt
from treadle.base.device import Device, device_of
from treadle.base.dtype import DType
from treadle.base.errors import GradientError
from treadle.base.lazy import LazyModule
from treadle.base.shape import count, strides
from treadle.graph.capture import CONSTANT, DERIVED, LEAF
from treadle.ops.pointwise import BITCAST
from treadle.ops.view import ALIAS
from treadle.tensor import arithmetic as ar
from treadle.tensor import autograd, creation, indexing, inplace, linear_algebra, movement
from treadle.tensor import reduction as red
from treadle.tensor.format import format_tensor
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.handle import RemovableHandle
from treadle.tensor.methods import attach
from treadle.tensor.naming import GradientFunction, gradient_name
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import (
    Lazy,
    concrete,
    position,
    record,
    recorder,
    run,
    tensor_class,
    view,
)
from treadle.tensor.size import Size

np = LazyModule("numpy")


@tensor_class
class Tensor(Lazy):
    """A multi-dimensional array that records what is done to it.

    Shape, dtype and device are always known; the elements are computed when they are read, or at
    the end of `optimizer.step()`. Made by `treadle.tensor` and the other creation functions.
    """

    if TYPE_CHECKING:
        # The functions that are methods too are attached below: their types are the functions'.
        def __getattr__(self, name: str) -> Any: ...

    __slots__ = ()
    __array_priority__ = 1000

    def __new__(cls, *data: Any) -> Tensor:
        """A tensor of the data as float32, or zeros of a shape given as numbers."""
        if not data or type(data[0]) is int:
            return creation.zeros(data or (0,), dtype=dt.float32)
        out = creation.tensor(*data)
        return as_dtype(out, out.dtype if isinstance(data[0], Lazy) else dt.float32)

    # --- what it is --------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The extents."""
        return Size(self._node.shape)

    @property
    def dtype(self) -> DType:
        """The element type."""
        dtype: DType = self._node.dtype
        return dtype

    @property
    def device(self) -> Device:
        """Where the elements live."""
        device: Device = self._node.device
        return device

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._node.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self._node.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one extent of it."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return count(self._node.shape)

    nelement = numel
    ndimension = dim

    def element_size(self) -> int:
        """Bytes an element."""
        return self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Elements between neighbours along each axis: always those of a row-major layout."""
        steps = strides(self._node.shape)
        return steps if dim is None else steps[dim]

    def is_contiguous(self) -> bool:
        """True: how a value lies in memory is the compiler's affair."""
        return True

    def contiguous(self) -> Tensor:
        """The tensor itself."""
        return self

    is_cuda = is_sparse = is_quantized = False

    def is_complex(self) -> bool:
        """False: treadle has no complex numbers."""
        return False

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype.is_floating_point

    def __len__(self) -> int:
        if not self._node.shape:
            raise TypeError("len() of a 0-d tensor")
        return int(self._node.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if not self._node.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(movement.unbind(self))

    def __repr__(self) -> str:
        return format_tensor(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self._node.shape else format(repr(self), spec)

    def __hash__(self) -> int:
        return id(self)

    # --- reading -----------------------------------------------------------------------------

    def numpy(self) -> Any:
        """The elements as a read-only NumPy array on the same memory.

        Raises:
            RuntimeError: the tensor requires grad; hint: `.detach().numpy()`.
        """
        if self._needs:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy()."
            )
        return self._array()

    def _array(self) -> Any:
        run(self)
        return self._buffer.view(self.dtype, self._node.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        return array.astype(dtype) if dtype is not None and dtype != array.dtype else (
            array.copy() if copy else array)  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        """The DLPack device: (1, 0), the host."""
        return (1, 0)

    def item(self) -> Any:
        """The only element as a Python number.

        Raises:
            RuntimeError: there is more than one element, or none.
        """
        if self.numel() != 1:
            raise RuntimeError(
                f"a Tensor with {self.numel()} elements cannot be converted to Scalar"
            )
        return self._array().item()

    def tolist(self) -> Any:
        """The elements as nested lists, or a number."""
        return self._array().tolist()

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise RuntimeError(
                "Boolean value of Tensor with more than one value is ambiguous"
                if self.numel()
                else "Boolean value of Tensor with no values is ambiguous"
            )
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __contains__(self, value: Any) -> bool:
        return bool(red.any(ar.eq(self, value)).item())

    def __reduce_ex__(self, protocol: Any) -> Any:
        array = self._array().copy()
        if self.dtype is dt.bfloat16:
            return _rebuild_bits, (array.view(np.uint16), self.requires_grad)
        return _rebuild, (array, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._needs == DERIVED:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support deepcopy"
            )
        out = self.detach().clone()
        if self._needs:
            out.requires_grad_()
        memo[id(self)] = out
        return out

    # --- autograd ----------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor."""
        return bool(self._needs)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Turns the collection of gradients at a leaf on or off; returns the tensor.

        Raises:
            RuntimeError: the tensor is no leaf, or is not floating point.
        """
        if self._needs == DERIVED:
            if requires_grad:
                return self
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables; hint: .detach()"
            )
        if requires_grad and not self.dtype.is_floating_point:
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        if bool(self._needs) == requires_grad:
            return self
        if self._buffer is None or self._base is not None:
            value = record(ALIAS, (self,), (), LEAF if requires_grad else CONSTANT)
            self._trace, self._pos, self._node = value._trace, value._pos, value._node
            self._needs = LEAF if requires_grad else CONSTANT
            self._buffer, self._base = value._buffer, None
            inplace.hold_again(self)
            if requires_grad and self._trace is not None:
                self._trace.leaf_handles[self._pos] = self
        else:
            self._needs = LEAF if requires_grad else CONSTANT
            self._trace = None
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was not computed from one that requires grad."""
        return bool(self._needs != DERIVED)

    @property
    def grad(self) -> Tensor | None:
        """The gradient collected so far, or `None`."""
        found: Tensor | None = self._grad
        return found

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and tuple(value._node.shape) != tuple(self._node.shape):
            raise RuntimeError(
                f"assigned grad has data of a different size: {tuple(value.shape)}, "
                f"expected {tuple(self.shape)}"
            )
        self._grad = value

    @property
    def grad_fn(self) -> Any:
        """What computed the tensor, for people to look at; `None` for a leaf."""
        if self._needs != DERIVED:
            return None
        trace, pos = autograd.origin(self)
        call = trace.functions.get(pos)
        return GradientFunction(
            call.name if call is not None else gradient_name(trace.state.path()[pos])
        )

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Adds the gradients of this tensor to `.grad` of the leaves that it was computed from.

        Args:
            gradient: the weight of each element, of this shape; needed unless there is one element.
            retain_graph: keep what the pass needs, so that it may be repeated.
            create_graph: record the gradients with history.
            inputs: collect gradients at these tensors only.

        Raises:
            GradientError: nothing requires grad, the weight is missing, or the graph was freed.
        """
        keep = create_graph if retain_graph is None else retain_graph
        autograd.backward([self], [gradient], keep, create_graph, inputs)

    def detach(self) -> Tensor:
        """The same elements without history: a view that takes no gradient."""
        with no_grad():
            return view(ALIAS, self, ())

    def detach_(self) -> Tensor:
        """Cuts this tensor from its history; returns it."""
        value = self.detach()
        self._trace, self._pos, self._node = value._trace, value._pos, value._node
        self._needs, self._buffer = CONSTANT, value._buffer
        inplace.hold_again(self)
        return self

    @property
    def data(self) -> Tensor:
        """The same elements without history; writes to it are seen by this tensor."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        inplace.replace(self, value)

    def _own(self, kind: str) -> dict[Any, Any]:
        if self._extra is None:
            self._extra = {}
        found: dict[Any, Any] = self._extra.setdefault(kind, {})
        return found

    def retain_grad(self) -> None:
        """Keeps the gradient of a tensor that is no leaf in `.grad`."""
        if self._needs != DERIVED or self.retains_grad:
            return
        self._own("retains")[True] = True
        reference = ref(self)

        def keep(g: Tensor) -> None:
            t = reference()
            if t is not None:
                t._grad = g if t._grad is None else ar.add(t._grad, g)

        self.register_hook(keep)

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad()` was called on a tensor that is no leaf."""
        return bool(self._extra and self._extra.get("retains"))

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Calls a function with the gradient of this tensor; what it returns replaces it.

        Returns:
            A handle whose `remove()` takes the hook away.
        """
        if not self._needs:
            raise GradientError("cannot register a hook on a tensor that doesn't require gradient")
        if self._needs == LEAF:
            return _registered(self._own("hooks"), hook)
        current = recorder().trace
        position(current, self)
        trace, pos = autograd.origin(self)
        hooks = trace.hooks.setdefault(pos, [])
        hooks.append(hook)
        return RemovableHandle(lambda: hooks.remove(hook))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Calls a function with this leaf each time after `backward()` added to its `.grad`."""
        if self._needs != LEAF:
            raise GradientError(
                "post accumulate grad hooks cannot be registered on non-leaf tensors"
            )
        return _registered(self._own("after"), hook)

    # --- conversion --------------------------------------------------------------------------

    def to(self, *args: Any, dtype: DType | None = None, device: Any = None, copy: bool = False,
           non_blocking: bool = False) -> Tensor:  # fmt: skip
        """In another dtype or on another device: `to(dtype)`, `to(device)`, `to(other_tensor)`."""
        for arg in args:
            if isinstance(arg, DType):
                dtype = arg
            elif isinstance(arg, Lazy):
                dtype = arg._node.dtype
            elif isinstance(arg, (Device, str)):
                device = arg
        device_of(device)
        out: Any = self if dtype is None else as_dtype(self, dtype)
        return out.clone() if copy and out is self else out

    def type(self, dtype: DType | None = None) -> Any:
        """In another dtype; without one, the name of the type."""
        return f"treadle.{self.dtype.name}" if dtype is None else as_dtype(self, dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of another tensor."""
        return self.to(other.dtype)

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self

    def float(self) -> Tensor:
        """As float32."""
        return self.to(dt.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(dt.float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.to(dt.float16)

    def bfloat16(self) -> Tensor:
        """As bfloat16."""
        return self.to(dt.bfloat16)

    def long(self) -> Tensor:
        """As int64."""
        return self.to(dt.int64)

    def int(self) -> Tensor:
        """As int32."""
        return self.to(dt.int32)

    def bool(self) -> Tensor:
        """As bool: whether an element is not zero."""
        return self.to(dt.bool_)

    def short(self) -> Tensor:
        """As int16."""
        return self.to(dt.int16)

    def char(self) -> Tensor:
        """As int8."""
        return self.to(dt.int8)

    def byte(self) -> Tensor:
        """As uint8."""
        return self.to(dt.uint8)

    def clone(self) -> Tensor:
        """A copy that later writes to this tensor do not change; gradients flow through."""
        return record(ALIAS, (self,))

    # --- operators ---------------------------------------------------------------------------

    __add__ = ar.operator(ar.add)
    __radd__ = ar.reflected(ar.add)
    __sub__ = ar.operator(ar.sub)
    __rsub__ = ar.reflected(ar.sub)
    __mul__ = ar.operator(ar.mul)
    __rmul__ = ar.reflected(ar.mul)
    __truediv__ = ar.operator(ar.div)
    __rtruediv__ = ar.reflected(ar.div)
    __floordiv__ = ar.operator(ar.floor_divide)
    __rfloordiv__ = ar.reflected(ar.floor_divide)
    __mod__ = ar.operator(ar.remainder)
    __rmod__ = ar.reflected(ar.remainder)
    __pow__ = ar.operator(ar.pow)
    __rpow__ = ar.reflected(ar.pow)
    __matmul__ = ar.operator(linear_algebra.matmul)
    __rmatmul__ = ar.reflected(linear_algebra.matmul)
    __and__ = ar.operator(ar.bitwise_and)
    __rand__ = ar.reflected(ar.bitwise_and)
    __or__ = ar.operator(ar.bitwise_or)
    __ror__ = ar.reflected(ar.bitwise_or)
    __xor__ = ar.operator(ar.bitwise_xor)
    __rxor__ = ar.reflected(ar.bitwise_xor)
    __lshift__ = ar.operator(ar.bitwise_left_shift)
    __rshift__ = ar.operator(ar.bitwise_right_shift)
    __eq__ = ar.operator(ar.eq)
    __ne__ = ar.operator(ar.ne)
    __lt__ = ar.operator(ar.lt)
    __le__ = ar.operator(ar.le)
    __gt__ = ar.operator(ar.gt)
    __ge__ = ar.operator(ar.ge)
    __neg__ = ar.neg
    __abs__ = ar.abs
    __invert__ = ar.bitwise_not
    __getitem__ = indexing.getitem
    __setitem__ = indexing.setitem

    def __pos__(self) -> Tensor:
        return self

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return movement.permute(self, *reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return movement.transpose(self, -2, -1)

    def new_zeros(self, *size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
        """Zeros of this dtype."""
        return creation.zeros(*size, dtype=dtype or self.dtype, **options)

    def new_ones(self, *size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
        """Ones of this dtype."""
        return creation.ones(*size, dtype=dtype or self.dtype, **options)

    new_empty = new_zeros

    def new_full(self, size: Any, fill_value: Any, *, dtype: DType | None = None,
                 **options: Any) -> Tensor:  # fmt: skip
        """One value everywhere, of this dtype."""
        return creation.full(size, fill_value, dtype=dtype or self.dtype, **options)

    def new_tensor(self, data: Any, *, dtype: DType | None = None, **options: Any) -> Tensor:
        """The data as a tensor of this dtype."""
        return creation.tensor(data, dtype=dtype or self.dtype, **options)

    def view(self, *shape: Any) -> Tensor:
        """The elements in row-major order under another shape, or `view(dtype)`: the bits as
        another dtype of the same size."""
        if len(shape) == 1 and isinstance(shape[0], DType):
            return view(BITCAST, self, shape)
        return movement.reshape(self, *shape)

    def where(self, condition: Tensor, y: Any) -> Tensor:
        """This where the condition holds, else `y`, broadcast."""
        return ar.where(condition, self, y)

    def view_as(self, other: Tensor) -> Tensor:
        """In the shape of another tensor."""
        return movement.reshape(self, other._node.shape)

    reshape_as = view_as


def _registered(table: dict[Any, Any], hook: Any) -> RemovableHandle:
    key = object()
    table[key] = hook
    return RemovableHandle(lambda: table.pop(key, None))


def _rebuild(array: Any, requires_grad: bool) -> Tensor:
    """A tensor out of a pickle."""
    return creation.from_numpy(array).requires_grad_(requires_grad)


def _rebuild_bits(array: Any, requires_grad: bool) -> Tensor:
    """A bfloat16 tensor out of a pickle of its bits."""
    return _rebuild(array.view(dt.bfloat16.numpy), requires_grad)


attach(Tensor)
__all__ = ["GradientFunction", "RemovableHandle", "Size", "Tensor", "concrete"]

"""Modules: members, traversal, state, hooks, copies, printing."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 2, bias=False)
        self.register_buffer("scale", treadle.ones(2))
        self.register_buffer("passing", treadle.zeros(1), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).relu()) * self.scale


def test_members_are_found_by_name_and_in_order() -> None:
    net = Net()
    names = ["first.weight", "first.bias", "second.weight"]
    assert [n for n, _ in net.named_parameters()] == names
    assert [n for n, _ in net.named_buffers()] == ["scale", "passing"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "second"]
    assert [n for n, _ in net.named_children()] == ["first", "second"]
    assert list(net.state_dict()) == ["scale", *names]
    assert net.get_parameter("first.weight") is net.first.weight
    assert net.get_submodule("second") is net.second
    assert net.get_buffer("scale") is net.scale


def test_shared_members_are_given_once() -> None:
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.Sequential(layer))
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    assert len(list(net.modules())) == 3


def test_assignment_keeps_the_kinds_apart() -> None:
    net = Net()
    with pytest.raises(TypeError, match=r"cannot assign 'treadle.float32' as parameter 'weight'"):
        net.first.weight = treadle.ones(3, 4)
    with pytest.raises(TypeError, match="as child module 'first'"):
        net.first = 3
    net.scale = treadle.zeros(2)
    assert net._buffers["scale"] is net.scale
    net.first.bias = None
    assert "first.bias" not in net.state_dict()
    net.plain = 1
    net.plain = nn.Parameter(treadle.ones(1))
    assert "plain" in net._parameters
    del net.plain
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'plain'"):
        net.plain  # noqa: B018
    with pytest.raises(KeyError, match="already exists"):
        net.register_buffer("first", treadle.ones(1))
    with pytest.raises(KeyError, match=r"name can.*t contain"):
        net.add_module("a.b", nn.ReLU())


def test_writing_to_the_tables_is_seen_by_attributes() -> None:
    layer = nn.Linear(2, 2)
    fresh = nn.Parameter(treadle.zeros(2, 2))
    layer._parameters["weight"] = fresh
    assert layer.weight is fresh
    del layer._parameters["weight"]
    assert not hasattr(layer, "weight")


def test_a_module_before_its_init_refuses_members() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()


def test_forward_must_be_defined() -> None:
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        nn.Module()(1)


def test_state_is_loaded_in_place() -> None:
    source, target = Net(), Net()
    weight = target.first.weight
    found = target.load_state_dict(source.state_dict())
    assert repr(found) == "<All keys matched successfully>"
    assert target.first.weight is weight
    np.testing.assert_array_equal(weight.detach().numpy(), source.first.weight.detach().numpy())


def test_state_that_does_not_fit_is_reported_as_a_whole() -> None:
    state = Net().state_dict()
    state["first.weight"] = treadle.zeros(3, 5)
    state["other"] = state.pop("scale")
    with pytest.raises(RuntimeError) as caught:
        Net().load_state_dict(state)
    text = str(caught.value)
    assert text.startswith("Error(s) in loading state_dict for Net:\n\t")
    assert 'Missing key(s) in state_dict: "scale". ' in text
    assert 'Unexpected key(s) in state_dict: "other". ' in text
    assert "size mismatch for first.weight: copying a param with shape treadle.Size([3, 5])" in text
    assert "the shape in current model is treadle.Size([3, 4])." in text
    state["first.weight"] = treadle.zeros(3, 4)
    found = Net().load_state_dict(state, strict=False)
    assert found.missing_keys == ["scale"] and found.unexpected_keys == ["other"]


def test_state_can_be_assigned() -> None:
    net = Net()
    state = {k: v.clone() for k, v in Net().state_dict().items()}
    net.load_state_dict(state, assign=True)
    assert isinstance(net.first.weight, nn.Parameter) and net.first.weight.requires_grad
    np.testing.assert_array_equal(net.first.weight.detach().numpy(), state["first.weight"].numpy())


def test_extra_state_travels_along() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def get_extra_state(self) -> Any:
            return self.count

        def set_extra_state(self, state: Any) -> None:
            self.count = state

    source, target = nn.Sequential(Counted()), nn.Sequential(Counted())
    source[0].count = 3
    target.load_state_dict(source.state_dict())
    assert target[0].count == 3


def test_modes_reach_every_module() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    assert not any(m.training for m in net.eval().modules())
    assert all(m.training for m in net.train().modules())


def test_gradients_are_dropped_or_zeroed() -> None:
    net = nn.Linear(2, 1)
    net(treadle.ones(1, 2)).sum().backward()
    assert net.weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert net.weight.grad is not None and net.weight.grad.tolist() == [[0.0, 0.0]]
    net.zero_grad()
    assert net.weight.grad is None
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


def test_conversion_keeps_the_parameters_themselves() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weight = net[0].weight
    net.double()
    assert net[0].weight is weight and weight.dtype is treadle.float64 and weight.requires_grad
    assert net[1].running_mean.dtype is treadle.float64
    assert net[1].num_batches_tracked.dtype is treadle.int64
    assert net.to(treadle.float32)[0].weight.dtype is treadle.float32
    net(treadle.ones(2, 2)).sum().backward()
    assert weight.grad is not None and weight.grad.dtype is treadle.float32


def test_apply_visits_children_first() -> None:
    seen: list[str] = []
    Net().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "Net"]


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_independent(copier: Any) -> None:
    net = Net()
    twin = copier(net)
    assert repr(twin) == repr(net)
    for (a, p), (b, q) in zip(net.named_parameters(), twin.named_parameters(), strict=True):
        assert a == b and p is not q and isinstance(q, nn.Parameter)
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
    twin.first.weight = nn.Parameter(treadle.zeros(3, 4))
    assert twin._parameters is not net._parameters
    assert twin.first._parameters["weight"] is twin.first.weight
    twin._modules["first"] = nn.Linear(1, 1)
    assert twin.first.in_features == 1 and net.first.in_features == 4


def test_parameters_print_themselves() -> None:
    p = nn.Parameter(treadle.ones(2))
    assert repr(p).startswith("Parameter containing:\ntensor([1., 1.]")
    assert isinstance(copy.deepcopy(p), nn.Parameter)
    assert pickle.loads(pickle.dumps(p)).requires_grad


def test_a_parameter_takes_over_a_value_that_is_still_pending() -> None:
    value = treadle.ones(2) * 3
    p = nn.Parameter(value)
    (p * p).sum().backward()
    assert p.is_leaf and p.grad is not None and p.grad.tolist() == [6.0, 6.0]


def test_buffers_as_attributes() -> None:
    net = nn.Module()
    net.kept = nn.Buffer(treadle.ones(1))
    net.dropped = nn.Buffer(treadle.ones(1), persistent=False)
    assert list(net.state_dict()) == ["kept"]


# --- hooks -------------------------------------------------------------------------------------


def test_forward_hooks_may_replace_arguments_and_results() -> None:
    layer = nn.Identity()
    with layer.register_forward_pre_hook(lambda m, args: args[0] + 1):
        with layer.register_forward_hook(lambda m, args, out: out * 2):
            assert layer(treadle.ones(1)).item() == 4.0
        assert layer(treadle.ones(1)).item() == 2.0
    assert layer(treadle.ones(1)).item() == 1.0


def test_hooks_keep_their_order() -> None:
    layer, seen = nn.Identity(), []
    layer.register_forward_hook(lambda *_: seen.append("a"))
    layer.register_forward_hook(lambda *_: seen.append("b"), prepend=True)
    layer.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(sorted(kwargs)), with_kwargs=True
    )
    nn.Module.__call__(layer, treadle.ones(1))
    assert seen == [[], "b", "a"]


def test_backward_hooks_see_both_ends() -> None:
    layer = nn.Linear(2, 1)
    seen: dict[str, Any] = {}

    def before(module: Any, grads: Any) -> None:
        seen["before"] = grads[0].tolist()

    def after(module: Any, grad_input: Any, grad_output: Any) -> Any:
        seen["in"], seen["out"] = grad_input[0].tolist(), grad_output[0].tolist()
        return (grad_input[0] * 10,)

    layer.register_full_backward_pre_hook(before)
    layer.register_full_backward_hook(after)
    x = treadle.ones(1, 2).requires_grad_()
    (layer(x) * 3).sum().backward()
    weight = layer.weight.tolist()[0]
    assert seen["before"] == seen["out"] == [[3.0]]
    np.testing.assert_allclose(seen["in"], [[3 * w for w in weight]], rtol=1e-6)
    np.testing.assert_allclose(x.grad.tolist(), [[30 * w for w in weight]], rtol=1e-6)
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[3.0, 3.0]]


def test_state_hooks() -> None:
    layer, seen = nn.Linear(1, 1), []
    layer.register_state_dict_post_hook(lambda m, state, prefix, local: seen.append(list(state)))
    layer.register_load_state_dict_post_hook(lambda m, found: seen.append(found.missing_keys))
    layer.load_state_dict(layer.state_dict())
    assert seen == [["weight", "bias"], []]


# --- containers --------------------------------------------------------------------------------


def test_sequential_is_a_row() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(net) == 3 and isinstance(net[-1], nn.Linear) and len(net[:2]) == 2
    net.append(nn.Tanh())
    net.insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "Linear", "ReLU", "Linear", "Tanh"]
    assert list(net._modules) == ["0", "1", "2", "3", "4"]
    del net[0]
    assert isinstance(net.pop(), nn.Tanh) and list(net._modules) == ["0", "1", "2"]
    named = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh()))
    assert isinstance(named.b, nn.Tanh) and list(named[1:]._modules) == ["b"]
    assert len(net + named) == 5


def test_lists_and_dicts_of_modules() -> None:
    row = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    row.extend([nn.ReLU()])
    row[0] = nn.Tanh()
    assert [type(m).__name__ for m in row] == ["Tanh", "Linear", "Linear", "ReLU"]
    assert repr(row) == (
        "ModuleList(\n  (0): Tanh()\n"
        "  (1-2): 2 x Linear(in_features=1, out_features=1, bias=True)\n  (3): ReLU()\n)"
    )
    table = nn.ModuleDict({"a": nn.ReLU()})
    table["b"] = nn.Linear(1, 1)
    assert list(table) == ["a", "b"] and "a" in table
    assert [n for n, _ in table.named_parameters()] == ["b.weight", "b.bias"]
    table.pop("a")
    assert len(table) == 1


def test_lists_and_dicts_of_parameters() -> None:
    row = nn.ParameterList([treadle.ones(2), nn.Parameter(treadle.ones(1))])
    assert [n for n, _ in row.named_parameters()] == ["0", "1"]
    assert repr(row).splitlines()[1] == "    (0): Parameter containing: [treadle.float32 of size 2]"
    table = nn.ParameterDict({"a": treadle.ones(2)})
    assert isinstance(table["a"], nn.Parameter) and list(table.keys()) == ["a"]
    assert copy.deepcopy(table)["a"].tolist() == [1.0, 1.0]


def test_printing_nests() -> None:
    assert repr(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n"
        "  (0): Linear(in_features=4, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )

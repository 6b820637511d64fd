"""LARS, LAMB and TVLARS: as their equations say, written out number by number; the same in every way."""

import copy
import math
import re
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from workers.optimizers.lamb import Lamb
from workers.optimizers.lars import Lars
from workers.optimizers.layerwise import LayerWise
from workers.optimizers.tvlars import Tvlars, phi

CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last

each_way = pytest.mark.parametrize("foreach", [False, True, None], ids=["each", "foreach", "fused"])


def small_net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def conv_net():
    """A net with a weight whose elements lie in another order in the channels-last format."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Unflatten(1, (2, 1, 2)), nn.Conv2d(2, 3, (1, 2)), nn.Flatten()).double()


def gradients(net, number):
    """Set the gradients of a net to those of one batch."""
    generator = torch.Generator().manual_seed(number)
    inputs, targets = (torch.randn(8, size, generator=generator, dtype=torch.float64) for size in (4, 3))
    net.zero_grad()
    mse_loss(net(inputs), targets).backward()


def steps(net, optimizer, numbers):
    for number in numbers:
        gradients(net, number)
        optimizer.step()


def weights(net):
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


# --- the slow obvious reference: one number after another ---------------------------------------------


def norm(values):
    return math.sqrt(sum(value * value for value in values))


def lars(w, g, state, t, adapted, *, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3, eps=1e-8, **tvlars):
    d = weight_decay if adapted else 0.0
    u = [gi + d * wi for wi, gi in zip(w, g, strict=True)]
    limit = tvlars.get("max_norm") or math.inf
    w_norm, u_norm = min(norm(w), limit), min(norm(u), limit)
    ratio = trust_coefficient * w_norm / (u_norm + eps) if adapted and w_norm > 0 and u_norm > 0 else 1.0
    if tvlars:
        exponential = math.exp(tvlars["decay"] * (t - tvlars.get("delay", 0)))
        ratio *= 1 / (tvlars.get("alpha", 1) + exponential) + tvlars.get("minimum", 0)
    v = state.setdefault("v", [0.0] * len(w))
    v[:] = [momentum * vi + ratio * ui for vi, ui in zip(v, u, strict=True)]
    return [wi - lr * vi for wi, vi in zip(w, v, strict=True)]


def lamb(w, g, state, t, adapted, *, lr, weight_decay=0.0, bias_correction=False, max_trust_ratio=math.inf):
    beta1, beta2, eps = 0.9, 0.999, 1e-6
    m, v = state.setdefault("m", [0.0] * len(w)), state.setdefault("v", [0.0] * len(w))
    m[:] = [beta1 * mi + (1 - beta1) * gi for mi, gi in zip(m, g, strict=True)]
    v[:] = [beta2 * vi + (1 - beta2) * gi * gi for vi, gi in zip(v, g, strict=True)]
    correction1, correction2 = (1 - beta1 ** (t + 1), 1 - beta2 ** (t + 1)) if bias_correction else (1, 1)
    r = [mi / correction1 / (math.sqrt(vi / correction2) + eps) for mi, vi in zip(m, v, strict=True)]
    if adapted:
        r = [ri + weight_decay * wi for ri, wi in zip(r, w, strict=True)]
    ratio = min(min(norm(w), 10) / norm(r), max_trust_ratio) if adapted and norm(w) > 0 and norm(r) > 0 else 1.0
    return [wi - lr * ratio * ri for wi, ri in zip(w, r, strict=True)]


def reference(equation, net, count, *, adapt_1d=False, **options):
    states = [{} for _ in net.parameters()]
    for t in range(count):
        gradients(net, t)
        for parameter, state in zip(net.parameters(), states, strict=True):
            w, g = (tensor.reshape(-1).tolist() for tensor in (parameter, parameter.grad))
            adapted = parameter.dim() > 1 or adapt_1d
            new = equation(w, g, state, t, adapted, **options)
            parameter.data = torch.tensor(new, dtype=torch.float64).view_as(parameter)
    return weights(net)


@each_way
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("optimizer", "equation", "options"),
    [
        (Lars, lars, {"lr": 5.0}),
        (Lars, lars, {"lr": 5.0, "weight_decay": 0.01, "momentum": 0.5, "trust_coefficient": 0.01, "eps": 0.1}),
        (Lars, lars, {"lr": 5.0, "weight_decay": 0.01, "adapt_1d": True}),
        (Lars, lars, {"lr": 5.0, "weight_decay": 0.01, "momentum": 0.0}),
        (Tvlars, lars, {"lr": 5.0, "weight_decay": 0.01, "decay": 0.1, "delay": 20, "minimum": 0.05}),
        (Tvlars, lars, {"lr": 5.0, "momentum": 0.0, "decay": 0.1, "delay": 20, "minimum": 0.05}),
        (Tvlars, lars, {"lr": 5.0, "weight_decay": 0.01, "decay": 0.1, "alpha": 0.1, "max_norm": 1.5}),
        (Lamb, lamb, {"lr": 0.01}),
        (Lamb, lamb, {"lr": 0.01, "weight_decay": 0.1, "bias_correction": True, "adapt_1d": True}),
        (Lamb, lamb, {"lr": 0.01, "weight_decay": 0.1, "max_trust_ratio": 0.5}),
    ],
    ids="lars lars-decay lars-1d lars-plain tvlars tvlars-plain tvlars-code lamb lamb-corrected lambc".split(),
)
def test_fifty_steps_are_those_of_the_equation(optimizer, equation, options, seed, foreach):
    net = small_net(seed)
    start, expected = weights(net), reference(equation, copy.deepcopy(net), 50, **options)
    steps(net, optimizer(net.parameters(), foreach=foreach, **options), range(50))
    assert (expected - start).norm() > 0.01 * start.norm()  # it went somewhere
    assert (weights(net) - expected).norm() < 1e-10 * expected.norm()


def test_layers_of_several_chunks_are_adapted_as_a_whole():
    expected = reference(lars, small_net(0), 50, lr=5.0, weight_decay=0.01)
    net = small_net(0)
    with patch("workers.optimizers.layerwise.CHUNK", 7):  # of 20 and 15 weights
        steps(net, Lars(net.parameters(), lr=5.0, weight_decay=0.01), range(50))
    assert (weights(net) - expected).norm() < 1e-10 * expected.norm()


@each_way
def test_lars_without_adaptation_is_torchs_sgd(foreach):
    net, theirs = small_net(3), small_net(3)
    with patch.object(Lars, "_trust", lambda self, weight_norms, *_: weight_norms / weight_norms):
        optimizer = Lars(net.parameters(), lr=0.1, momentum=0.8, weight_decay=0.01, adapt_1d=True, foreach=foreach)
        steps(net, optimizer, range(50))
    steps(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.8, weight_decay=0.01), range(50))
    torch.testing.assert_close(weights(net), weights(theirs), rtol=1e-12, atol=1e-14)


def test_what_is_excluded_goes_torchs_way():
    """Biases: neither adapted nor decayed."""
    for ours, theirs in (
        (Lars([torch.zeros(3)], lr=0.1, weight_decay=0.5), torch.optim.SGD([torch.zeros(3)], lr=0.1, momentum=0.9)),
        (
            Lamb([torch.zeros(3)], lr=0.1, eps=1e-8, weight_decay=0.5, bias_correction=True),
            torch.optim.Adam([torch.zeros(3)], lr=0.1),
        ),
    ):
        [mine], [its] = ours.param_groups[0]["params"], theirs.param_groups[0]["params"]
        for number in range(5):
            mine.grad = its.grad = torch.tensor([1.0, -2.0, 3.0]) + number
            ours.step()
            theirs.step()
        torch.testing.assert_close(mine, its)
        assert mine.abs().min() > 0.1


# --- trust ratios --------------------------------------------------------------------------------------


def with_gradients(*pairs):
    parameters = [nn.Parameter(torch.tensor(weight)) for weight, _ in pairs]
    for parameter, (_, gradient) in zip(parameters, pairs, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


@each_way
def test_trust_ratios_are_told_in_the_order_of_the_parameters(foreach):
    bias, weight, untouched = with_gradients(([1.0, 2.0], [1.0, 1.0]), ([[3.0, 4.0]], [[0.0, 0.5]]), ([[1.0]], [[1.0]]))
    untouched.grad = None
    optimizer = Lars([bias, weight, untouched], lr=1.0, trust_coefficient=0.01, eps=0.0, foreach=foreach)
    assert [float(ratio) for ratio in optimizer.trust_ratios()] == [1, 1, 1]  # before the first step
    optimizer.step()
    ratios = optimizer.trust_ratios()
    assert [ratio.shape for ratio in ratios] == [()] * 3
    assert [float(ratio) for ratio in ratios] == pytest.approx([1, 0.01 * 5 / 0.5, 1])
    torch.testing.assert_close(bias.detach(), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 3.95]]))


@each_way
@pytest.mark.parametrize("optimizer", [Lars, Tvlars, Lamb])
def test_a_zero_norm_gives_ratio_1(optimizer, foreach):
    parameters = with_gradients(([[0.0, 0.0]], [[1.0, 2.0]]), ([[1.0, 2.0]], [[0.0, 0.0]]))
    layerwise = optimizer(parameters, lr=0.1, foreach=foreach)
    layerwise.step()
    assert [float(ratio) for ratio in layerwise.trust_ratios()] == [1, 1]
    assert parameters[0].detach().abs().min() > 0
    assert parameters[1].tolist() == [[1.0, 2.0]]


@each_way
def test_lambc_clips_the_ratio(foreach):
    # after one step r is 0.1 / sqrt(0.001) = 3.1623 for every element
    pairs = [([[30.0, 40.0]], [[1.0, 1.0]]), ([[3.0, 4.0]], [[1.0, 1.0]]), ([[0.3, 0.4]], [[1.0, 1.0]])]
    plain = [2.2361, 1.1180, 0.1118]  # ||w|| of at most 10 over 4.4721
    for limit, expected in ((None, plain), (2.0, [2.0, *plain[1:]]), (0.5, [0.5, 0.5, plain[2]])):
        optimizer = Lamb(with_gradients(*pairs), lr=0.1, max_trust_ratio=limit, foreach=foreach)
        optimizer.step()
        assert [float(ratio) for ratio in optimizer.trust_ratios()] == pytest.approx(expected, rel=1e-3)


# --- phi --------------------------------------------------------------------------------------------------


@given(
    t=st.integers(0, 10**6),
    alpha=st.floats(0.01, 10),
    decay=st.floats(0, 1),
    delay=st.integers(0, 10**6),
    minimum=st.floats(0, 1),
)
def test_phi_stays_within_its_bounds_and_falls(t, alpha, decay, delay, minimum):
    now, later = phi(
        torch.tensor([t, t + 1], dtype=torch.float64), alpha=alpha, decay=decay, delay=delay, minimum=minimum
    ).tolist()
    assert minimum <= later <= now <= 1 / (alpha + math.exp(-decay * delay)) + minimum


def test_phi_in_numbers():
    t = torch.tensor([0.0, 100.0, 200.0, 1e9], dtype=torch.float64)
    told = phi(t, alpha=1.0, decay=0.01, delay=100, minimum=0.001)
    assert told.tolist() == pytest.approx([0.7321, 0.501, 0.2699, 0.001], abs=1e-4)
    assert phi(t[:1], alpha=0.1, decay=0.01, delay=0, minimum=0.0).tolist() == pytest.approx([1 / 1.1])


# --- state ------------------------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("optimizer", [Lars, Tvlars, Lamb])
def test_a_state_dict_goes_on_with_the_same_bits(optimizer, foreach):
    options = {"lr": 0.5, "weight_decay": 0.01, "foreach": foreach} | ({"decay": 0.1} if optimizer is Tvlars else {})
    net = small_net(4)
    whole = optimizer(net.parameters(), **options)
    steps(net, whole, range(3))
    other = copy.deepcopy(net)
    resumed = optimizer(other.parameters(), **options)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    steps(net, whole, range(3, 6))
    steps(other, resumed, range(3, 6))
    assert torch.equal(weights(net), weights(other))
    if optimizer is not Lars:
        assert [float(state["step"]) for state in resumed.state.values()] == [6.0] * 4


each_equation = pytest.mark.parametrize(
    ("optimizer", "equation", "options"),
    [
        (Lars, lars, {"lr": 50.0, "weight_decay": 0.01}),
        (Tvlars, lars, {"lr": 50.0, "weight_decay": 0.01, "decay": 0.1, "delay": 10}),
        (Lamb, lamb, {"lr": 0.01, "weight_decay": 0.1, "bias_correction": True}),
    ],
    ids="lars tvlars lamb".split(),
)
each_change = pytest.mark.parametrize(
    ("before", "after"), [(CHANNELS_LAST, CONTIGUOUS), (CONTIGUOUS, CHANNELS_LAST)], ids=["to-contiguous", "to-last"]
)


@each_way
@each_equation
@each_change
def test_a_state_dict_goes_on_in_another_memory_order(optimizer, equation, options, before, after, foreach):
    expected = reference(equation, conv_net(), 20, **options)
    net = conv_net().to(memory_format=before)
    saved = optimizer(net.parameters(), foreach=foreach, **options)
    steps(net, saved, range(10))
    other = conv_net().to(memory_format=after)
    other.load_state_dict(net.state_dict())
    loaded = optimizer(other.parameters(), foreach=foreach, **options)
    loaded.load_state_dict(saved.state_dict())
    for parameter, state in loaded.state.items():  # as fast as from the first step on
        assert {value.stride() for name, value in state.items() if name != "step"} == {parameter.stride()}
    steps(other, loaded, range(10, 20))
    assert (weights(other) - expected).norm() < 1e-10 * expected.norm()


@each_way
@each_equation
@each_change
def test_the_memory_order_may_change_in_mid_training(optimizer, equation, options, before, after, foreach):
    expected = reference(equation, conv_net(), 20, **options)
    net = conv_net().to(memory_format=before)
    layerwise = optimizer(net.parameters(), foreach=foreach, **options)
    steps(net, layerwise, range(10))
    kept = {id(value) for state in layerwise.state.values() for value in state.values()}
    net.to(memory_format=after)
    steps(net, layerwise, range(10, 20))
    assert (weights(net) - expected).norm() < 1e-10 * expected.norm()
    # whoever copies a training's state in place holds on to these tensors
    assert {id(value) for state in layerwise.state.values() for value in state.values()} == kept


@pytest.mark.parametrize("optimizer", [Lars, Tvlars])
def test_weights_of_another_type_than_their_momentum_go_the_way_for_gpus(optimizer):
    trained = []
    for foreach in (None, True):
        parameters = with_gradients(([[1.0, 2.0]], [[0.5, -1.0]]), ([3.0], [1.0]))
        layerwise = optimizer(parameters, lr=0.1, foreach=foreach)
        layerwise.step()
        for parameter in parameters:
            parameter.data = parameter.detach().bfloat16()
            parameter.grad = torch.ones_like(parameter)
        layerwise.step()
        trained.append(parameters)
    assert [parameter.dtype for parameter in trained[0]] == [torch.bfloat16] * 2
    assert trained[0][1].item() == pytest.approx({Lars: 2.71, Tvlars: 2.855}[optimizer], rel=2**-8)  # phi is 1 / 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*trained, strict=True))


@each_way
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(Lars, {"weight_decay": 0.01}), (Tvlars, {"delay": 1000, "decay": 1e-3}), (Lamb, {"bias_correction": True})],
    ids="lars tvlars lamb".split(),
)
def test_parameters_of_two_types_in_one_group_are_trained_as_in_two(optimizer, options, foreach):
    def parameters():
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(4, 3, generator=generator) for _ in range(4)] + [torch.randn(3, generator=generator)]
        dtypes = [torch.bfloat16, torch.float32, torch.bfloat16, torch.float32, torch.float32]
        return [nn.Parameter(value.to(dtype)) for value, dtype in zip(values, dtypes, strict=True)]

    one, two = parameters(), parameters()
    low, high = ([p for p in two if p.dtype == dtype] for dtype in (torch.bfloat16, torch.float32))
    together = optimizer(one, lr=0.1, foreach=foreach, **options)
    apart = [optimizer(some, lr=0.1, foreach=foreach, **options) for some in (low, high)]
    for number in range(5):
        for parameter in one + two:
            parameter.grad = torch.linspace(-1, 2 + number, parameter.numel()).view_as(parameter).to(parameter.dtype)
        for layerwise in (together, *apart):
            layerwise.step()
    assert all(torch.equal(mine, its) for mine, its in zip(one, two, strict=True))
    assert not any(torch.equal(mine, before) for mine, before in zip(one, parameters(), strict=True))
    assert [ratio.dtype for ratio in together.trust_ratios()] == [parameter.dtype for parameter in one]


@pytest.mark.parametrize("optimizer", [Lars, Tvlars, Lamb])
def test_a_state_dict_goes_to_the_device_of_the_parameters(optimizer):
    options = {"lr": 0.1} | ({"bias_correction": True} if optimizer is Lamb else {})
    saved = optimizer(with_gradients(([[1.0, 2.0]], [[1.0, 1.0]])), **options)
    saved.step()
    parameter = torch.zeros(1, 2, device="meta")
    parameter.grad = torch.zeros_like(parameter)
    loaded = optimizer([parameter], **options)
    loaded.load_state_dict(saved.state_dict())
    assert {value.device.type for value in loaded.state[parameter].values()} == {"meta"}
    loaded.step()


# --- the learning rate as a tensor --------------------------------------------------------------------------


@each_way
@each_equation
@pytest.mark.parametrize("shape", [(), (1,)], ids=["0-D", "1-D"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_of_the_learning_rate_trains_as_the_number_does(optimizer, equation, options, dtype, shape, foreach):
    first, then = options["lr"], options["lr"] / 8
    net, numbered = small_net(5), small_net(5)
    lr = torch.full(shape, first, dtype=dtype)
    by_tensor = optimizer(net.parameters(), foreach=foreach, **options | {"lr": lr})
    by_number = optimizer(numbered.parameters(), foreach=foreach, **options)
    steps(net, by_tensor, range(5))
    steps(numbered, by_number, range(5))
    lr.fill_(then)  # as torch's schedulers do: a captured step finds the new one in its place
    by_number.param_groups[0]["lr"] = then
    steps(net, by_tensor, range(5, 10))
    steps(numbered, by_number, range(5, 10))
    expected = weights(numbered)
    assert (expected - weights(small_net(5))).norm() > 0.01 * expected.norm()
    assert (weights(net) - expected).norm() < (1e-7 if dtype == torch.float32 else 1e-13) * expected.norm()


# --- the device `meta` ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lr", [0.1, torch.tensor(0.1, device="meta"), torch.tensor(0.1)], ids="number same cpu".split()
)
@pytest.mark.parametrize("optimizer", [Lars, Tvlars, Lamb])
def test_the_way_for_gpus_reads_no_number_back(optimizer, lr):
    """A tensor on the device `meta` has no values: whoever asks for one is refused."""
    parameters = [torch.zeros(3, 2, device="meta"), torch.zeros(3, device="meta")]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    layerwise: LayerWise = optimizer(parameters, lr=lr, weight_decay=0.01)  # foreach: meta is no CPU
    assert [ratio.device.type for ratio in layerwise.trust_ratios()] == ["meta"] * 2  # before the first step
    layerwise.step()
    assert [ratio.device.type for ratio in layerwise.trust_ratios()] == ["meta"] * 2


# --- refused options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [Lars, Tvlars, Lamb])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid lr: -1.0; it must be 0 or more"),
        ({"lr": math.nan}, "Invalid lr: nan; it must be 0 or more"),
        ({"lr": torch.tensor(-0.5)}, "Invalid lr: -0.5; it must be 0 or more"),
        ({"lr": torch.tensor([0.1, 0.2])}, "Invalid lr: a tensor of 2 elements; it must have one alone"),
        ({"weight_decay": -0.1}, "Invalid weight_decay: -0.1; it must be 0 or more"),
        ({"eps": -1e-8}, "Invalid eps: -1e-08; it must be 0 or more"),
    ],
)
def test_all_three_refuse_options_out_of_range(optimizer, options, message):
    refused(optimizer, options, message)


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (Lars, {"momentum": -0.9}, "Invalid momentum: -0.9; it must be 0 or more"),
        (Lars, {"trust_coefficient": 0.0}, "Invalid trust_coefficient: 0.0; it must be more than 0"),
        (Tvlars, {"momentum": -0.9}, "Invalid momentum: -0.9; it must be 0 or more"),
        (Tvlars, {"alpha": -1.0}, "Invalid alpha: -1.0; it must be 0 or more"),
        (Tvlars, {"decay": -1e-4}, "Invalid decay: -0.0001; it must be 0 or more"),
        (Tvlars, {"delay": -1}, "Invalid delay: -1; it must be 0 or more"),
        (Tvlars, {"minimum": -0.01}, "Invalid minimum: -0.01; it must be 0 or more"),
        (Tvlars, {"max_norm": 0.0}, "Invalid max_norm: 0.0; it must be more than 0"),
        (Lamb, {"betas": (0.9, 1.0)}, "Invalid betas: (0.9, 1.0); they must be two, each 0 or more and less than 1"),
        (Lamb, {"betas": (0.9,)}, "Invalid betas: (0.9,); they must be two, each 0 or more and less than 1"),
        (Lamb, {"betas": (-0.1, 0.9)}, "Invalid betas: (-0.1, 0.9); they must be two, each 0 or more and less than 1"),
        (Lamb, {"max_trust_ratio": -1.0}, "Invalid max_trust_ratio: -1.0; it must be more than 0"),
    ],
)
def test_each_refuses_options_of_its_own_out_of_range(optimizer, options, message):
    refused(optimizer, options, message)


def refused(optimizer, options, message):
    """For all parameters, for a group of them, and for one that comes later."""
    refusal = pytest.raises(ValueError, match=f"^{re.escape(message)}$")
    with refusal:
        optimizer([torch.zeros(2)], **{"lr": 0.1} | options)
    with refusal:
        optimizer([{"params": [torch.zeros(2)], **options}], lr=0.1)
    layerwise = optimizer([torch.zeros(2)], lr=0.1)
    with refusal:
        layerwise.add_param_group({"params": [torch.zeros(2)], **options})
    assert len(layerwise.param_groups) == 1


def test_the_ends_of_the_ranges_are_taken():
    parameters = [torch.zeros(2)]
    Lars(parameters, lr=0.0, momentum=0.0, weight_decay=0.0, eps=0.0)
    Tvlars(parameters, lr=0.1, alpha=0.0, decay=0.0, delay=0, minimum=0.0, max_norm=None)
    Lamb(parameters, lr=0.1, betas=(0.0, 0.0), eps=0.0, max_trust_ratio=None)

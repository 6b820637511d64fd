"""Flat copies of a training state, and optimizer state before the first step."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn
from torch.nn.functional import cross_entropy

from service.spec.optimizer import Optimizer
from workers.engine.state import ALIGNMENT, Flat, materialise, training_state
from workers.optimizers.build import build_optimizer

CPU = torch.device("cpu")
DTYPES = "bool uint8 int16 int64 float16 bfloat16 float32 float64 complex64 complex128".split()

# --- flat copies -----------------------------------------------------------------------------------


def random_tensor(dtype: torch.dtype, shape: list[int], seed: int) -> torch.Tensor:
    """Any bit pattern of the type, NaN and infinity among them."""
    tensor = torch.zeros(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(256, (tensor.numel() * tensor.element_size(),), dtype=torch.uint8, generator=generator)
    return (raw % 2 if dtype is torch.bool else raw).view(dtype).view(shape)


@st.composite
def tensor_lists(draw: st.DrawFn) -> list[torch.Tensor]:
    shapes = draw(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=6))  # [] is 0-dimensional
    tensors = [
        random_tensor(getattr(torch, draw(st.sampled_from(DTYPES))), shape, seed) for seed, shape in enumerate(shapes)
    ]
    return [tensor.mT if tensor.dim() >= 2 and draw(st.booleans()) else tensor for tensor in tensors]


def bits(tensors: list[torch.Tensor]) -> list[bytes]:
    return [tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


@given(tensor_lists())
def test_a_flat_copy_gives_back_every_bit(tensors):
    flat, before = Flat(tensors, CPU), bits(tensors)
    buffer = flat.save(flat.empty())
    assert (buffer.dtype, buffer.shape) == (torch.uint8, (flat.nbytes,))
    assert flat.nbytes % ALIGNMENT == 0
    assert sum(map(len, before)) <= flat.nbytes <= sum(map(len, before)) + ALIGNMENT * len(tensors)
    kept = buffer.clone()
    for tensor in tensors:
        tensor.zero_()
    flat.load(buffer)
    assert bits(tensors) == before
    for tensor in tensors:
        tensor.zero_()
    assert torch.equal(buffer, kept)  # a copy, not a view


@given(tensor_lists().filter(lambda tensors: any(t.numel() and t.dtype is not torch.bool for t in tensors)), st.data())
def test_one_bit_changes_the_digest(tensors, data):
    flat = Flat(tensors, CPU)
    digest = flat.digest()
    assert Flat([tensor.clone() for tensor in tensors], CPU).digest() == digest
    buffer = flat.save(flat.empty())
    number = data.draw(st.sampled_from([i for i, t in enumerate(tensors) if t.numel() and t.dtype is not torch.bool]))
    byte = sum(-(-len(raw) // ALIGNMENT) * ALIGNMENT for raw in bits(tensors[:number]))
    byte += data.draw(st.integers(0, len(bits(tensors)[number]) - 1))
    buffer[byte] ^= 1 << data.draw(st.integers(0, 7))
    flat.load(buffer)
    assert flat.digest() != digest


def test_a_digest_is_sha256_of_bytes_padded_to_the_alignment():
    tensors = [torch.tensor([1, 2, 3], dtype=torch.uint8), torch.tensor(1.0)]
    # printf '\x01\x02\x03%13s\x00\x00\x80\x3f%12s' | tr ' ' '\0' | sha256sum
    assert Flat(tensors, CPU).digest() == "76c68e232014083ac6421f44310e8e3189c0f3133691813700202174b41d9ed0"


def test_a_copy_of_a_state_without_tensors_is_empty():
    flat = Flat([], CPU)
    flat.load(flat.save(flat.empty()))
    assert flat.nbytes == 0


# --- optimizers ------------------------------------------------------------------------------------

OPTIMIZERS = [
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.0},
    {"name": "sgd", "momentum": 0.0, "weight_decay": 0.01},
    {"name": "sgd", "nesterov": True, "weight_decay": 0.01},
    {"name": "adam"},
    {"name": "adam", "betas": [0.0, 0.5], "weight_decay": 0.01},
    {"name": "adamw", "weight_decay": 0.1},
    {"name": "adagrad", "weight_decay": 0.01},
    {"name": "adadelta"},
    {"name": "adadelta", "weight_decay": 0.01},
    {"name": "rmsprop", "weight_decay": 0.01},
    {"name": "lars", "weight_decay": 0.01},
    {"name": "lamb", "weight_decay": 0.01, "bias_correction": True},
    {"name": "tvlars", "decay": 0.1},
]
each_optimizer = pytest.mark.parametrize("document", OPTIMIZERS, ids=lambda d: "-".join(map(str, d.values())))


def model_and_optimizer(document, learning_rate=0.05):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    spec = TypeAdapter(Optimizer).validate_python(document)
    optimizer = build_optimizer(spec, model.parameters(), learning_rate, iterations=20, global_batch_size=64)
    return model, optimizer


def steps(model, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(16, 6, generator=generator)
        labels = torch.randint(3, (16,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()


def tensors_of(model, optimizer):
    states = [optimizer.state[parameter] for parameter in model.parameters()]
    return [*model.state_dict().values(), *(value for state in states for _, value in sorted(state.items()))]


@each_optimizer
def test_materialising_changes_neither_parameters_nor_behaviour(document):
    model, optimizer = model_and_optimizer(document)
    plain, plain_optimizer = copy.deepcopy((model, optimizer))
    before = bits(model.state_dict().values())
    materialise(optimizer)
    assert bits(model.state_dict().values()) == before
    assert [parameter.grad for parameter in model.parameters()] == [None] * 6
    assert [group["lr"] for group in optimizer.param_groups] == [0.05]
    steps(model, optimizer, range(5))
    steps(plain, plain_optimizer, range(5))
    pairs = zip(tensors_of(model, optimizer), tensors_of(plain, plain_optimizer), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert bits(model.state_dict().values()) != before


@each_optimizer
def test_materialising_again_in_the_middle_changes_nothing(document):
    model, optimizer = model_and_optimizer(document)
    plain, plain_optimizer = copy.deepcopy((model, optimizer))
    steps(model, optimizer, range(2))
    before = bits(tensors_of(model, optimizer))
    materialise(optimizer)
    assert bits(tensors_of(model, optimizer)) == before
    steps(model, optimizer, range(2, 5))
    steps(plain, plain_optimizer, range(5))
    assert bits(tensors_of(model, optimizer)) == bits(tensors_of(plain, plain_optimizer))


@each_optimizer
def test_restoring_the_training_state_restores_everything(document):
    model, optimizer = model_and_optimizer(document)
    flat = Flat(list(training_state(model, optimizer).values()), CPU)
    for first in (0, 2):  # before the first step, and later
        start, digest = flat.save(flat.empty()), flat.digest()
        steps(model, optimizer, range(first, first + 3))
        end = flat.digest()
        assert end != digest
        flat.load(start)
        assert flat.digest() == digest
        steps(model, optimizer, range(first, first + 3))
        assert flat.digest() == end


def test_a_training_state_is_parameters_buffers_and_optimizer_state_in_a_fixed_order():
    shapes = [tuple(tensor.shape) for tensor in training_state(*model_and_optimizer({"name": "adam"})).values()]
    parameters = [(8, 6), (8,), (8,), (8,), (3, 8), (3,)]
    buffers = [(8,), (8,), ()]  # running mean and variance, batches seen
    state = [shape for parameter in parameters for shape in (parameter, parameter, ())]  # exp_avg, exp_avg_sq, step
    assert shapes == parameters + buffers + state

"""Every model of the catalog can be built, its head fits the dataset, and its first weights are what the docs say."""

import math

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.errors import InvalidInput
from service.spec.catalog import LARGEST_IMAGE, MODELS, SMALLEST_IMAGE, TORCHVISION_MODELS, image_sizes
from workers.models.build import BUILDERS, build_model


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- the catalog -----------------------------------------------------------------------------------


def test_catalog_holds_every_classification_model_of_torchvision() -> None:
    assert sorted(TORCHVISION_MODELS) == sorted(torchvision.models.list_models(module=torchvision.models))


def test_there_is_a_builder_for_every_name_of_the_catalog_and_no_other() -> None:
    assert sorted(BUILDERS) == sorted(MODELS)


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters move to the meta device as they are registered, so that the giants cost neither memory nor time."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else nn.Parameter(parameter.to("meta")))

    monkeypatch.setattr(nn.Module, "register_parameter", on_meta)
    for draw in ("normal_", "uniform_"):  # on meta they do nothing, slowly
        monkeypatch.setattr(torch.Tensor, draw, lambda tensor, *args, **kwargs: tensor)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("without_weights")
def test_head_is_sized_to_the_dataset(name: str) -> None:
    head = [m for m in BUILDERS[name](7, 3, 224).modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    assert head.weight.shape[0] == 7


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.usefixtures("without_weights")
def test_no_auxiliary_heads(name: str) -> None:
    model = build_model(name, classes=7, channels=3, image_size=96, seed=0).to("meta")
    assert model.training
    logits = model(torch.zeros(2, 3, 96, 96, device="meta"))
    assert isinstance(logits, torch.Tensor)  # with auxiliary heads: a named tuple
    assert logits.shape == (2, 7)


# --- architectures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", 269_322),  # 256(784+1) + 256(256+1) + 10(256+1)
        ("mlp-ln", 270_346),  # and a scale and a shift for each of 2 x 256
    ],
)
def test_mlp_parameters(name: str, expected: int) -> None:
    assert parameters(build_model(name, classes=10, channels=1, image_size=28, seed=0)) == expected


@pytest.mark.parametrize(
    ("channels", "image_size", "expected"),
    [
        # 6(25+1) + 16(6*25+1) + 120(400+1) + 84(120+1) + 10(84+1)
        (1, 28, 61_706),
        # 6(75+1) + 16(6*25+1) + 120(576+1) + 84(120+1) + 10(84+1)
        (3, 32, 83_126),
    ],
)
def test_lenet5_parameters(channels: int, image_size: int, expected: int) -> None:
    model = build_model("lenet5", classes=10, channels=channels, image_size=image_size, seed=0)
    assert parameters(model) == expected
    assert model(torch.zeros(5, channels, image_size, image_size)).shape == (5, 10)


@given(image_size=st.integers(12, 64), channels=st.sampled_from([1, 3]), classes=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_lenet5_takes_any_image_from_12_pixels_up(image_size: int, channels: int, classes: int) -> None:
    model = build_model("lenet5", classes=classes, channels=channels, image_size=image_size, seed=0)
    assert model(torch.zeros(2, channels, image_size, image_size)).shape == (2, classes)


@pytest.mark.parametrize(("name", "expected"), [("resnet18-cifar", 11_173_962), ("resnet34-cifar", 21_282_122)])
def test_cifar_resnets_keep_the_pixels_of_small_images(name: str, expected: int) -> None:
    model = build_model(name, classes=10, channels=3, image_size=32, seed=0)
    assert parameters(model) == expected
    seen: list[torch.Size] = []
    model.get_submodule("layer1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    model(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, 64, 32, 32)]


def test_grey_images_enter_a_torchvision_model_as_three_equal_channels() -> None:
    grey, rgb = (
        build_model("squeezenet1_1", classes=10, channels=channels, image_size=32, seed=0).eval() for channels in (1, 3)
    )
    assert grey.state_dict().keys() == rgb.state_dict().keys()
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grey(images), rgb(torch.cat([images, images, images], dim=1)))


# --- initial weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_resnets_of_torchvision_start_normally_distributed(name: str) -> None:
    model = build_model(name, classes=10, channels=3, image_size=32, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            he_std = math.sqrt(2 / (module.out_channels * kernel))
            n = module.weight.numel()
            # five standard errors of a standard deviation and of a mean
            assert module.weight.std().item() == pytest.approx(he_std, rel=5 / math.sqrt(2 * n))
            assert module.weight.mean().item() == pytest.approx(0, abs=5 * he_std / math.sqrt(n))
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@pytest.mark.parametrize("name", ["resnet18-cifar", "resnet34-cifar"])
def test_cifar_resnets_start_uniformly_distributed(name: str) -> None:
    model = build_model(name, classes=10, channels=3, image_size=32, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(6 / module.weight[0].numel())
            n = module.weight.numel()
            # the largest of n numbers below a bound is below (1 - 20 / n) of it once in e^20 draws
            assert bound * (1 - 20 / n) < module.weight.abs().max().item() <= bound * (1 + 1e-6)  # float32
            # a uniform distribution's variance is bound^2 / 3; five standard errors, and five of a mean
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=5 * math.sqrt(0.2 / n))
            assert module.weight.mean().item() == pytest.approx(0, abs=5 * bound / math.sqrt(3 * n))
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_bound_of_the_cifar_stem() -> None:
    stem = build_model("resnet18-cifar", classes=10, channels=3, image_size=32, seed=0).get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert stem.weight.shape == (64, 3, 3, 3)
    assert 0.466 < stem.weight.abs().max().item() <= 0.471405  # sqrt(6 / (3 * 3 * 3))


@pytest.mark.parametrize("name", ["lenet5", "resnet18-cifar", "shufflenet_v2_x0_5"])
def test_initial_weights_depend_on_the_seed_alone(name: str) -> None:
    def build(seed: int) -> torch.Tensor:
        return weights(build_model(name, classes=10, channels=3, image_size=32, seed=seed))

    torch.manual_seed(1)
    first = build(5)
    torch.manual_seed(2)
    assert torch.equal(build(5), first)
    assert not torch.equal(build(6), first)


@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_building_leaves_the_random_state_as_it_was(seed: int) -> None:
    before = torch.get_rng_state()
    build_model("lenet5", classes=10, channels=1, image_size=28, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InvalidInput):
        build_model("lenet5", classes=10, channels=1, image_size=8, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)


# --- the catalog's image sizes -----------------------------------------------------------------------

FAMILIES = """
    lenet5 lenet5-bn mlp mlp-ln resnet18-cifar alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3
    maxvit_t mnasnet0_5 mobilenet_v3_small regnet_y_400mf resnet18 shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1
    swin_t swin_v2_t vgg11_bn vit_b_16 vit_b_32 vit_h_14 wide_resnet50_2
""".split()  # a small model of each: depth and width make no difference here


def takes(name: str, image_size: int, *, train: bool) -> bool:
    """Whether one image of that size goes through the model, by shapes alone, on the meta device."""
    try:
        BUILDERS[name](10, 3, image_size).to("meta").train(train)(
            torch.empty(1, 3, image_size, image_size, device="meta")
        )
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("without_weights")
def test_image_sizes_are_those_of_the_builders(name: str) -> None:
    sizes = image_sizes(name)
    least = [sizes.least - sizes.step, sizes.least, sizes.least + sizes.step]
    assert [takes(name, size, train=False) for size in least if size >= SMALLEST_IMAGE] == (
        [False, True, True] if least[0] >= SMALLEST_IMAGE else [True, True]
    )
    assert sizes.step == 1 or not takes(name, sizes.least + 1, train=False)
    if sizes.lone > LARGEST_IMAGE:
        assert not takes(name, sizes.least + 100, train=True)
    elif sizes.lone > sizes.least:
        assert [takes(name, size, train=True) for size in (sizes.lone - 1, sizes.lone)] == [False, True]


# --- images a model cannot take --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("lenet5", 11),
        ("alexnet", 32),
        ("inception_v3", 32),
        ("maxvit_t", 28),
        ("squeezenet1_1", 8),
        ("vgg11", 28),
        ("vit_b_32", 28),
    ],
)
@pytest.mark.usefixtures("without_weights")
def test_images_a_model_cannot_take_are_refused_by_name(name: str, image_size: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        build_model(name, classes=10, channels=1, image_size=image_size, seed=0)
    (error,) = caught.value.errors
    assert (error.field, error.value) == ("model", name)
    assert error.message.startswith(f"{name} cannot take images of {image_size} pixels; choose a model for small")


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("inception_v3", 75), ("maxvit_t", 224), ("squeezenet1_1", 28), ("swin_t", 28), ("vgg11", 32), ("vit_b_32", 32)],
)
@pytest.mark.usefixtures("without_weights")
def test_images_a_model_can_take_are_taken(name: str, image_size: int) -> None:
    assert build_model(name, classes=10, channels=1, image_size=image_size, seed=0).training


@pytest.mark.parametrize(("name", "image_size"), [("squeezenet1_1", 28), ("resnet18", 8)])
def test_what_passes_by_its_shapes_passes_in_earnest(name: str, image_size: int) -> None:
    """The check in build_model computes shapes only; a real pass, forward and backward, agrees with it."""
    model = build_model(name, classes=10, channels=1, image_size=image_size, seed=0)
    logits = model(torch.rand(2, 1, image_size, image_size))
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())

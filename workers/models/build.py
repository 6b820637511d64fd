"""Builds models by name: LeNet-5, multilayer perceptrons, the CIFAR form of ResNet, torchvision's classifiers.

The ResNets start as He et al. do (arXiv 1502.01852). torchvision draws the convolutions of `resnet*`, `resnext*` and
`wide_resnet*` from N(0, 2 / fan_out) and sets BatchNorm to weight 1, bias 0, as STPT (Yamada et al.) asks; the CIFAR
form draws them uniformly, as TVLARS (Do et al.) asks. The fc layer keeps torch's default. Every model is built on the
CPU; the caller moves it.
"""

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from service.errors import FieldError, InvalidInput
from service.spec.catalog import TORCHVISION_MODELS


def build_model(name: str, *, classes: int, channels: int, image_size: int, seed: int) -> nn.Module:
    """The model `name` of service.spec.catalog.MODELS in training mode, which takes images [k, channels, H, W] with H =
    W = `image_size` pixels and returns logits [k, classes].

    The initial weights depend on `seed` alone, and the caller's random state stays as it was. Raises InvalidInput where
    the model cannot take images of that size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that would seed the GPUs too
        try:
            model = BUILDERS[name](classes, channels, image_size)
            _forward_shapes(model, channels, image_size)
        except (AssertionError, RuntimeError, ValueError) as error:  # the three that torch and torchvision raise here
            message = (
                f"{name} cannot take images of {image_size} pixels; choose a model for small images (lenet5, "
                f"resnet18-cifar) or a dataset with other images (image-folder has image_size): {error}"
            )
            raise InvalidInput([FieldError("model", name, message)]) from error
    return model


def cut_head(model: nn.Module) -> int:
    """Take the last layer off a model of catalog.BACKBONES, and return the length of the features that it gives
    then."""
    holder, name = (model, str(len(model) - 1)) if isinstance(model, nn.Sequential) else (model, "fc")
    head = holder.get_submodule(name)
    assert isinstance(head, nn.Linear)
    setattr(holder, name, nn.Identity())
    return head.in_features


def _forward_shapes(model: nn.Module, channels: int, image_size: int) -> None:
    """Run one evaluation pass on the meta device: it computes shapes only, so it raises what a real one would, for
    free."""
    on_meta = {name: tensor.to("meta") for name, tensor in chain(model.named_parameters(), model.named_buffers())}
    image = torch.empty(1, channels, image_size, image_size, device="meta")
    model.eval()  # BatchNorm refuses a single value per channel in training mode
    with torch.no_grad():
        torch.func.functional_call(model, on_meta, (image,))
    model.train()


def _lenet5(classes: int, channels: int, image_size: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; 61,706 parameters for MNIST."""
    side = (image_size // 2 - 4) // 2  # pixels left after both pools; 5 for 28
    if side < 1:
        raise ValueError("it needs 12 pixels at least")
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # [k, 6, 14, 14] for 28 pixels
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  # [k, 16, 5, 5]
        nn.Flatten(),
        nn.Linear(16 * side * side, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, classes),
    )  # fmt: skip


def _lenet5_bn(classes: int, channels: int, image_size: int) -> nn.Module:
    """LeNet-5 with batch normalisation after each convolution and fully connected layer but the last."""
    layers: list[nn.Module] = []
    for layer in _lenet5(classes, channels, image_size).children():
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
        elif isinstance(layer, nn.Linear) and layer.out_features != classes:
            layers.append(nn.BatchNorm1d(layer.out_features))
    return nn.Sequential(*layers)


def _mlp(normalise: bool, classes: int, channels: int, image_size: int) -> nn.Module:
    """Two hidden layers of 256 with ReLU, behind layer normalisation if asked for; 269,322 parameters for MNIST
    without."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (channels * image_size**2, 256):
        layers += [nn.Linear(inputs, 256), *([nn.LayerNorm(256)] if normalise else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, classes))


def _cifar_resnet(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """torchvision's ResNet `name` for small images: a 3x3 stem of stride 1, no max pool, and convolutions that begin
    uniformly distributed within sqrt(6 / fan_in) (He et al. 2015, arXiv 1502.01852; Do et al., appendix A)."""
    model = _get_model(name, num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
    return model


def _torchvision(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    arguments: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # no auxiliary heads: one output, as with every other model
        arguments = {"aux_logits": False, "init_weights": True}  # True is the default, but warns unless said
    elif name.startswith("vit_"):
        arguments = {"image_size": image_size}
    elif name.startswith("maxvit_"):
        arguments = {"input_size": (image_size, image_size)}
    model = _get_model(name, num_classes=classes, **arguments)
    if channels == 1:
        model.register_forward_pre_hook(_grey_as_rgb)  # a hook keeps the parameter names; a wrapper would not
    return model


def _get_model(name: str, **options: Any) -> nn.Module:
    import torchvision  # type: ignore[import-untyped]  # two seconds, which a worker with LeNet-5 need not spend

    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def _grey_as_rgb(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Turn images [k, 1, H, W] into [k, 3, H, W], the one channel three times, before a model sees them."""
    return (inputs[0].expand(-1, 3, -1, -1),)


BUILDERS: dict[str, Callable[[int, int, int], nn.Module]] = {  # name -> f(classes, channels, image_size)
    "lenet5": _lenet5,
    "lenet5-bn": _lenet5_bn,
    "mlp": partial(_mlp, False),
    "mlp-ln": partial(_mlp, True),
    "resnet18-cifar": partial(_cifar_resnet, "resnet18"),
    "resnet34-cifar": partial(_cifar_resnet, "resnet34"),
    **{name: partial(_torchvision, name) for name in TORCHVISION_MODELS},
}

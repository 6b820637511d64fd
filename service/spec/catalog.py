"""What models and datasets exist: their names and facts, so that a spec can be checked without torch.

`workers/models/build.py` and `workers/datasets/load.py` build what stands here; their tests hold both lists equal.
"""

from dataclasses import dataclass
from pathlib import Path

from service.errors import DatasetMissing

# torchvision.models.list_models(module=torchvision.models)
TORCHVISION_MODELS = tuple(
    """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169
    densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5
    efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3
    maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small
    regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf
    regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf
    regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d resnext101_64x4d resnext50_32x4d
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b
    swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn
    vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
    """.split()
)
MODELS = ("lenet5", "lenet5-bn", "mlp", "mlp-ln", "resnet18-cifar", "resnet34-cifar", *TORCHVISION_MODELS)

# with one last layer that takes features: what a task without labels trains of them
BACKBONES = tuple(name for name in MODELS if name.startswith(("lenet5", "resnet", "resnext", "wide_resnet")))


@dataclass(frozen=True)
class ImageSizes:
    """The images that a model takes, by their side in pixels: `least` or more, a multiple of `step`.

    `lone`: the least with one sample a worker. Below that batch normalisation would have a single value a channel,
    which torch refuses to train with; LARGEST_IMAGE + 1 stands for never.
    """

    least: int
    lone: int
    step: int = 1


SMALLEST_IMAGE, LARGEST_IMAGE = 8, 1024  # that a spec may ask for
_HALVING = ImageSizes(SMALLEST_IMAGE, 33)  # halves the image five times: from 33 pixels on 2x2 are left
_IMAGE_SIZES = {  # by the beginning of a model's name; the first that fits counts
    "lenet5-bn": ImageSizes(12, LARGEST_IMAGE + 1),  # its fully connected layers have a single value a channel
    "lenet5": ImageSizes(12, 12),
    "mlp": ImageSizes(SMALLEST_IMAGE, SMALLEST_IMAGE),
    "resnet18-cifar": ImageSizes(SMALLEST_IMAGE, 9),
    "resnet34-cifar": ImageSizes(SMALLEST_IMAGE, 9),
    "alexnet": ImageSizes(63, 63),
    "convnext": ImageSizes(32, 32),
    "densenet": ImageSizes(29, 61),
    "googlenet": ImageSizes(15, 47),
    "inception": ImageSizes(75, 107),
    "maxvit": ImageSizes(224, 224, step=224),
    "squeezenet1_0": ImageSizes(21, 21),
    "squeezenet1_1": ImageSizes(17, 17),
    "swin": ImageSizes(SMALLEST_IMAGE, SMALLEST_IMAGE),
    "vgg": ImageSizes(32, 32),
    "vit_h_14": ImageSizes(14, 14, step=14),
    "vit_b_16": ImageSizes(16, 16, step=16),
    "vit_l_16": ImageSizes(16, 16, step=16),
    "vit_b_32": ImageSizes(32, 32, step=32),
    "vit_l_32": ImageSizes(32, 32, step=32),
}


def image_sizes(model: str) -> ImageSizes:
    """The sizes of images that the model of that name takes."""
    return next((sizes for beginning, sizes in _IMAGE_SIZES.items() if model.startswith(beginning)), _HALVING)


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset of known size; `layouts` are folders under the data folder, any one of which holds its files."""

    name: str
    train_samples: int  # validation split included
    test_samples: int
    classes: int
    channels: int
    image_size: int  # pixels, square, as the models see it
    layouts: tuple[str, ...] = ()
    can_download: bool = False
    published: str = ""  # where to fetch its files by hand, to be unpacked in the data folder


DATASETS = {
    facts.name: facts
    for facts in (
        # scikit-learn's 8x8 digits, enlarged to 28x28 so that the models for MNIST take them unchanged
        DatasetFacts("digits", 1437, 360, 10, 1, 28),
        DatasetFacts("mnist", 60_000, 10_000, 10, 1, 28, ("MNIST/raw",), True),
        DatasetFacts("fashion-mnist", 60_000, 10_000, 10, 1, 28, ("FashionMNIST/raw",), True),
        DatasetFacts("cifar10", 50_000, 10_000, 10, 3, 32, ("cifar-10-batches-py", "cifar10"), True),
        # val/ is the test split: the labels of test/ were never published
        DatasetFacts(
            *("tiny-imagenet", 100_000, 10_000, 200, 3, 64, ("tiny-imagenet-200",)),
            published="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ),
    )
}


def require_files(name: str, data_dir: Path) -> None:
    """Raise DatasetMissing, naming the folders looked in and the remedy, unless the files of `name` are there."""
    facts = DATASETS[name]
    if not facts.layouts or any((data_dir / layout).is_dir() for layout in facts.layouts):
        return
    looked_in = " and ".join(str(data_dir / layout) for layout in facts.layouts)
    raise DatasetMissing(
        f"dataset {name} is not in {looked_in}; put its files there, point FORERUN_DATA_DIR at the folder that has "
        f"them, or {how_to_fetch(name)}"
    )


def how_to_fetch(name: str) -> str:
    """What a user can do to have the files of the dataset of that name, as part of a sentence."""
    facts = DATASETS[name]
    return "set dataset.download to true" if facts.can_download else f"unpack {facts.published} in the data folder"

"""The catalogue of the networks: what each is called, what it reads, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from bequest.data.preprocessing import Preprocessing
from bequest.errors import UnknownNameError, UsageError
from bequest.zoo.lenet import LeNet300100
from bequest.zoo.mobilenet import mobilenetv2, mobilenetv2_cifar
from bequest.zoo.resnet import resnet18, resnet34, resnet50, resnet101
from bequest.zoo.resnet_cifar import DEPTHS, PostActivationResNet, ReluFirstResNet
from bequest.zoo.vgg import vgg16_cifar, vgg_digits
from bequest.zoo.wide_resnet import wrn_40_4

_GREY = ((0.5,), (0.5,))
_DIGITS = ((0.3053,), (0.3760,))
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    Attributes:
        name: what the command line calls it, after ``zoo:``.
        factory: makes the network with random weights from a number of classes.
        input_shape: (C, H, W) of one image.
        mean: per channel, of pixels in [0, 1], subtracted before the network.
        std: per channel, divided by.
        num_classes: of the data set that the network was published for.
        source: the paper.
        crop: share of the resized image that the centre crop keeps; 0.875 for ImageNet networks
            (the shorter side to 256, then 224).
    """

    name: str
    factory: Callable[[int], nn.Module]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    source: str
    crop: float = 1.0

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns decoded images into this network's input."""
        return Preprocessing(self.mean, self.std, self.input_shape, self.crop)


def _cifar(name: str, factory: Callable[[int], nn.Module], source: str) -> Entry:
    return Entry(name, factory, (3, 32, 32), *_CIFAR, 10, source)


def _imagenet(name: str, factory: Callable[[int], nn.Module], source: str) -> Entry:
    return Entry(name, factory, (3, 224, 224), *_IMAGENET, 1000, source, crop=0.875)


_LECUN = "LeCun et al., Proc. IEEE 1998"
_VGG = "Simonyan, Zisserman, ICLR 2015"
_RESNET = "He et al., CVPR 2016"
_RELU_FIRST = "He et al., CVPR 2016, in the form of Kim et al., NeurIPS 2020"
_WRN = "Zagoruyko, Komodakis, BMVC 2016"
_MOBILENET = "Sandler et al., CVPR 2018"

_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("lenet-300-100", LeNet300100, (1, 28, 28), *_GREY, 10, _LECUN),
        Entry("vgg-digits", vgg_digits, (1, 8, 8), *_DIGITS, 10, _VGG),
        _cifar("vgg16-cifar", vgg16_cifar, _VGG),
        *(_cifar(f"resnet{d}", partial(ReluFirstResNet, d), _RELU_FIRST) for d in DEPTHS),
        *(_cifar(f"resnet{d}-postact", partial(PostActivationResNet, d), _RESNET) for d in DEPTHS),
        _cifar("wrn-40-4", wrn_40_4, _WRN),
        _cifar("mobilenetv2-cifar", mobilenetv2_cifar, _MOBILENET),
        _imagenet("resnet18", resnet18, _RESNET),
        _imagenet("resnet34", resnet34, _RESNET),
        _imagenet("resnet50", resnet50, _RESNET),
        _imagenet("resnet101", resnet101, _RESNET),
        _imagenet("mobilenetv2", mobilenetv2, _MOBILENET),
    )
}


def names() -> list[str]:
    """The names of all networks, in the order of the catalogue."""
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """The entry of one network.

    Raises:
        UnknownNameError: no network has that name; the message suggests the nearest.
    """
    if name not in _ENTRIES:
        raise UnknownNameError("zoo network", name, _ENTRIES)
    return _ENTRIES[name]


def create(name: str, num_classes: int | None = None) -> nn.Module:
    """A network of the zoo with random weights, in training mode.

    Args:
        name: one of :func:`names`.
        num_classes: width of the output; None = as published.

    Raises:
        UnknownNameError: no network has that name; the message suggests the nearest.
        UsageError: ``num_classes`` is below 1.
    """
    found = entry(name)
    classes = found.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise UsageError(f"num_classes: expected at least 1, found {classes}")
    return found.factory(classes)

import pytest
import torch
from torch import nn

from bequest import zoo
from bequest.errors import UnknownNameError, UsageError

# As the papers, torchvision's documentation and the authors' repositories state them.
PUBLISHED_PARAMETERS = {
    "lenet-300-100": 266_610,
    "vgg16-cifar": 14_728_266,
    "resnet20-postact": 269_722,
    "resnet56-postact": 853_018,
    "resnet110-postact": 1_727_962,
    "wrn-40-4": 8_949_210,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "mobilenetv2": 3_504_872,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_maps_its_images_to_logits(name):
    entry = zoo.entry(name)
    images = torch.randn(2, *entry.input_shape)
    assert zoo.create(name).eval()(images).shape == (2, entry.num_classes)
    assert entry.preprocessing.size == entry.input_shape


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name, count):
    assert parameters(zoo.create(name)) == count


def test_every_paper_network_is_there():
    depths = (20, 32, 44, 56, 110)
    expected = {f"resnet{d}" for d in depths} | {f"resnet{d}-postact" for d in depths}
    expected |= set(PUBLISHED_PARAMETERS) | {"vgg-digits", "mobilenetv2-cifar"}
    assert set(zoo.names()) == expected


def test_number_of_classes_can_be_chosen():
    assert zoo.create("resnet20", num_classes=100).eval()(torch.randn(1, 3, 32, 32)).shape[1] == 100


def test_wrong_calls_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet56'"):
        zoo.create("resnet_56")
    with pytest.raises(UsageError, match="at least 1"):
        zoo.create("resnet20", num_classes=0)

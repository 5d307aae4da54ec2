import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, cross_entropy

from bequest import zoo
from bequest.zoo.mobilenet import mobilenetv2, mobilenetv2_cifar
from bequest.zoo.resnet_cifar import (
    PostActivationBlock,
    PostActivationResNet,
    ReluFirstBlock,
    ZeroPaddedShortcut,
)
from bequest.zoo.wide_resnet import PreActivationBlock, WideResNet


def randomised(module):
    """The module in float64 evaluation mode with no batch norm left at the identity."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn(tensor.shape)
            )
    return module.double().eval()


def norm(x, bn):
    return batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def test_lenet_flattens_its_images():
    network = zoo.create("lenet-300-100")
    images = torch.randn(3, 1, 28, 28)
    assert torch.equal(network(images), network(images.reshape(3, 784)))


def test_relu_first_block_is_its_formula():
    block = randomised(ReluFirstBlock(4, 8, 2))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    r = x.clamp(min=0)
    branch = norm(conv2d(r, block.conv1.weight, stride=2, padding=1), block.bn1).clamp(min=0)
    branch = norm(conv2d(branch, block.conv2.weight, padding=1), block.bn2)
    shortcut = norm(conv2d(r, block.downsample[0].weight, stride=2), block.downsample[1])
    torch.testing.assert_close(block(x), shortcut + branch)


def test_post_activation_block_is_its_formula():
    block = randomised(PostActivationBlock(4, 4, 1))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    branch = norm(conv2d(x, block.conv1.weight, padding=1), block.bn1).clamp(min=0)
    branch = norm(conv2d(branch, block.conv2.weight, padding=1), block.bn2)
    torch.testing.assert_close(block(x), (x + branch).clamp(min=0))


def test_zero_padded_shortcut_keeps_every_second_pixel():
    x = torch.randn(1, 4, 6, 6)
    y = ZeroPaddedShortcut(4, 8, 2)(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert y[:, :2].abs().sum() + y[:, 6:].abs().sum() == 0


def test_pre_activation_block_is_its_formula():
    block = randomised(PreActivationBlock(4, 8, 2))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    active = norm(x, block.bn1).clamp(min=0)
    branch = norm(conv2d(active, block.conv1.weight, stride=2, padding=1), block.bn2).clamp(min=0)
    branch = conv2d(branch, block.conv2.weight, padding=1)
    torch.testing.assert_close(
        block(x), conv2d(active, block.convShortcut.weight, stride=2) + branch
    )
    same = randomised(PreActivationBlock(4, 4, 1))
    inner = norm(x, same.bn1).clamp(min=0)
    inner = norm(conv2d(inner, same.conv1.weight, padding=1), same.bn2).clamp(min=0)
    torch.testing.assert_close(same(x), x + conv2d(inner, same.conv2.weight, padding=1))


@pytest.mark.parametrize(
    ("name", "tensors", "some_names"),
    [
        (
            "resnet18",
            122,
            ["bn1.running_var", "layer1.1.conv2.weight", "layer2.0.downsample.1.bias", "fc.bias"],
        ),
        (
            "resnet50",
            320,
            ["layer1.0.downsample.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.weight"],
        ),
        (
            "mobilenetv2",
            314,
            [
                "features.0.1.running_mean",
                "features.1.conv.0.0.weight",
                "features.1.conv.2.bias",
                "features.17.conv.3.weight",
                "features.18.0.weight",
                "classifier.1.bias",
            ],
        ),
        ("wrn-40-4", 227, ["block2.layer.0.convShortcut.weight", "block3.layer.5.bn2.bias"]),
        ("resnet20-postact", 116, ["layer3.2.bn2.weight", "linear.weight"]),
        ("vgg16-cifar", 93, ["features.0.bias", "features.41.running_var", "classifier.weight"]),
    ],
)
def test_state_dict_names_are_the_published_ones(name, tensors, some_names):
    found = zoo.create(name).state_dict()
    assert len(found) == tensors
    assert set(some_names) <= set(found)


def test_strides_of_the_mobilenets():
    maps = mobilenetv2().eval().features(torch.randn(1, 3, 224, 224))
    assert maps.shape == (1, 1280, 7, 7)
    maps = mobilenetv2_cifar().eval().features(torch.randn(1, 3, 32, 32))
    assert maps.shape == (1, 1280, 4, 4)


@pytest.mark.parametrize(
    "name", ["resnet20", "resnet20-postact", "mobilenetv2-cifar", "vgg-digits"]
)
def test_networks_train_and_take_other_image_sizes(name):
    network = zoo.create(name)
    channels, height, _ = zoo.entry(name).input_shape
    images = torch.randn(4, channels, 2 * height, 2 * height)
    cross_entropy(network(images), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_impossible_depths_are_refused():
    with pytest.raises(ValueError, match="6n \\+ 2"):
        PostActivationResNet(21)
    with pytest.raises(ValueError, match="6n \\+ 4"):
        WideResNet(41, 4)


def test_vgg_digits_learns_the_digits_in_seconds():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    pixels = (digits.images / 16 * 255).round().astype("uint8")[..., None]
    images = zoo.entry("vgg-digits").preprocessing.normalise(pixels)
    labels = torch.tensor(digits.target)
    train, test = torch.randperm(len(images)).split([1347, 450])
    network = zoo.create("vgg-digits")
    epochs, batch = 12, 64  # 22 steps an epoch
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=epochs * 22)
    for _ in range(epochs):
        for picked in train[torch.randperm(len(train))].split(batch):
            optimiser.zero_grad()
            cross_entropy(network(images[picked]), labels[picked]).backward()
            optimiser.step()
            schedule.step()
    predicted = network.eval()(images[test]).argmax(dim=1)
    assert (predicted == labels[test]).double().mean() >= 0.98

"""Published weights on real test images give the published accuracies."""

from bequest import zoo
from bequest.data import open_images
from bequest.measure import evaluate


def opened(name, path, **options):
    p = zoo.entry(name).preprocessing
    return open_images(path, mean=p.mean, std=p.std, size=p.size, crop=p.crop, **options)


def test_lenet_on_fashion_mnist(shared):
    network = zoo.create("lenet-300-100")
    zoo.load_weights(network, shared / "weights" / "lenet_300_100_fashionmnist.safetensors")
    images = opened("lenet-300-100", shared / "data" / "fashion_mnist" / "test.npz")
    result = evaluate(network, images)
    assert (result.count, round(result.top1, 2)) == (10_000, 89.80)


def test_resnet56_on_cifar10(shared):
    network = zoo.create("resnet56")
    zoo.load_weights(network, shared / "weights" / "resnet56_cifar10.safetensors")
    images = opened("resnet56", shared / "data" / "cifar10" / "test.npz", offset=5000, limit=400)
    result = evaluate(network, images)
    assert result.count == 400
    assert result.top1 > 92  # 93.75 on 2,000 images, 93.88 on all
    assert result.top5 is not None
    assert result.top5 > 99


def test_mnist_is_read_from_its_idx_files(shared):
    images = opened("lenet-300-100", shared / "data" / "mnist")
    labels = [int(label) for _, batch in images for label in batch]
    counts = [labels.count(digit) for digit in range(10)]
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

"""Networks and heads of torchvision."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tests.architectures.subject import Subject, noise


def _shufflenet() -> Subject:
    from torchvision.models import shufflenet_v2_x0_5

    return Subject(shufflenet_v2_x0_5, noise(2, 3, 96, 96))


def _googlenet() -> Subject:
    from torchvision.models import googlenet

    return Subject(lambda: googlenet(init_weights=False, aux_logits=False), noise(2, 3, 96, 96))


def _squeezenet() -> Subject:
    from torchvision.models import squeezenet1_1

    return Subject(squeezenet1_1, noise(2, 3, 96, 96))


def _vit() -> Subject:
    from torchvision.models import VisionTransformer

    return Subject(
        lambda: VisionTransformer(64, 16, 3, 4, 64, 128, num_classes=10), noise(2, 3, 64, 64)
    )


def _deeplab() -> Subject:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return Subject(lambda: deeplabv3_mobilenet_v3_large(weights_backbone=None), noise(2, 3, 96, 96))


class _Pyramid(nn.Module):
    """The backbone, the feature pyramid and the head of a RetinaNet, without its post-processing.

    Raw results are returned, as they are exported for devices.
    """

    def __init__(self) -> None:
        from torchvision.models import resnet18
        from torchvision.models.detection.backbone_utils import BackboneWithFPN
        from torchvision.models.detection.retinanet import RetinaNetHead

        super().__init__()
        levels = {"layer2": "0", "layer3": "1", "layer4": "2"}
        self.backbone = BackboneWithFPN(resnet18(), levels, [128, 256, 512], 64)
        self.head = RetinaNetHead(64, 9, 10, nn.BatchNorm2d)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
        return found


def _retinanet() -> Subject:
    return Subject(_Pyramid, noise(2, 3, 128, 128))


NETWORKS: dict[str, Callable[[], Subject]] = {
    "tv-shufflenet_v2": _shufflenet,
    "tv-googlenet": _googlenet,
    "tv-squeezenet": _squeezenet,
    "tv-vit": _vit,
    "tv-deeplabv3_mobilenet": _deeplab,
    "tv-retinanet_fpn": _retinanet,
}

"""Networks of timm, on small images: what is kept, as a share, doesn't depend on their size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.architectures.subject import Subject, noise


def _network(name: str, size: int = 96, **settings: Any) -> Subject:
    import timm

    return Subject(lambda: timm.create_model(name, **settings), noise(2, 3, size, size))


_CONVOLUTIONAL = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "densenet121",
    "convnext_atto",
    "regnety_002",
    "ghostnet_100",
    "repvgg_a0",
    "hrnet_w18_small",
    "dla34",
    "cspdarknet53",
    "eca_nfnet_l0",
    "nf_regnet_b0",
    "dpn48b",
    "res2net50_14w_8s",
    "mobileone_s0",
    "efficientvit_b0",
    "convmixer_768_32",
    "gcresnext26ts",
    "eca_resnext26ts",
    "poolformer_s12",
    "mixnet_s",
    "skresnet18",
    "resnest14d",
    "rexnet_100",
    "ese_vovnet19b_dw",
    "hgnetv2_b0",
    "starnet_s1",
    "mambaout_femto",
    "repghostnet_050",
    "edgenext_xx_small",
    "fastvit_t8",
    "selecsls42",
    "tinynet_e",
    "lambda_resnet26t",
)
_OF_FIXED_SIZE = (
    "efficientformer_l1",
    "efficientvit_m0",
    "levit_128s",
    "coat_tiny",
    "crossvit_tiny_240",
    "pit_ti_224",
    "pvt_v2_b0",
    "twins_svt_small",
    "tnt_s_patch16_224",
    "xcit_nano_12_p16_224",
    "convit_tiny",
)
_OF_ANY_SIZE = (
    "deit_tiny_patch16_224",
    "vit_tiny_patch16_224",
    "mixer_s16_224",
    "cait_xxs24_224",
    "eva02_tiny_patch14_224",
)

NETWORKS: dict[str, Callable[[], Subject]] = {
    **{name: partial(_network, name) for name in _CONVOLUTIONAL},
    "vgg16_bn": partial(_network, "vgg16_bn", 224),
    "inception_v3": partial(_network, "inception_v3", 139),
    "mobilevit_s": partial(_network, "mobilevit_s", 128),
    "swin_tiny_patch4_window7_224": partial(
        _network, "swin_tiny_patch4_window7_224", 112, img_size=112
    ),
    "maxvit_tiny_tf_224": partial(_network, "maxvit_tiny_tf_224", 224, depths=(1, 1, 2, 1)),
    "sequencer2d_s": partial(_network, "sequencer2d_s", 56, img_size=56, layers=(2, 2, 4, 2)),
    "halonet26t": partial(_network, "halonet26t", 256),
    "davit_tiny": partial(_network, "davit_tiny", 112),
    **{name: partial(_network, name, 112, img_size=112) for name in _OF_ANY_SIZE},
    **{name: partial(_network, name, 224) for name in _OF_FIXED_SIZE},
}

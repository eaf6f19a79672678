"""The zoo: one net of every convolutional family, from a library or in plain code, small enough for seconds.

Every net has random weights and ten outputs; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision
from benchmarks.own_nets import UNet, WaveNet

CLASSES = 10


@dataclass(frozen=True)
class Family:
    """A family of nets and the net that stands for it.

    Attributes:
        name: The family, as in the table.
        net: The net, with the library that it comes from.
        make: Makes it.
        shape: Of one input, without the batch.
        grow: By how much the dims from 1 on are larger in the second resolution.
        stays: Why much of it cannot go; "" where (nearly) everything can.
        refused: Formats in which the net itself computes something else, so that no file is handed out.
    """

    name: str
    net: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 64, 64)
    grow: int = 32
    stays: str = ""
    refused: tuple[str, ...] = ()

    @property
    def example(self) -> Tensor:
        """Two inputs."""
        return torch.randn(2, *self.shape, generator=torch.Generator().manual_seed(7))

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """`(batch, grow)`: what exactness is judged on, two resolutions and two batch sizes."""
        return ((1, 0), (3, self.grow))


def _of_torchvision(name: str, **settings: Any) -> nn.Module:
    from torchvision import models

    net: nn.Module = models.get_model(name, weights=None, num_classes=CLASSES, **settings)
    return net


def _of_timm(name: str) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(name, num_classes=CLASSES)
    return net


def _of_transformers(kind: str, **settings: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **settings)
    net: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return net


def _segmentation(name: str) -> nn.Module:
    return _of_torchvision(name, weights_backbone=None, aux_loss=True)


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    net: nn.Module = DenseNet(16, (3, 3, 3), 32, num_classes=CLASSES)
    return net


def _vgg() -> nn.Module:
    net: Any = _of_torchvision("vgg11_bn", init_weights=False)
    net.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 256), nn.ReLU(inplace=True), nn.Linear(256, CLASSES))
    return net  # type: ignore[no-any-return]


def _torchvision(family: str, name: str, *, grow: int = 32, shape: tuple[int, ...] = (3, 64, 64), **s: Any) -> Family:
    return Family(family, f"torchvision {name}", partial(_of_torchvision, name, **s), shape, grow)


def _timm(family: str, name: str, stays: str = "", refused: tuple[str, ...] = ()) -> Family:
    return Family(family, f"timm {name}", partial(_of_timm, name), stays=stays, refused=refused)


def _transformers(family: str, kind: str, stays: str = "", **settings: Any) -> Family:
    make = partial(_of_transformers, kind, **settings)
    net = f"transformers {kind}" + (", reduced" if settings else "")
    return Family(family, net, make, stays=stays)


STAGES: dict[str, Any] = {"hidden_sizes": [32, 48, 64], "depths": [2, 2, 2]}

LAYER_NORM = "LayerNorm averages over the channels"
GRN = "LayerNorm averages over the channels; columns: so does a global response norm, over those that nobody reads"
ECA = "a convolution slides over the channels"
STANDARDISED = "columns: what is zero before the weight is standardised is not zero after"
GROUP_NORM = "GroupNorm averages over the channels"

FAMILIES = (
    _torchvision("ResNet", "resnet18"),
    _torchvision("ResNeXt", "resnext50_32x4d"),
    _timm("SE-ResNet", "seresnet18"),
    _timm("SKNet", "skresnet18"),
    _timm("ECA-ResNet", "ecaresnet26t", ECA),
    _timm("ResNeSt", "resnest14d"),
    _timm("Res2Net", "res2net50_26w_4s"),
    _torchvision("RegNet", "regnet_y_400mf"),
    Family("DenseNet", "torchvision DenseNet, reduced", _densenet),
    _timm("DPN", "dpn48b"),
    _timm("DLA", "dla34"),
    _timm("HRNet", "hrnet_w18_small"),
    Family("VGG", "torchvision vgg11_bn, narrower classifier", _vgg),
    _torchvision("Inception v3", "inception_v3", shape=(3, 96, 96), aux_logits=False, init_weights=False),
    _torchvision("GoogLeNet", "googlenet", aux_logits=False, init_weights=False),
    _timm("Xception", "legacy_xception"),
    _torchvision("SqueezeNet", "squeezenet1_1"),
    _timm("MobileNet v1", "mobilenetv1_100"),
    _torchvision("MobileNet v2", "mobilenet_v2"),
    _torchvision("MobileNet v3", "mobilenet_v3_small"),
    _timm("MobileNet v4", "mobilenetv4_conv_small"),
    _torchvision("MNASNet", "mnasnet0_5"),
    _torchvision("EfficientNet v1", "efficientnet_b0"),
    _timm("EfficientNet v2", "tf_efficientnetv2_b0"),
    _timm("EfficientNet-Lite", "efficientnet_lite0"),
    _timm("MixNet", "mixnet_s"),
    _timm("ReXNet", "rexnet_100"),
    _timm("GhostNet", "ghostnet_050"),
    _timm("FasterNet", "fasternet_t0"),
    _torchvision("ShuffleNet v2", "shufflenet_v2_x0_5"),
    _timm("RepVGG", "repvgg_a0"),
    _timm("ConvNeXt v1", "convnext_atto", LAYER_NORM),
    _timm("ConvNeXt v2", "convnextv2_atto", GRN),
    _timm("NFNet", "nf_resnet26", STANDARDISED),
    # ONNX Runtime fuses the stem's zero padding into its max-pool, which then pads with -inf
    _timm("BiT", "resnetv2_50x1_bit", GROUP_NORM, refused=("onnx",)),
    _timm("CSPDarknet", "cspdarknet53"),
    _timm("VoVNet", "ese_vovnet19b_slim"),
    _timm("HGNet", "hgnetv2_b0"),
    Family("FCN head", "torchvision fcn_resnet50", partial(_segmentation, "fcn_resnet50")),
    Family(
        "DeepLab v3 head",
        "torchvision deeplabv3_mobilenet_v3_large",
        partial(_segmentation, "deeplabv3_mobilenet_v3_large"),
    ),
    _torchvision("3-D ResNet", "r3d_18", shape=(3, 4, 32, 32), grow=8),
    _torchvision("(2+1)-D ResNet", "r2plus1d_18", shape=(3, 4, 32, 32), grow=8),
    Family("UNet", "plain code", UNet, (3, 32, 32), 16),
    Family("WaveNet", "plain code, 1-D", WaveNet, (1, 256)),
    _transformers("ResNet in transformers", "ResNet", embedding_size=16, **STAGES),
    _transformers("RegNet in transformers", "RegNet", embedding_size=16, groups_width=8, **STAGES),
    _transformers("MobileNet v2 in transformers", "MobileNetV2"),
    _transformers("ConvNeXt in transformers", "ConvNext", LAYER_NORM, num_stages=3, **STAGES),
)

BY_NAME = {family.name: family for family in FAMILIES}

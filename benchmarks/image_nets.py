"""Vision transformers, hybrids and mixers of timm and torchvision, at small widths where they take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision
from benchmarks.architecture import Architecture, Floats, Input, Sizes

CLASSES = 10

IMAGE: dict[str, Input] = {"": Floats(("B", 3, "S", "S"))}
VIDEO: dict[str, Input] = {"": Floats(("B", 3, "F", "S", "S"))}
ONE_SIZE = "one resolution"


def _of_timm(name: str, **settings: Any) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(name, num_classes=CLASSES, **settings)
    return net


def _of_torchvision(name: str, **settings: Any) -> nn.Module:
    from torchvision import models

    net: nn.Module = models.get_model(name, weights=None, **{"num_classes": CLASSES, **settings})
    return net


def _of_timm_class(path: str, **settings: Any) -> nn.Module:
    module, _, kind = path.partition(".")
    net: nn.Module = getattr(import_module(f"timm.models.{module}"), kind)(num_classes=CLASSES, **settings)
    return net


def _mixed(kind: str, **settings: Any) -> nn.Module:
    """An MLP-Mixer, a ResMLP or a gMLP."""
    mlp_mixer: Any = import_module("timm.models.mlp_mixer")
    kinds: dict[str, dict[str, Any]] = {
        "mixer": {},
        "resmlp": {"mlp_ratio": 4, "block_layer": mlp_mixer.ResBlock, "norm_layer": mlp_mixer.Affine},
        "gmlp": {"mlp_ratio": 6, "block_layer": mlp_mixer.SpatialGatingBlock, "mlp_layer": mlp_mixer.GatedMlp},
    }
    net: nn.Module = mlp_mixer.MlpMixer(num_classes=CLASSES, **kinds[kind], **settings)
    return net


def _metaformer(kind: str) -> nn.Module:
    """A PoolFormer or a CAFormer."""
    meta: Any = import_module("timm.models.metaformer")
    kinds: dict[str, dict[str, Any]] = {
        "PoolFormer": {"mlp_act": nn.GELU, "mlp_bias": True, "norm_layers": meta.GroupNorm1, "use_mlp_head": False,
                       "layer_scale_init_values": 1e-5, "res_scale_init_values": None},
        "CAFormer": {"token_mixers": [meta.SepConv, meta.SepConv, meta.Attention, meta.Attention],
                     "norm_layers": [meta.LayerNorm2dNoBias] * 2 + [meta.LayerNormNoBias] * 2},
    }  # fmt: skip
    net: nn.Module = meta.MetaFormer(depths=(1, 1, 1, 1), dims=(32, 64, 64, 96), num_classes=CLASSES, **kinds[kind])
    return net


def _others(size: int, larger: int | None) -> tuple[Sizes, ...]:
    return ({"B": 1}, {"B": 3} if larger is None else {"B": 3, "S": larger})


def _timm(name: str, net: str, size: int = 64, larger: int | None = 96, **settings: Any) -> Architecture:
    """A net of timm for images of `size`, judged at `larger`, too; None where it takes one resolution only."""
    build = partial(_of_timm, net, **settings)
    note = "" if larger is not None else ONE_SIZE
    title = f"timm {net}" + (", reduced" if set(settings) - {"img_size"} else "")
    return Architecture(name, title, build, IMAGE, {"B": 2, "S": size}, _others(size, larger), note)


def _timm_class(
    name: str,
    path: str,
    size: int = 64,
    larger: int | None = 96,
    make: Callable[..., nn.Module] | None = None,
    **s: Any,
) -> Architecture:
    """A class of timm by `module.Class`, made with settings that its named variants do not take."""
    build = partial(_of_timm_class, path, **s) if make is None else partial(make, **s)
    note = "" if larger is not None else ONE_SIZE
    title = f"timm {path.rpartition('.')[2]}, reduced"
    return Architecture(name, title, build, IMAGE, {"B": 2, "S": size}, _others(size, larger), note)


def _torchvision(
    name: str, net: str, size: int = 64, larger: int | None = 96, *, takes: dict[str, Input] = IMAGE, **settings: Any
) -> Architecture:
    """A net of torchvision for images of `size`, judged at `larger`, too."""
    build = partial(_of_torchvision, net, **settings)
    note = "" if larger is not None else ONE_SIZE
    sizes = {"B": 2, "S": size} | ({"F": 8} if takes is VIDEO else {})
    return Architecture(name, f"torchvision {net}", build, takes, sizes, _others(size, larger), note)


def _vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    net: nn.Module = VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=CLASSES)
    return net


def _swin(version: int) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    more = {} if version == 1 else {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    net: nn.Module = swin.SwinTransformer([4, 4], 32, [2, 2], [2, 4], [4, 4], num_classes=CLASSES, **more)
    return net


def _swin_3d() -> nn.Module:
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    net: nn.Module = SwinTransformer3d([2, 4, 4], 32, [2, 2], [2, 4], [2, 4, 4], num_classes=CLASSES)
    return net


def _maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    net: nn.Module = MaxVit((64, 64), 16, 4, [32, 48], [1, 1], 16, 0.0, num_classes=CLASSES)
    return net


def _pyramid() -> nn.Module:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    net: nn.Module = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return net


VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4}
STAGED: dict[str, Any] = {"embed_dims": (32, 48, 64, 80), "depths": (1, 1, 1, 1)}

TRANSFORMERS = (
    _timm("ViT in timm", "vit_tiny_patch16_224", 32, None, **VIT),
    _timm("ViT with dynamic size", "vit_small_patch14_reg4_dinov2", 32, 48, **VIT, dynamic_img_size=True),
    _timm("DeiT III", "deit3_small_patch16_224", 32, None, **VIT),
    _timm("CaiT", "cait_xxs24_224", 32, None, **VIT),
    _timm("ConViT", "convit_tiny", 32, None, **VIT),
    _timm("EVA-02", "eva02_tiny_patch14_224", 32, None, **VIT),
    _timm("ViT with relative positions", "vit_relpos_small_patch16_224", 32, None, **VIT),
    _timm("ViT of SAM", "samvit_base_patch16", 64, None, **(VIT | {"img_size": 64}), global_attn_indexes=(1,)),
    _timm("XCiT", "xcit_nano_12_p16_224", 64, 96, img_size=64, embed_dim=64, depth=2, num_heads=4),
    _timm_class("VOLO", "volo.VOLO", 64, None, layers=(1, 1, 1, 1), img_size=64, embed_dims=(32, 64, 64, 64),
                num_heads=(2, 4, 4, 4), mlp_ratio=2.0, use_mix_token=False),
    _timm("TNT", "tnt_s_legacy_patch16_224", 64, None, img_size=64, embed_dim=64, inner_dim=16, depth=2,
          num_heads_outer=4),
    _timm("PiT", "pit_ti_224", 64, None, img_size=64, base_dims=(16, 16, 16), depth=(1, 1, 1)),
    _timm("Swin in timm", "swin_tiny_patch4_window7_224", 64, None, img_size=64, window_size=4, embed_dim=32,
          depths=(2, 2), num_heads=(2, 4)),
    _timm("Swin v2 in timm", "swinv2_tiny_window8_256", 64, None, img_size=64, window_size=4, embed_dim=32,
          depths=(2, 2), num_heads=(2, 4)),
    _timm("Swin v2 CR", "swinv2_cr_tiny_ns_224", 64, None, img_size=64, window_size=4, embed_dim=32, depths=(2, 2),
          num_heads=(2, 4)),
    _timm("Hiera in timm", "hiera_tiny_224", 64, None, img_size=(64, 64), embed_dim=32, num_heads=1,
          stages=(1, 1, 1, 1)),
    _timm_class("NesT", "nest.Nest", 64, None, img_size=64, patch_size=4, num_levels=2, embed_dims=(32, 64),
                num_heads=(2, 4), depths=(1, 1)),
    _timm("Twins-SVT", "twins_svt_small", 64, 96, img_size=64, **STAGED, num_heads=(2, 3, 4, 5), wss=(4, 4, 4, 2)),
    _timm("Twins-PCPVT", "twins_pcpvt_small", 64, None, img_size=64, **STAGED, num_heads=(2, 3, 4, 5)),
    _timm("DaViT", "davit_tiny", depths=(1, 1), embed_dims=(32, 64), num_heads=(2, 4)),
    _timm_class("GC ViT", "gcvit.GlobalContextVit", 64, None, img_size=64, window_ratio=None,
                window_size=(4, 4, 4, 2), depths=(1, 1, 1, 1), embed_dim=32, num_heads=(2, 4, 8, 16)),
    _timm("TinyViT", "tiny_vit_5m_224", depths=(1, 1, 1, 1), embed_dims=(32, 48, 64, 80), num_heads=(2, 3, 4, 5),
          window_sizes=(4, 4, 4, 2)),
)  # fmt: skip

HYBRIDS = (
    _timm("CoaT", "coat_lite_tiny", 64, None, img_size=64, embed_dims=(32, 48, 64, 80), serial_depths=(1, 1, 1, 1)),
    _timm("MaxViT", "maxvit_rmlp_pico_rw_256", 64, None, img_size=64, embed_dim=(32, 64), depths=(1, 1), stem_width=16,
          block_type=("M", "M")),
    _timm("BoTNet", "botnet26t_256", 64, None, img_size=64),
    _timm("EdgeNeXt", "edgenext_xx_small", depths=(1, 1, 2, 1), dims=(24, 48, 64, 80)),
    _timm("EfficientFormer v2", "efficientformerv2_s0", 64, None, img_size=64, depths=(1, 1, 2, 2), num_vit=1),
    _timm("EfficientViT of MIT", "efficientvit_b0"),
    _timm("EfficientViT of MSRA", "efficientvit_m0", 64, None, img_size=64, embed_dim=[32, 64, 96], depth=[1, 1, 1]),
    _timm("EfficientViM", "efficientvim_m1", embed_dim=(32, 48, 64), depths=(1, 1, 1)),
    _timm("FastViT", "fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(24, 48, 96, 192), mlp_ratios=(2, 2, 2, 2),
          token_mixers=("repmixer", "repmixer", "repmixer", "attention")),
    _timm_class("CAFormer", "metaformer.MetaFormer", make=_metaformer, kind="CAFormer"),
    _timm("iFormer", "iformer_t", dims=(16, 32, 48, 64), depths=(1, 1, 3, 3), attn_groups=(0, 0, 1, 1)),
)  # fmt: skip

MIXERS = (
    _timm_class("MLP-Mixer", "mlp_mixer.MlpMixer", 32, None, _mixed, kind="mixer", img_size=32, patch_size=8,
                embed_dim=64, num_blocks=2),
    _timm_class("ResMLP", "mlp_mixer.MlpMixer", 32, None, _mixed, kind="resmlp", img_size=32, patch_size=8,
                embed_dim=64, num_blocks=2),
    _timm_class("gMLP", "mlp_mixer.MlpMixer", 32, None, _mixed, kind="gmlp", img_size=32, patch_size=8,
                embed_dim=64, num_blocks=2),
    _timm_class("ConvMixer", "convmixer.ConvMixer", dim=64, depth=2),
    _timm("InceptionNeXt", "inception_next_atto"),
    _timm("MambaOut", "mambaout_femto", depths=(1, 1, 1, 1), dims=(32, 48, 64, 96)),
    _timm_class("StarNet", "starnet.StarNet", base_dim=24, depths=(1, 1, 1, 1)),
    _timm("Sequencer", "sequencer2d_s", 64, 96, layers=(1, 1), embed_dims=(32, 48), hidden_sizes=(16, 24),
          patch_sizes=(7, 2), mlp_ratios=(2.0, 2.0)),
)  # fmt: skip

TORCHVISION = (
    Architecture("ViT in torchvision", "torchvision VisionTransformer, reduced", _vision_transformer, IMAGE,
                 {"B": 2, "S": 32}, _others(32, None), ONE_SIZE),
    Architecture("Swin in torchvision", "torchvision SwinTransformer, reduced", partial(_swin, 1), IMAGE,
                 {"B": 2, "S": 64}, _others(64, 96)),
    Architecture("Swin v2 in torchvision", "torchvision SwinTransformer, v2 blocks, reduced", partial(_swin, 2), IMAGE,
                 {"B": 2, "S": 64}, _others(64, 96)),
    Architecture("Video Swin", "torchvision SwinTransformer3d, reduced", _swin_3d, VIDEO,
                 {"B": 2, "S": 32, "F": 4}, _others(32, 48)),
    Architecture("MaxViT in torchvision", "torchvision MaxVit, reduced", _maxvit, IMAGE, {"B": 2, "S": 64},
                 _others(64, None), ONE_SIZE),
    Architecture("Feature pyramid of a detector", "torchvision resnet_fpn_backbone", _pyramid, IMAGE,
                 {"B": 2, "S": 64}, _others(64, 96)),
    _torchvision("LR-ASPP", "lraspp_mobilenet_v3_large", weights_backbone=None),
)  # fmt: skip

IMAGE_NETS = (*TRANSFORMERS, *HYBRIDS, *MIXERS, *TORCHVISION)

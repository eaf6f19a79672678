"""Models of transformers that see, hear or read several kinds of input, tiny: transformers for images, video, sound."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from benchmarks import torchvision_cpu  # noqa: F401  # before transformers' image models
from benchmarks.architecture import Architecture, Floats, Input, Mask, Sizes, Tokens

CLASSES = 10

IMAGE: dict[str, Input] = {"pixel_values": Floats(("B", 3, "S", "S"))}
VIDEO: dict[str, Input] = {"pixel_values": Floats(("B", "F", 3, "S", "S"))}
WAVE: dict[str, Input] = {"input_values": Floats(("B", "S"))}
TEXT: dict[str, Input] = {"input_ids": Tokens(100), "attention_mask": Mask("right")}

VIT: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 32,
    "patch_size": 8, "num_labels": CLASSES,
}  # fmt: skip
HEARD: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "conv_dim": [32, 32], "conv_kernel": [8, 4], "conv_stride": [5, 4], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "vocab_size": 32, "num_labels": CLASSES,
}  # fmt: skip
PYRAMID: dict[str, Any] = {"num_labels": CLASSES, "image_size": 64}

Settings = dict[str, Any]
SAME: tuple[Sizes, ...] = ({"B": 1}, {"B": 3})
ONE_SIZE = "one resolution"


def _built(model: str, config: str, settings: Settings | Callable[[], Settings]) -> nn.Module:
    import transformers

    made: nn.Module = getattr(transformers, model)(
        getattr(transformers, config)(**(settings() if callable(settings) else settings))
    )
    return made


def _net(
    name: str,
    model: str,
    config: str,
    takes: dict[str, Input],
    sizes: Sizes,
    settings: Settings | Callable[[], Settings],
    larger: Sizes | None = None,
    note: str = "",
) -> Architecture:
    """A net of transformers; `larger` is what a second resolution or length changes, None where there is only one."""
    others = SAME if larger is None else ({"B": 1}, {"B": 3, **larger})
    build = partial(_built, model, config, settings)
    note = note or ("" if larger is not None else ONE_SIZE)
    return Architecture(name, f"transformers {model}", build, takes, {"B": 2, **sizes}, others, note)


def _image(name: str, kind: str, larger: int | None = None, model: str = "", **settings: Any) -> Architecture:
    """An image classifier of `settings` over the usual ones of a ViT."""
    made = {**VIT, **settings}
    more = None if larger is None else {"S": larger}
    return _net(name, model or f"{kind}ForImageClassification", f"{kind}Config", IMAGE, {"S": made["image_size"]}, made,
                more)  # fmt: skip


def _pyramid(name: str, kind: str, larger: int | None = 96, model: str = "", **settings: Any) -> Architecture:
    """An image net in stages, for images of 64 x 64."""
    more = None if larger is None else {"S": larger}
    model = model or f"{kind}ForImageClassification"
    return _net(name, model, f"{kind}Config", IMAGE, {"S": 64}, {**PYRAMID, **settings}, more)


IMAGES = (
    _image("ViT", "ViT"),
    _image("BEiT", "Beit", use_relative_position_bias=True, layer_scale_init_value=0.1, out_indices=None),
    _image("DINOv2", "Dinov2", 64, mlp_ratio=2, patch_size=8),
    _image("DINOv2 with registers", "Dinov2WithRegisters", 64, mlp_ratio=2, use_swiglu_ffn=True, num_register_tokens=2),
    _image("DINOv3", "DINOv3ViT", 64, "DINOv3ViTModel", num_register_tokens=2),
    _net("YOLOS", "YolosForObjectDetection", "YolosConfig", IMAGE, {"S": 32},
         {**VIT, "image_size": [32, 32], "num_detection_tokens": 6}),
    _image("DPT", "DPT", None, "DPTForDepthEstimation", is_hybrid=False, num_hidden_layers=4,
           backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 24, 32, 48], fusion_hidden_size=32,
           head_in_index=-1),
    _pyramid("Swin", "Swin", embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4, patch_size=4),
    _pyramid("Swin v2", "Swinv2", embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4, patch_size=4),
    _pyramid("SegFormer", "Segformer", model="SegformerForSemanticSegmentation", num_encoder_blocks=3,
             depths=[1, 1, 1], sr_ratios=[4, 2, 1], hidden_sizes=[32, 48, 64], patch_sizes=[7, 3, 3],
             strides=[4, 2, 2], num_attention_heads=[1, 2, 4], mlp_ratios=[2, 2, 2], decoder_hidden_size=32),
    _pyramid("PVT", "Pvt", None, num_encoder_blocks=3, depths=[1, 1, 1], sequence_reduction_ratios=[4, 2, 1],
             hidden_sizes=[32, 48, 64], patch_sizes=[4, 2, 2], strides=[4, 2, 2], num_attention_heads=[1, 2, 4],
             mlp_ratios=[2, 2, 2]),
    _pyramid("PVT v2", "PvtV2", num_encoder_blocks=3, depths=[1, 1, 1], sr_ratios=[4, 2, 1],
             hidden_sizes=[32, 48, 64], patch_sizes=[7, 3, 3], strides=[4, 2, 2], num_attention_heads=[1, 2, 4],
             mlp_ratios=[2, 2, 2]),
    _pyramid("LeViT", "Levit", None, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1],
             key_dim=[8, 8, 8], drop_path_rate=0, mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2]),
    _pyramid("MobileViT", "MobileViT", hidden_sizes=[32, 48, 64], neck_hidden_sizes=[8, 16, 24, 32, 48, 56, 64],
             num_attention_heads=4, image_size=64),
    _pyramid("MobileViT v2", "MobileViTV2", n_attn_blocks=[1, 1, 1], base_attn_unit_dims=[32, 48, 64],
             width_multiplier=0.25),
    _pyramid("PoolFormer", "PoolFormer", depths=[1, 1, 1, 1], hidden_sizes=[32, 48, 64, 64]),
    _pyramid("FocalNet", "FocalNet", embed_dim=32, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3],
             hidden_sizes=[32, 64]),
    _pyramid("CvT", "Cvt", embed_dim=[32, 48, 64], num_heads=[1, 2, 4], depth=[1, 2, 3], mlp_ratio=[2.0, 2.0, 2.0]),
    _pyramid("SwiftFormer", "SwiftFormer", depths=[1, 1, 1, 1], embed_dims=[24, 32, 48, 64], mlp_ratio=2),
    _pyramid("GLPN", "GLPN", model="GLPNForDepthEstimation", num_encoder_blocks=4, depths=[1, 1, 1, 1],
             sr_ratios=[4, 2, 1, 1], hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 2, 3, 4],
             mlp_ratios=[2, 2, 2, 2], decoder_hidden_size=32),
    _pyramid("Hiera", "Hiera", None, embed_dim=32, image_size=[64, 64], depths=[1, 1, 1], num_heads=[1, 2, 4],
             patch_stride=[4, 4], patch_size=[7, 7], patch_padding=[3, 3], query_stride=[2, 2], num_query_pool=2,
             masked_unit_size=[4, 4], mlp_ratio=2.0, embed_dim_multiplier=2.0),
    _net("SAM's image encoder", "SamVisionModel", "SamVisionConfig", IMAGE, {"S": 64},
         {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 8,
          "output_channels": 32, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 128}),
)  # fmt: skip

VIDEOS = (
    _net("VideoMAE", "VideoMAEForVideoClassification", "VideoMAEConfig", VIDEO, {"F": 4, "S": 32},
         {**VIT, "num_frames": 4, "tubelet_size": 2}),
    _net("ViViT", "VivitForVideoClassification", "VivitConfig", VIDEO, {"F": 4, "S": 32},
         {**VIT, "num_frames": 4, "tubelet_size": [2, 8, 8]}),
    _net("TimeSformer", "TimesformerForVideoClassification", "TimesformerConfig", VIDEO, {"F": 4, "S": 32},
         {**VIT, "num_frames": 4}),
)  # fmt: skip

MEL: dict[str, Input] = {"input_features": Floats(("B", 16, "S")), "decoder_input_ids": Tokens(100)}
SOUNDS = (
    _net("wav2vec 2.0", "Wav2Vec2ForCTC", "Wav2Vec2Config", WAVE, {"S": 1600}, HEARD, {"S": 2400}),
    _net("WavLM", "WavLMForCTC", "WavLMConfig", WAVE, {"S": 1600}, HEARD, {"S": 2400}),
    _net("SEW", "SEWForCTC", "SEWConfig", WAVE, {"S": 1600}, {**HEARD, "squeeze_factor": 2}, {"S": 2400}),
    _net("data2vec audio", "Data2VecAudioForCTC", "Data2VecAudioConfig", WAVE, {"S": 1600},
         {**HEARD, "conv_pos_kernel_size": 5}, {"S": 2400}),
    _net("wav2vec 2.0 conformer", "Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig", WAVE, {"S": 1600},
         {**HEARD, "position_embeddings_type": "rotary"}, {"S": 2400}),
    _net("Whisper", "WhisperForConditionalGeneration", "WhisperConfig", MEL, {"S": 32, "T": 8},
         {"vocab_size": 100, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
          "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 16,
          "max_source_positions": 16, "max_target_positions": 32, "use_cache": False, "pad_token_id": 0,
          "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}, {"T": 11}, "one length of sound"),
    _net("Speech2Text", "Speech2TextForConditionalGeneration", "Speech2TextConfig",
         {"input_features": Floats(("B", "S", 16)), "decoder_input_ids": Tokens(100)}, {"S": 40, "T": 8},
         {"vocab_size": 100, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
          "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "input_feat_per_channel": 16,
          "conv_channels": 48, "max_source_positions": 64, "max_target_positions": 32, "use_cache": False},
         {"T": 11, "S": 56}),
    _net("Audio Spectrogram Transformer", "ASTForAudioClassification", "ASTConfig",
         {"input_values": Floats(("B", 48, 32))}, {},
         {**VIT, "max_length": 48, "num_mel_bins": 32, "frequency_stride": 8, "time_stride": 8}),
    _net("HiFi-GAN", "SpeechT5HifiGan", "SpeechT5HifiGanConfig", {"spectrogram": Floats(("B", "S", 16))}, {"S": 12},
         {"model_in_dim": 16, "upsample_initial_channel": 64, "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8],
          "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 3]]}, {"S": 17}),
)  # fmt: skip

TEXT_TOWER: Settings = {
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "projection_dim": 32,
}  # fmt: skip
IMAGE_TOWER: Settings = {**VIT, "projection_dim": 32}
SEEN_AND_READ: dict[str, Input] = {**TEXT, **IMAGE}
TOWERS: Settings = {"text_config": TEXT_TOWER, "vision_config": IMAGE_TOWER, "projection_dim": 32}
BOTH: Sizes = {"S": 32, "T": 10}

SERIES: Settings = {
    "num_input_channels": 3, "context_length": 32, "prediction_length": 8, "patch_length": 8, "patch_stride": 8,
    "stride": 8, "d_model": 32, "num_hidden_layers": 2, "num_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
}  # fmt: skip

MIXED = (
    _net("CLIP", "CLIPModel", "CLIPConfig", SEEN_AND_READ, BOTH, TOWERS, {"T": 13}),
    _net("SigLIP", "SiglipModel", "SiglipConfig", {"input_ids": Tokens(100), **IMAGE}, BOTH, TOWERS, {"T": 13}),
    _net("CLIPSeg", "CLIPSegForImageSegmentation", "CLIPSegConfig", SEEN_AND_READ, BOTH,
         {**TOWERS, "reduce_dim": 32, "extract_layers": [0, 1], "decoder_num_attention_heads": 4,
          "decoder_intermediate_size": 64, "conditional_layer": 0}, {"T": 13}),
    _net("BLIP", "BlipForConditionalGeneration", "BlipConfig", SEEN_AND_READ, BOTH,
         {**TOWERS, "text_config": {**TEXT_TOWER, "encoder_hidden_size": 64}, "image_text_hidden_size": 32}, {"T": 13}),
    _net("GIT", "GitForCausalLM", "GitConfig", SEEN_AND_READ, BOTH,
         {**TEXT_TOWER, "vision_config": IMAGE_TOWER, "use_cache": False}, {"T": 13}),
    _net("VisualBERT", "VisualBertModel", "VisualBertConfig",
         {**TEXT, "visual_embeds": Floats(("B", 5, 24))}, {"T": 10}, {**TEXT_TOWER, "visual_embedding_dim": 24},
         {"T": 13}),
    _net("LXMERT", "LxmertModel", "LxmertConfig",
         {**TEXT, "visual_feats": Floats(("B", 5, 24)), "visual_pos": Floats(("B", 5, 4))}, {"T": 10},
         {**TEXT_TOWER, "num_hidden_layers": {"vision": 1, "cross_encoder": 1, "language": 1}, "visual_feat_dim": 24,
          "l_layers": 1, "r_layers": 1, "x_layers": 1}, {"T": 13}),
    _net("PatchTST", "PatchTSTForPrediction", "PatchTSTConfig", {"past_values": Floats(("B", 32, 3))}, {}, SERIES),
    _net("PatchTSMixer", "PatchTSMixerForPrediction", "PatchTSMixerConfig", {"past_values": Floats(("B", 32, 3))}, {},
         SERIES),
    _net("Decision Transformer", "DecisionTransformerModel", "DecisionTransformerConfig",
         {"states": Floats(("B", "T", 6)), "actions": Floats(("B", "T", 3)), "rewards": Floats(("B", "T", 1)),
          "returns_to_go": Floats(("B", "T", 1)), "timesteps": Tokens(30, 0),
          "attention_mask": Mask("left")}, {"T": 8},
         {"state_dim": 6, "act_dim": 3, "hidden_size": 64, "n_layer": 2, "n_head": 4, "max_ep_len": 32,
          "n_positions": 64, "use_cache": False}, {"T": 11}),
    _net("Perceiver", "PerceiverModel", "PerceiverConfig", {"inputs": Floats(("B", "T", 24))}, {"T": 20},
         {"num_latents": 6, "d_latents": 32, "d_model": 24, "num_blocks": 1, "num_self_attends_per_block": 2,
          "num_self_attention_heads": 4, "num_cross_attention_heads": 4}, {"T": 28}),
)  # fmt: skip

VISION_NETS = (*IMAGES, *VIDEOS, *SOUNDS, *MIXED)

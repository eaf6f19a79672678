"""Language models of transformers, tiny: encoders, decoders, encoder-decoders, experts, state spaces."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import torchvision_cpu  # noqa: F401  # before transformers' image models
from benchmarks.architecture import Architecture, Input, Mask, Sizes, Tokens, Value

VOCAB = 100
CACHE = "default cache on, which is not compared"

TOKENS: dict[str, Input] = {"input_ids": Tokens(VOCAB)}
PADDED: dict[str, Input] = {**TOKENS, "attention_mask": Mask("right")}
LEFT_PADDED: dict[str, Input] = {**TOKENS, "attention_mask": Mask("left")}
PAIR: dict[str, Input] = {**PADDED, "decoder_input_ids": Tokens(VOCAB, shape=("B", "U"))}
UNPADDED_PAIR: dict[str, Input] = {name: PAIR[name] for name in ("input_ids", "decoder_input_ids")}
"""For code that branches on what a mask holds: without one, it makes its own."""

TINY: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED: dict[str, Any] = {**TINY, "num_key_value_heads": 2, "use_cache": False}
WHOLE: dict[str, Any] = {**TINY, "num_key_value_heads": 4, "use_cache": False}
EXPERTS: dict[str, Any] = {**GROUPED, "moe_intermediate_size": 48, "num_experts_per_tok": 2}
GPT: dict[str, Any] = {
    "vocab_size": VOCAB, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64,
    "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "use_cache": False,
    "decoder_start_token_id": 0,
}  # fmt: skip


def _boxes(sizes: Sizes) -> Tensor:
    """Corners of the words' boxes, `[batch, tokens, 4]`."""
    corner = torch.arange(sizes["T"])
    return torch.stack([corner, corner // 2, corner + 9, corner // 2 + 4], -1).expand(sizes["B"], -1, -1).clone()


def _built(model: str, config: str, settings: dict[str, Any]) -> nn.Module:
    import transformers

    made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**settings))
    return made


def _net(
    name: str, model: str, takes: dict[str, Input], base: dict[str, Any], note: str = "", config: str = "", **more: Any
) -> Architecture:
    """A net of transformers; its config class is the model's name without its task, plus `Config`."""
    for task in ("ForCausalLM", "ForMaskedLM", "ForSequenceClassification", "ForConditionalGeneration", "LMHeadModel",
                 "WithLMHeadModel", "ForPreTraining", "DoubleHeadsModel", "Model"):  # fmt: skip
        if not config and model.endswith(task):
            config = model.removesuffix(task) + "Config"
    build = partial(_built, model, config, {**base, **more})
    sizes = {"B": 2, "T": 12, "U": 9} if "decoder_input_ids" in takes else {"B": 2, "T": 12}
    others = ({"B": 1}, {"B": 3, "T": 17, "U": 7} if "U" in sizes else {"B": 3, "T": 17})
    return Architecture(name, f"transformers {model}", build, takes, sizes, others, note)


ENCODERS = (
    _net("BERT", "BertForMaskedLM", PADDED, TINY),
    _net("RoBERTa", "RobertaForSequenceClassification", PADDED, TINY, num_labels=5),
    _net("ALBERT", "AlbertForMaskedLM", PADDED, TINY, embedding_size=32),
    _net("DistilBERT", "DistilBertForMaskedLM", PADDED, TINY, dim=64, n_heads=4, n_layers=2, hidden_dim=128),
    _net("ELECTRA", "ElectraForMaskedLM", PADDED, TINY, embedding_size=32),
    _net("DeBERTa", "DebertaForMaskedLM", PADDED, TINY, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    _net("DeBERTa v2", "DebertaV2ForSequenceClassification", PADDED, TINY, num_labels=5, relative_attention=True,
         pos_att_type=["c2p", "p2c"], position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm"),
    _net("MPNet", "MPNetForMaskedLM", PADDED, TINY),
    _net("ModernBERT", "ModernBertForMaskedLM", PADDED, TINY, num_hidden_layers=3, local_attention=8,
         cls_token_id=1, sep_token_id=2),
    _net("NomicBERT", "NomicBertForMaskedLM", PADDED, TINY),
    _net("FNet", "FNetForMaskedLM", TOKENS, TINY, use_tpu_fourier_optimizations=False),
    _net("BigBird", "BigBirdForMaskedLM", PADDED, TINY, attention_type="original_full"),
    _net("RoFormer", "RoFormerForMaskedLM", PADDED, TINY),
    _net("ESM", "EsmForMaskedLM", PADDED, TINY, position_embedding_type="rotary", mask_token_id=4),
    _net("MobileBERT", "MobileBertForMaskedLM", PADDED, TINY, embedding_size=32, intra_bottleneck_size=32,
         hidden_size=64, true_hidden_size=32, num_feedforward_networks=2),
    _net("SqueezeBERT", "SqueezeBertForMaskedLM", PADDED, TINY, embedding_size=64),
    _net("ConvBERT", "ConvBertForMaskedLM", PADDED, TINY, embedding_size=32, head_ratio=2, conv_kernel_size=5),
    _net("Funnel", "FunnelForMaskedLM", PADDED, {"vocab_size": VOCAB}, block_sizes=[1, 1], num_decoder_layers=1,
         d_model=64, n_head=4, d_head=16, d_inner=128),
    _net("XLNet", "XLNetLMHeadModel", PADDED, {"vocab_size": VOCAB}, d_model=64, n_layer=2, n_head=4, d_inner=128,
         use_mems_eval=False),
    _net("XLM", "XLMWithLMHeadModel", PADDED, {}, vocab_size=VOCAB, n_words=VOCAB, emb_dim=64, n_layers=2, n_heads=4,
         pad_index=0, eos_index=2, bos_index=1, unk_index=3, mask_index=4, config="XLMConfig"),
    _net("LiLT", "LiltModel", {**PADDED, "bbox": Value(_boxes)}, TINY, hidden_size=96,
         channel_shrink_ratio=4, max_2d_position_embeddings=64),
    _net("CANINE", "CanineModel", PADDED, TINY, local_transformer_stride=4, num_hash_functions=4, num_hash_buckets=64,
         downsampling_rate=4, upsampling_kernel_size=3, max_position_embeddings=64),
)  # fmt: skip

DECODERS = (
    _net("GPT-2", "GPT2LMHeadModel", LEFT_PADDED, GPT),
    _net("GPT-Neo", "GPTNeoForCausalLM", LEFT_PADDED, TINY, num_layers=2, num_heads=4, use_cache=False,
         attention_types=[[["global", "local"], 1]], window_size=8),
    _net("GPT-J", "GPTJForCausalLM", LEFT_PADDED, GPT, rotary_dim=8),
    _net("GPT-NeoX", "GPTNeoXForCausalLM", LEFT_PADDED, TINY, use_cache=False),
    _net("GPT-BigCode", "GPTBigCodeForCausalLM", LEFT_PADDED, GPT, multi_query=True),
    _net("CodeGen", "CodeGenForCausalLM", LEFT_PADDED, GPT, rotary_dim=8, n_ctx=64),
    _net("CTRL", "CTRLLMHeadModel", PADDED, GPT, dff=128),
    _net("OPT", "OPTForCausalLM", LEFT_PADDED, TINY, ffn_dim=128, word_embed_proj_dim=32, use_cache=False),
    _net("BLOOM", "BloomForCausalLM", LEFT_PADDED, TINY, n_layer=2, n_head=4, use_cache=False),
    _net("MPT", "MptForCausalLM", LEFT_PADDED, {"vocab_size": VOCAB}, d_model=64, n_heads=4, n_layers=2,
         max_seq_len=64, use_cache=False),
    _net("Falcon", "FalconForCausalLM", LEFT_PADDED, TINY, new_decoder_architecture=False, multi_query=True,
         parallel_attn=True, use_cache=False),
    _net("XGLM", "XGLMForCausalLM", LEFT_PADDED, TINY, d_model=64, attention_heads=4, ffn_dim=128, num_layers=2,
         use_cache=False),
    _net("Llama", "LlamaForCausalLM", LEFT_PADDED, GROUPED),
    _net("Mistral", "MistralForCausalLM", TOKENS, {**GROUPED, "use_cache": True}, CACHE, sliding_window=8),
    _net("Qwen2", "Qwen2ForCausalLM", TOKENS, {**GROUPED, "use_cache": True}, CACHE),
    _net("Qwen3", "Qwen3ForCausalLM", LEFT_PADDED, GROUPED, head_dim=16),
    _net("Gemma", "GemmaForCausalLM", LEFT_PADDED, GROUPED, head_dim=16),
    _net("Gemma 2", "Gemma2ForCausalLM", LEFT_PADDED, GROUPED, head_dim=16, sliding_window=8),
    _net("Gemma 3", "Gemma3ForCausalLM", LEFT_PADDED, GROUPED, head_dim=16, sliding_window=8,
         config="Gemma3TextConfig"),
    _net("Phi", "PhiForCausalLM", LEFT_PADDED, WHOLE),
    _net("Phi-3", "Phi3ForCausalLM", LEFT_PADDED, GROUPED),
    _net("StableLM", "StableLmForCausalLM", LEFT_PADDED, GROUPED, qk_layernorm=True),
    _net("StarCoder2", "Starcoder2ForCausalLM", LEFT_PADDED, GROUPED),
    _net("Cohere", "CohereForCausalLM", LEFT_PADDED, GROUPED, use_qk_norm=True),
    _net("OLMo", "OlmoForCausalLM", LEFT_PADDED, GROUPED),
    _net("OLMo 2", "Olmo2ForCausalLM", LEFT_PADDED, GROUPED),
    _net("Granite", "GraniteForCausalLM", LEFT_PADDED, GROUPED),
    _net("Nemotron", "NemotronForCausalLM", LEFT_PADDED, GROUPED),
    _net("Persimmon", "PersimmonForCausalLM", LEFT_PADDED, WHOLE),
    _net("GLM-4", "Glm4ForCausalLM", LEFT_PADDED, GROUPED, head_dim=16),
    _net("Differential Llama", "DiffLlamaForCausalLM", LEFT_PADDED, GROUPED),
    _net("MiniCPM3", "MiniCPM3ForCausalLM", LEFT_PADDED, WHOLE, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8,
         qk_rope_head_dim=8, v_head_dim=16),
)  # fmt: skip

SPARSE = (
    _net("Mixtral", "MixtralForCausalLM", TOKENS, EXPERTS, num_local_experts=4),
    _net("Qwen3-MoE", "Qwen3MoeForCausalLM", TOKENS, EXPERTS, num_experts=4, head_dim=16),
    _net("Qwen2-MoE", "Qwen2MoeForCausalLM", TOKENS, EXPERTS, num_experts=4, shared_expert_intermediate_size=48),
    _net("OLMoE", "OlmoeForCausalLM", TOKENS, EXPERTS, num_experts=4),
    _net("GPT-OSS", "GptOssForCausalLM", TOKENS, EXPERTS, num_local_experts=4, head_dim=16, sliding_window=8),
    _net("DeepSeek v2", "DeepseekV2ForCausalLM", TOKENS, {**EXPERTS, "num_key_value_heads": 4}, n_routed_experts=4,
         n_shared_experts=1, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16,
         first_k_dense_replace=1, topk_method="greedy", n_group=1, topk_group=1),
    _net("DeepSeek v3", "DeepseekV3ForCausalLM", TOKENS, {**EXPERTS, "num_key_value_heads": 4}, n_routed_experts=4,
         n_shared_experts=1, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16,
         first_k_dense_replace=1, n_group=2, topk_group=1),
    _net("GraniteMoE", "GraniteMoeForCausalLM", TOKENS, EXPERTS, num_local_experts=4),
    _net("Switch Transformer", "SwitchTransformersForConditionalGeneration", PAIR, T5, num_experts=4,
         num_sparse_encoder_layers=1, num_sparse_decoder_layers=1),
)  # fmt: skip

RECURRENT = (
    _net("Mamba", "MambaForCausalLM", TOKENS, TINY, state_size=8, use_cache=False, use_mambapy=False),
    _net("Mamba-2", "Mamba2ForCausalLM", TOKENS, TINY, state_size=8, num_heads=8, head_dim=16, n_groups=2,
         chunk_size=4, use_cache=False),
    _net("FalconMamba", "FalconMambaForCausalLM", TOKENS, TINY, state_size=8, use_cache=False),
    _net("RWKV", "RwkvForCausalLM", TOKENS, TINY, attention_hidden_size=64, context_length=64, use_cache=False),
    _net("RecurrentGemma", "RecurrentGemmaForCausalLM", TOKENS, GROUPED, num_hidden_layers=3, lru_width=64,
         attention_window_size=8, conv1d_width=4, head_dim=16),
    _net("LFM2", "Lfm2ForCausalLM", TOKENS, GROUPED, block_ff_dim=128, block_multiple_of=16,
         layer_types=["conv", "full_attention"]),
    _net("xLSTM", "xLSTMForCausalLM", TOKENS, TINY, num_heads=4, num_blocks=2, chunk_size=4, use_cache=False,
         config="xLSTMConfig"),
)  # fmt: skip

PAIRS = (
    _net("T5", "T5ForConditionalGeneration", PAIR, T5),
    _net("T5 v1.1", "T5ForConditionalGeneration", PAIR, T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    _net("LongT5", "LongT5ForConditionalGeneration", PAIR, T5, local_radius=4),
    _net("BART", "BartForConditionalGeneration", PAIR, SEQ2SEQ),
    _net("LED", "LEDForConditionalGeneration", UNPADDED_PAIR, SEQ2SEQ, attention_window=4,
         max_encoder_position_embeddings=64, max_decoder_position_embeddings=64),
    _net("ProphetNet", "ProphetNetForConditionalGeneration", PAIR, {"vocab_size": VOCAB, "hidden_size": 64},
         encoder_ffn_dim=128, num_encoder_layers=2,
         num_encoder_attention_heads=4, decoder_ffn_dim=128, num_decoder_layers=2, num_decoder_attention_heads=4,
         use_cache=False, decoder_start_token_id=0),
)  # fmt: skip

LANGUAGE_NETS = (*ENCODERS, *DECODERS, *SPARSE, *RECURRENT, *PAIRS)

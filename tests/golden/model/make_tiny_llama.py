#!/usr/bin/env python3
"""Makes the tiny seeded models of this folder and the logits that transformers computes for them.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors gguf numpy
    venv/bin/python make_tiny_llama.py

Hugging Face folders:  <name>/{config.json, generation_config.json, model*.safetensors, golden.bin}
GGUF files:            <name>/{model.gguf, golden.bin}; weights of block types are random blocks, dequantised by the gguf
                       package for the reference, so that no quantiser stands between the two.
golden.bin: u32 sequences, u32 vocab; per sequence u32 n, i32 tokens[n], f32 logits[n][vocab]. Little-endian.
Logits are computed in float32 with eager attention. Everything follows from SEED. Last made with torch 2.15.0,
transformers 5.23.0, safetensors 0.8.0, gguf 0.19.0, numpy 2.4.6.
"""
import os
import shutil
import struct

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

SEED = 20261122
HERE = os.path.dirname(os.path.abspath(__file__))

BASE = dict(hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            vocab_size=65, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False,
            bos_token_id=1, eos_token_id=2)

HF = {
    # name: (class, config overrides, dtype on disk, shard size, sequence lengths)
    "tied": (LlamaForCausalLM, dict(tie_word_embeddings=True, hidden_size=64, num_attention_heads=4,
                                    num_key_value_heads=2, num_hidden_layers=1), torch.float32, "5GB", [1, 17, 33]),
    "bias_headdim": (LlamaForCausalLM, dict(head_dim=32, num_key_value_heads=1, attention_bias=True, mlp_bias=True),
                     torch.float32, "5GB", [5, 40]),
    "llama3_rope": (LlamaForCausalLM, dict(rope_theta=500000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)), torch.float32, "5GB", [3, 120]),
    "linear_rope": (LlamaForCausalLM, dict(rope_scaling=dict(rope_type="linear", factor=4.0)), torch.float16, "5GB",
                    [70]),
    "mistral_window": (MistralForCausalLM, dict(sliding_window=8), torch.float32, "5GB", [6, 50]),
    "bf16_shards": (LlamaForCausalLM, dict(num_attention_heads=2, num_key_value_heads=2), torch.bfloat16, "20KB",
                    [21]),
}

GGUF_BASE = dict(BASE, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
                 num_hidden_layers=1)
GGUF_K = dict(BASE, hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=1, head_dim=64,
              num_hidden_layers=1)
T = gguf.GGMLQuantizationType
GGUF = {
    # name: (config, type of the layers' matrices, type of embedding and head, sequence lengths)
    "gguf_f32": (dict(GGUF_BASE, tie_word_embeddings=True, hidden_size=32, num_attention_heads=2,
                      num_key_value_heads=1), T.F32, T.F32, [30]),
    # rope.dimension_count below the head size: the reference gets frequency 0 for the pairs that do not turn.
    "gguf_partial": (dict(GGUF_BASE, hidden_size=32, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32),
                     T.F32, T.F32, [20]),
    "gguf_f16": (GGUF_BASE, T.F16, T.F16, [30]),
    "gguf_bf16": (dict(GGUF_BASE, attention_bias=True), T.BF16, T.F32, [30]),
    "gguf_q8_0": (dict(GGUF_BASE, tie_word_embeddings=True), T.Q8_0, T.Q8_0, [30]),
    "gguf_q4_0": (GGUF_BASE, T.Q4_0, T.Q8_0, [30]),
    "gguf_q4_1": (GGUF_BASE, T.Q4_1, T.Q8_0, [30]),
    # As files of the mixture Q4_K_M have it: v and down in more bits than the rest.
    "gguf_q4_k_m": (dict(GGUF_K, tie_word_embeddings=True, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)), T.Q4_K, T.Q6_K, [30]),
}


def fill(model, gen):
    """Larger than transformers' own initialisation, so that logits, softmax and norms are far from trivial."""
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.ndim == 2:
                p.copy_(torch.randn(p.shape, generator=gen) * (1.5 / p.shape[1] ** 0.5))
            elif "norm" in name:
                p.copy_(1 + 0.2 * torch.randn(p.shape, generator=gen))
            else:
                p.copy_(0.5 * torch.randn(p.shape, generator=gen))


def golden(model, path, lengths, gen):
    vocab = model.config.vocab_size
    model = model.float().eval()
    with open(path, "wb") as f, torch.no_grad():
        f.write(struct.pack("<II", len(lengths), vocab))
        for n in lengths:
            ids = torch.randint(0, vocab, (1, n), generator=gen)
            logits = model(input_ids=ids, use_cache=False).logits[0].float().numpy()
            f.write(struct.pack("<I", n) + ids[0].numpy().astype("<i4").tobytes() + logits.astype("<f4").tobytes())


def create(cls, config_cls, overrides):
    config = config_cls(**overrides)
    config._attn_implementation = "eager"
    return cls(config)


def make_hf(name):
    cls, over, dtype, shard, lengths = HF[name]
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    gen = torch.Generator().manual_seed(SEED)
    model = create(cls, MistralConfig if cls is MistralForCausalLM else LlamaConfig, dict(BASE, **over))
    fill(model, gen)
    model.to(dtype).save_pretrained(out, max_shard_size=shard)
    # Read back: .to(dtype) above also rounded the rotary frequencies, which no file holds.
    model = cls.from_pretrained(out, dtype=torch.float32, attn_implementation="eager")
    golden(model, os.path.join(out, "golden.bin"), lengths, gen)


def random_blocks(qtype, rows, k, rng):
    """Random bytes of a block type with scales that give weights of about 1.5 / sqrt(k)."""
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    raw = rng.integers(0, 256, (rows, k // block, size), dtype=np.uint8)
    std = 1.5 / k ** 0.5

    def half(v):
        return np.full((rows, k // block), v, np.float16) * (1 + 0.2 * rng.standard_normal((rows, k // block)))

    def put(at, v):
        raw[:, :, at:at + 2] = v.astype("<f2")[:, :, None].view(np.uint8)

    if qtype == T.Q8_0:
        put(0, half(std / 74))
    elif qtype == T.Q4_0:
        put(0, half(std / 4.6))
    elif qtype == T.Q4_1:
        put(0, half(std / 4.6))
        put(2, half(-7.5 * std / 4.6))
    elif qtype == T.Q4_K:
        put(0, half(std / 4.6 / 32))
        put(2, half(7.5 * std / 4.6 / 32))
    elif qtype == T.Q6_K:
        put(208, half(std / 18.5 / 74))
    return raw.reshape(rows, -1)


def store(w, qtype, rng):
    """(what the file holds, what it means as float32)"""
    if qtype in (T.F32, T.F16, T.BF16):
        raw = gguf.quants.quantize(w, qtype)
    else:
        raw = random_blocks(qtype, w.shape[0], w.shape[1], rng)
    return raw, gguf.quants.dequantize(raw, qtype).reshape(w.shape).astype(np.float32)


def permuted(w, heads):
    """Rows of q and k from half-split pairs to the neighbouring pairs that GGUF llama files hold."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermuted(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


NAMES = [("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"),
         ("self_attn.o_proj", "attn_output"), ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"),
         ("mlp.down_proj", "ffn_down"), ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")]


def gguf_name(name):
    for a, b in [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
                 ("model.layers", "blk")] + NAMES:
        name = name.replace(a, b)
    return name


def rope_factors(model):
    """What Llama-3.1 scaling does to each frequency, as the divisors that GGUF files carry."""
    c = model.config
    dim = c.head_dim
    theta = getattr(c, "rope_theta", None) or c.rope_parameters["rope_theta"]
    plain = 1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    return (plain / model.model.rotary_emb.inv_freq.double().numpy()).astype(np.float32)


def write_keys(w, c, name, rot_dim):
    w.add_name("tiny " + name)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_dimension_count(rot_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_vocab_size(c.vocab_size)
    w.add_rope_freq_base(10000.0)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def make_gguf(name):
    over, qtype, end_type, lengths = GGUF[name]
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    gen, rng = torch.Generator().manual_seed(SEED), np.random.default_rng(SEED)
    model = create(LlamaForCausalLM, LlamaConfig, over)
    fill(model, gen)
    c = model.config
    w = gguf.GGUFWriter(os.path.join(out, "model.gguf"), "llama")
    rot_dim = c.head_dim // 2 if name == "gguf_partial" else c.head_dim
    write_keys(w, c, name, rot_dim)
    with torch.no_grad():
        for key, p in model.named_parameters():
            value = p.numpy()
            heads = {"q": c.num_attention_heads, "k": c.num_key_value_heads}.get(key.split("_proj")[0][-1])
            if heads:
                value = permuted(value, heads)
            kind = T.F32 if p.ndim == 1 else end_type if "layers" not in key else qtype
            if qtype == T.Q4_K and ("v_proj" in key or "down_proj" in key):
                kind = T.Q6_K
            raw, meant = store(np.ascontiguousarray(value), kind, rng)
            w.add_tensor(gguf_name(key), raw, raw_dtype=kind)
            p.copy_(torch.from_numpy(np.ascontiguousarray(unpermuted(meant, heads) if heads else meant)))
    if "rope_scaling" in over:
        w.add_tensor("rope_freqs.weight", rope_factors(model))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if rot_dim < c.head_dim:
        freq = torch.zeros(c.head_dim // 2)
        freq[:rot_dim // 2] = 10000.0 ** (-torch.arange(0, rot_dim, 2) / rot_dim)
        model.model.rotary_emb.inv_freq = freq
    golden(model, os.path.join(out, "golden.bin"), lengths, gen)


if __name__ == "__main__":
    for n in HF:
        make_hf(n)
    for n in GGUF:
        make_gguf(n)

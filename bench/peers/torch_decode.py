#!/usr/bin/env python3
"""The same decode step in PyTorch: Llama-3.1-8B's shapes, random weights, 500-token contexts, greedy.

  bench/peers/torch_decode.py [--out DIR] [--limit SECONDS]

What is fastest there is looked for, not what is usual: merged qkv and gate/up weights, query heads of one KV head packed as
rows of scaled_dot_product_attention, the residual stream in bf16, each layer through torch.compile, the whole step with sampling in
one CUDA graph; eager layers in a graph beside it. fp8: weights and activations of the layers by torch._scaled_mm with scales per
row; keys and values stay bf16, the attention takes no other. Writes DIR/torch.csv. Status 77: no PyTorch, or no GPU.
"""
import argparse
import csv
import os
import sys
import time

LAYERS, D, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 32, 4096, 32, 8, 128, 14336, 128256
CONTEXT, BATCHES = 500, [1, 200, 32, 8, 64, 128, 256]
COLUMNS = ["form", "batch", "context", "variant", "step_ms", "tok_s", "note"]

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("torch: PyTorch is not installed")
    sys.exit(77)


def matrix(rows, k, form):
    w = torch.randn(rows, k, dtype=torch.bfloat16, device="cuda") * k**-0.5
    if form != "fp8":
        return w, None
    scale = w.abs().amax(1, keepdim=True).float() / 448
    return (w / scale).to(torch.float8_e4m3fn), scale.t().contiguous()


def linear(x, w):
    data, scale = w
    if scale is None:
        return F.linear(x, data)
    xs = x.abs().amax(1, keepdim=True).float().clamp(min=1e-6) / 448
    return torch._scaled_mm((x / xs).to(torch.float8_e4m3fn), data.t(), scale_a=xs, scale_b=scale, out_dtype=torch.bfloat16)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def layer(x, w, keys, values, cos, sin):
    """x [B][D]; keys, values [B][KV_HEADS][CONTEXT][HEAD_DIM]: the token's own go to the last position, then all are read."""
    rows = x.shape[0]
    a = F.rms_norm(x, (D,), w["norm1"], 1e-5)
    q, k, v = linear(a, w["qkv"]).split([HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM], -1)
    q = rotate(q.view(rows, HEADS, HEAD_DIM), cos, sin)
    k = rotate(k.view(rows, KV_HEADS, HEAD_DIM), cos, sin)
    keys[:, :, -1] = k
    values[:, :, -1] = v.view(rows, KV_HEADS, HEAD_DIM)
    packed = q.view(rows, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM)
    y = F.scaled_dot_product_attention(packed, keys, values)
    x = x + linear(y.reshape(rows, HEADS * HEAD_DIM), w["o"])
    a = F.rms_norm(x, (D,), w["norm2"], 1e-5)
    gate, up = linear(a, w["gate_up"]).chunk(2, -1)
    return x + linear(F.silu(gate) * up, w["down"])


class Model:
    def __init__(self, form):
        norm = lambda: torch.ones(D, dtype=torch.bfloat16, device="cuda")
        self.layers = [{"norm1": norm(), "norm2": norm(), "qkv": matrix((HEADS + 2 * KV_HEADS) * HEAD_DIM, D, form),
                        "o": matrix(D, HEADS * HEAD_DIM, form), "gate_up": matrix(2 * FFN, D, form),
                        "down": matrix(D, FFN, form)} for _ in range(LAYERS)]
        self.embed, self.head, self.norm = matrix(VOCAB, D, "bf16")[0], matrix(VOCAB, D, "bf16"), norm()
        angle = torch.full((HEAD_DIM // 2,), CONTEXT - 1.0) * 500000 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        self.cos, self.sin = (torch.cat((f(angle),) * 2).to("cuda", torch.bfloat16) for f in (torch.cos, torch.sin))

    def step(self, tokens, kv, one_layer):
        x = F.embedding(tokens, self.embed)
        for w, (k, v) in zip(self.layers, kv):
            x = one_layer(x, w, k, v, self.cos, self.sin)
        tokens.copy_(linear(F.rms_norm(x, (D,), self.norm, 1e-5), self.head).argmax(-1))


def measure(model, batch, one_layer):
    """Milliseconds of a step, as a graph."""
    shape = (batch, KV_HEADS, CONTEXT, HEAD_DIM)
    kv = [[torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2)] for _ in range(LAYERS)]
    tokens = torch.zeros(batch, dtype=torch.long, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model.step(tokens, kv, one_layer)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model.step(tokens, kv, one_layer)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for timed in (5, 40):
        begin.record()
        for _ in range(timed):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
    return begin.elapsed_time(end) / timed


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--out")
    args.add_argument("--limit", type=float, default=120)
    a = args.parse_args()
    if not torch.cuda.is_available():
        print("torch: PyTorch sees no GPU")
        return 77
    end = time.monotonic() + a.limit
    rows = []

    def row(*values):
        rows.append(dict(zip(COLUMNS, values)))
        print(" ".join(f"{str(v):10}" for v in values), flush=True)
        if a.out:
            with open(os.path.join(a.out, "torch.csv"), "w", newline="") as f:
                out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
                out.writeheader()
                out.writerows(rows)

    version = f"torch {torch.__version__}"
    print(version, *COLUMNS)
    torch.set_grad_enabled(False)
    for form in ("bf16", "fp8"):
        model = None
        for batch in BATCHES:
            for variant in ("compiled+graph", "eager+graph"):
                if time.monotonic() > end:
                    row(form, batch, CONTEXT, variant, "", "", "skipped: its time limit")
                    continue
                try:
                    model = model or Model(form)
                    one = torch.compile(layer, fullgraph=True, dynamic=False) if variant[0] == "c" else layer
                    ms = measure(model, batch, one)
                    row(form, batch, CONTEXT, variant, f"{ms:.3f}", f"{batch / ms * 1e3:.0f}", version)
                except Exception as error:  # a compiler that is not there, an op that this version lacks, memory
                    row(form, batch, CONTEXT, variant, "", "", "skipped: " + str(error).strip().split("\n")[0][:100].replace(",", ";"))
                torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A large Llama checkpoint for the benches, made on the spot."""
import json
import random
import shutil
import struct


def write_checkpoint(dir, layers, d=576, kv=192, ffn=1536, vocab=49152):
    """Random F32 weights; the same 4 MiB over and over, each time from another place."""
    rng = random.Random(1)
    noise = struct.pack(f"<{1 << 20}f", *(rng.uniform(-0.035, 0.035) for _ in range(1 << 20)))
    ones = struct.pack("<f", 1.0)
    shapes = {"model.embed_tokens.weight": [vocab, d], "model.norm.weight": [d]}
    for i in range(layers):
        for name, shape in (("input_layernorm", [d]), ("post_attention_layernorm", [d]), ("self_attn.q_proj", [d, d]),
                            ("self_attn.k_proj", [kv, d]), ("self_attn.v_proj", [kv, d]), ("self_attn.o_proj", [d, d]),
                            ("mlp.gate_proj", [ffn, d]), ("mlp.up_proj", [ffn, d]), ("mlp.down_proj", [d, ffn])):
            shapes[f"model.layers.{i}.{name}.weight"] = shape
    at, header = 0, {}
    for name, shape in shapes.items():
        n = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    with open(f"{dir}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            n = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
            if len(shape) == 1:
                f.write(ones * (n // 4))
                continue
            start = 4 * rng.randrange(1 << 18)
            while n > 0:
                part = noise[start:start + n]
                f.write(part)
                n -= len(part)
                start = 0
    with open(f"{dir}/config.json", "w") as f:
        json.dump({"model_type": "llama", "vocab_size": vocab, "hidden_size": d, "intermediate_size": ffn,
                   "num_hidden_layers": layers, "num_attention_heads": 9, "num_key_value_heads": 3,
                   "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
                   "tie_word_embeddings": True}, f)
    shutil.copy("peer/demo/model/tokenizer.json", dir)
    return at

#!/usr/bin/env python3
"""llama.cpp (ggml) doing a plain forward pass in float32, one order at a time.

    ggml_baseline.py [--quick] [--threads N] [--unified] [--no-flash] [--ubatch N] < orders

Needs llama-cpp-python built for this machine, and gguf, both from PyPI:
    CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON" build/venv/bin/pip install llama-cpp-python gguf
or a libllama built by hand: LLAMA_CPP_LIB_PATH=its folder, PYTHONPATH=the sdist and gguf.

Orders "what EXAMPLESxTOKENS", answered with seconds:
    plain   wall time of llama_decode of the batch with the logits of every token: what a loss over all of them
            needs, less the cross-entropy, which is left out here
    cpu     the same, CPU seconds of the process: what a busy machine's neighbours do not lengthen
    last    plain, but the logits of each example's last token alone
The shapes and the scale of the random weights are bench_forward's; weights, keys and values are float32.
"""
import os
import resource
import sys
import tempfile
import time

try:
    import gguf
    import llama_cpp as ll
    import numpy as np
except ImportError as e:
    sys.exit(f"ggml_baseline: {e}")

QUICK = "--quick" in sys.argv
D, KV, FFN, VOCAB, LAYERS, HEADS, KV_HEADS = \
    (192, 64, 512, 8192, 6, 3, 1) if QUICK else (576, 192, 1536, 49152, 30, 9, 3)


def option(name, default):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


def write_model(path):
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "llama")
    w.add_vocab_size(VOCAB)
    w.add_context_length(2048)
    w.add_embedding_length(D)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(D // HEADS)
    w.add_rope_freq_base(10000.0)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_tokenizer_model("none")

    def matrix(name, rows, cols):
        w.add_tensor(name, rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(0.02))

    matrix("token_embd.weight", VOCAB, D)  # no output.weight: the embedding is tied
    w.add_tensor("output_norm.weight", np.ones(D, np.float32))
    for i in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{i}.{name}.weight", np.ones(D, np.float32))
        for name, rows, cols in (("attn_q", D, D), ("attn_k", KV, D), ("attn_v", KV, D), ("attn_output", D, D),
                                 ("ffn_gate", FFN, D), ("ffn_up", FFN, D), ("ffn_down", D, FFN)):
            matrix(f"blk.{i}.{name}.weight", rows, cols)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def load():
    quiet = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(quiet, None)
    ll.llama_backend_init()
    with tempfile.TemporaryDirectory(prefix="onebyte-bench-") as dir:
        write_model(f"{dir}/model.gguf")
        p = ll.llama_model_default_params()
        p.use_mmap = False  # weights in memory of its own, as the engine's
        model = ll.llama_model_load_from_file(f"{dir}/model.gguf".encode(), p)
    if not model:
        sys.exit("ggml_baseline: llama.cpp does not load the model")
    return model, quiet


def make_context(model, n, t):
    """One ubatch, a stream per example, flash attention, unless told otherwise; other settings were not compared."""
    p = ll.llama_context_default_params()
    p.n_ctx = p.n_batch = n * t
    p.n_ubatch = option("--ubatch", n * t)
    p.n_seq_max = n
    p.n_outputs_max = n * t
    p.n_threads = p.n_threads_batch = option("--threads", 2)
    p.type_k = p.type_v = ll.GGML_TYPE_F32
    p.flash_attn_type = 0 if "--no-flash" in sys.argv else 1
    p.kv_unified = "--unified" in sys.argv
    p.no_perf = True
    c = ll.llama_init_from_model(model, p)
    if not c:
        sys.exit("ggml_baseline: llama.cpp makes no context")
    return c


def make_batch(n, t, every):
    b = ll.llama_batch_init(n * t, 0, 1)
    b.n_tokens = n * t
    for i in range(n):
        for j in range(t):
            k = i * t + j
            b.token[k] = (i * 7919 + j * 104729) % VOCAB
            b.pos[k] = j
            b.n_seq_id[k] = 1
            b.seq_id[k][0] = i
            b.logits[k] = every or j == t - 1
    return b


def cpu_seconds():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def main():
    model, quiet = load()
    contexts, batches = {}, {}
    print(f'{{"bench": "ggml", "system": "{ll.llama_print_system_info().decode().strip()}", '
          f'"parameters": {ll.llama_model_n_params(model)}}}', flush=True)
    for line in sys.stdin:
        what, shape = line.split()
        n, t = map(int, shape.split("x"))
        if shape not in contexts:
            contexts[shape] = make_context(model, n, t)
        if (what == "last", shape) not in batches:
            batches[what == "last", shape] = make_batch(n, t, what != "last")
        c, b = contexts[shape], batches[what == "last", shape]
        ll.llama_memory_clear(ll.llama_get_memory(c), False)
        clock = cpu_seconds if what == "cpu" else time.perf_counter
        start = clock()
        failed = ll.llama_decode(c, b)
        ll.llama_synchronize(c)
        took = clock() - start
        last = ll.llama_get_logits_ith(c, n * t - 1)
        if failed or not np.isfinite(last[0]) or last[0] == last[1]:
            sys.exit("ggml_baseline: llama_decode failed")
        print(f"{took:.6f}", flush=True)
    os._exit(0)  # threads of ggml's own end with the process


main()

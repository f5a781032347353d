#!/usr/bin/env python3
"""Makes tiny random checkpoints of every supported family and what Hugging Face transformers computes on them.

Usage: make_family_fixtures.py OUTPUT_FOLDER      (needs torch, CPU is enough, and transformers >= 5)

Writes OUTPUT_FOLDER/<case>/{config.json, generation_config.json, model*.safetensors*, reference.json}. The reference is
computed in float64 on the weights as stored; per position it holds the largest logits with their ids and the logsumexp.
The folders are kept in tests/data/families, so that the tests need neither torch nor transformers.
"""

import json
import math
import pathlib
import sys

import torch
import transformers

VOCAB = 61  # no multiple of any vector width
POSITIONS = 40
TOP = 8
MAX_POSITIONS = 128

COMMON = dict(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=MAX_POSITIONS, bos_token_id=1, eos_token_id=2,
              pad_token_id=None)
SMALL = dict(hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=16)
ODD = dict(hidden_size=24, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# The original context is so short that 40 positions meet kept, blended and stretched frequencies.
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}

# name: (config class, sizes and flags, rope, dtype, sharded, style of config.json)
CASES = {
    "llama-tied": ("LlamaConfig", dict(SMALL, tie_word_embeddings=True), DEFAULT_ROPE, "bfloat16", False, "new"),
    "llama-3": ("LlamaConfig", dict(SMALL, tie_word_embeddings=False), LLAMA3_ROPE, "float16", False, "old"),
    "llama-3-new": ("LlamaConfig", dict(ODD, tie_word_embeddings=True), LLAMA3_ROPE, "bfloat16", True, "new"),
    "llama-biases": ("LlamaConfig", dict(ODD, tie_word_embeddings=False, attention_bias=True, mlp_bias=True), LINEAR_ROPE,
                     "float32", False, "old"),
    "mistral": ("MistralConfig", dict(SMALL, tie_word_embeddings=False, sliding_window=None), DEFAULT_ROPE, "bfloat16", True,
                "old"),
    "qwen2": ("Qwen2Config", dict(SMALL, tie_word_embeddings=True), DEFAULT_ROPE, "bfloat16", False, "old"),
    "qwen2-untied": ("Qwen2Config", dict(SMALL, tie_word_embeddings=False, use_sliding_window=False, sliding_window=16),
                     DEFAULT_ROPE, "float16", True, "new"),
    "qwen3": ("Qwen3Config", dict(ODD, tie_word_embeddings=True), DEFAULT_ROPE, "bfloat16", False, "new"),
    "qwen3-untied": ("Qwen3Config", dict(ODD, tie_word_embeddings=False, attention_bias=True), DEFAULT_ROPE, "bfloat16",
                     False, "old"),
}


def randomise(model, dtype):
    """Weights large enough that every part of the model shows in the logits, rounded to the type they are stored in.

    Only parameters are rounded: buffers, the rotary frequencies, stay float32 as when a checkpoint is loaded.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if name.endswith("norm.weight"):
            values = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            values = 0.5 * noise
        elif "embed_tokens" in name:
            values = noise
        else:
            values = 1.5 * noise / math.sqrt(parameter.shape[-1])
        parameter.data = values.to(dtype)


def rewrite_config(path, style):
    """Says rope and dtype as transformers 4 ("old") or 5 ("new") did."""
    config = json.loads(path.read_text())
    rope = dict(config.pop("rope_parameters"))
    dtype = config.pop("dtype", None) or config.pop("torch_dtype")
    config.pop("torch_dtype", None)
    if style == "new":
        config.update(rope_parameters=rope, dtype=dtype)
    else:
        config.update(rope_theta=rope.pop("rope_theta"), torch_dtype=dtype)
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    path.write_text(json.dumps(config, indent=2) + "\n")


def reference(model, ids):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    top = logits.topk(TOP, dim=-1)
    return {
        "ids": ids,
        "top_ids": top.indices.tolist(),
        "top_logits": [[round(value, 6) for value in row] for row in top.values.tolist()],
        "logsumexp": [round(value, 6) for value in logits.logsumexp(-1).tolist()],
    }


def make_case(folder, seed, config_class, flags, rope, dtype_name, sharded, style):
    torch.manual_seed(seed)
    config = getattr(transformers, config_class)(**COMMON, **flags, rope_parameters=dict(rope))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.eval()
    randomise(model, getattr(torch, dtype_name))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size="12KB" if sharded else "1GB")
    rewrite_config(folder / "config.json", style)
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    ids = torch.randint(0, VOCAB, (POSITIONS,)).tolist()
    (folder / "reference.json").write_text(json.dumps(reference(model, ids), separators=(",", ":")) + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    output = pathlib.Path(sys.argv[1])
    for seed, (name, case) in enumerate(CASES.items()):
        make_case(output / name, seed, *case)
    total = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{len(CASES)} checkpoints, {total / 1024:.0f} KiB, transformers {transformers.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()

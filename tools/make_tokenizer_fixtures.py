#!/usr/bin/env python3
"""Writes the tokenizer fixtures of tests/unit/data/tokenizers.

Each fixture is a small tokenizer.json in the style of a known model family, together with texts and what Hugging Face's
`tokenizers` makes of them:

    {"tokenizer": {...}, "cases": [{"text", "ids", "ids_special", "decoded", "decoded_skip_special"}],
     "decodes": [{"ids", "decoded", "decoded_skip_special"}]}

`ids` are without special tokens (their text counts as ordinary text), `ids_special` with them and with the template.
`decodes` holds id sequences that no text encodes to, such as stray byte tokens.

    pip install 'tokenizers<0.23'   # 0.23 decodes added tokens with "normalized" to their normalised text
    tools/make_tokenizer_fixtures.py [--out tests/unit/data/tokenizers]
"""

import argparse
import json
import pathlib
import random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

VOCAB_SIZE = 330
SEED = 20

CORPUS = [
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n\n",
    "The engine drafts a few tokens and the larger model checks them all in one pass. It's what we'd do, isn't it?",
    "They've said that you're right; I'm sure he'll come. WE'LL SEE, THEY'RE HERE.",
    "In 2024, 1234567 readers counted 3.14159 and 99 balloons.",
    "Größe, naïve café, Ελλάδα, привет мир, 漢字かな交じり文, 한국어, שלום, नमस्ते, 😀 👩‍👧 🇩🇪",
]

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
CASED_SPLIT = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def byte_level(add_prefix_space=False, use_regex=False):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def metaspace(scheme, split_words=True):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split_words}


def replace(old, new):
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def strip(start, stop):
    return {"type": "Strip", "content": " ", "start": start, "stop": stop}


def added(identifier, content, special=True, **flags):
    token = {"id": identifier, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": special}
    token.update(flags)
    return token


def template(prefix, suffix, ids):
    def special(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}

    single = [special(n) for n in prefix] + [{"Sequence": {"id": "A", "type_id": 0}}] + [special(n) for n in suffix]
    pair = single + [{"Sequence": {"id": "B", "type_id": 1}}]
    tokens = {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in prefix + suffix}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def train(pre_tokenizer=None, normalizer=None, first=(), alphabet=(), size=VOCAB_SIZE, **options):
    """A BPE model trained on CORPUS: (its JSON object, the trained vocabulary)."""
    shell = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
             "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "vocab": {}, "merges": []}}
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(first), initial_alphabet=list(alphabet),
                                  show_progress=False, **options)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())["model"]


def tokenizer_json(model, added_tokens, pre_tokenizer=None, normalizer=None, post_processor=None, decoder=None):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
            "decoder": decoder, "model": model}


BYTE_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def gpt2():
    words = byte_level(use_regex=True)
    model = train(words, first=["<|endoftext|>"], alphabet=BYTE_ALPHABET)
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    return tokenizer_json(model, [added(0, "<|endoftext|>")], words, None, byte_level(), byte_level())


def gpt2_prefix_space():
    words = byte_level(add_prefix_space=True, use_regex=True)
    model = train(words, alphabet=BYTE_ALPHABET)
    size = len(model["vocab"])
    tokens = [added(size, "<mask>", lstrip=True), added(size + 1, "<tag>", special=False, rstrip=True),
              added(size + 2, "word", special=False, single_word=True, normalized=True)]
    return tokenizer_json(model, tokens, words, None, None, byte_level())


def llama3():
    words = sequence("pretokenizers", split(LLAMA3_SPLIT), byte_level())
    model = train(words, alphabet=BYTE_ALPHABET)
    model["ignore_merges"] = True
    size = len(model["vocab"])
    model["vocab"]["Ġlarger"] = size  # reached by ignore_merges alone
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    ids = {name: size + 1 + i for i, name in enumerate(names)}
    post = sequence("processors", byte_level(), template(names[:1], [], ids))
    return tokenizer_json(model, [added(i, n) for n, i in ids.items()], words, None, post, byte_level())


def qwen2():
    nfc = {"type": "NFC"}
    words = sequence("pretokenizers", split(QWEN_SPLIT), byte_level())
    model = train(words, nfc, alphabet=BYTE_ALPHABET)
    model["continuing_subword_prefix"] = ""
    model["end_of_word_suffix"] = ""
    size = len(model["vocab"])
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [added(size + i, n) for i, n in enumerate(names)] + [added(size + 3, "<tool_call>", special=False)]
    return tokenizer_json(model, tokens, words, nfc, byte_level(), byte_level())


def cased_invert():
    words = sequence("pretokenizers", split(CASED_SPLIT, "Removed", invert=True), byte_level())
    model = train(words, alphabet=BYTE_ALPHABET)
    size = len(model["vocab"])
    ids = {"<s>": size, "</s>": size + 1}
    tokens = [added(i, n) for n, i in ids.items()]
    return tokenizer_json(model, tokens, words, None, template(["<s>"], ["</s>"], ids), byte_level())


def digits_punctuation():
    words = sequence("pretokenizers", {"type": "Digits", "individual_digits": True},
                     {"type": "Punctuation", "behavior": "Contiguous"}, split(r"[\r\n]", "MergedWithPrevious"),
                     split(r"\s?\p{L}+"), byte_level())
    model = train(words, alphabet=BYTE_ALPHABET)
    return tokenizer_json(model, [added(len(model["vocab"]), "<eos>")], words, None, None, byte_level())


def llama2(size=420):
    normalizer = sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁"))
    # Trained on words; used without a pre-tokenizer, as Llama 2 is.
    model = train(metaspace("always"), first=["<unk>", "<s>", "</s>"] + BYTE_TOKENS, size=size, limit_alphabet=70)
    model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    ids = {"<s>": 1}
    decoder = sequence("decoders", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, strip(1, 0))
    tokens = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    return tokenizer_json(model, tokens, None, normalizer, template(["<s>"], [], ids), decoder)


def mistral():
    value = llama2()
    value["normalizer"] = None
    value["pre_tokenizer"] = metaspace("first", split_words=False)
    value["added_tokens"].append(added(len(value["model"]["vocab"]), "[INST]"))
    return value


def metaspace_always():
    words = metaspace("always")
    model = train(words, first=["<unk>", "<s>"], size=160, limit_alphabet=60)
    model.update(unk_token="<unk>", fuse_unk=False)
    decoder = metaspace("always")
    return tokenizer_json(model, [added(0, "<unk>"), added(1, "<s>")], words, None, None, decoder)


def gemma():
    normalizer = replace(" ", "▁")
    model = train(metaspace("never"), first=["<pad>", "<eos>", "<bos>", "<unk>"] + BYTE_TOKENS, size=400,
                  limit_alphabet=70)
    model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    decoder = sequence("decoders", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"})
    tokens = [added(i, n) for i, n in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"])]
    # One added token that the model's vocabulary holds as well, one that it does not.
    tokens += [added(model["vocab"]["def"], "def", special=False, single_word=True),
               added(len(model["vocab"]), "<start_of_turn>")]
    words = {"type": "Split", "pattern": {"String": "▁"}, "behavior": "MergedWithPrevious", "invert": False}
    return tokenizer_json(model, tokens, words, normalizer, template(["<bos>"], [], {"<bos>": 2}), decoder)


def normalizers():
    normalizer = sequence("normalizers", {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
                          {"type": "Strip", "strip_left": True, "strip_right": True},
                          {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": " "})
    words = {"type": "Whitespace"}
    model = train(words, normalizer, first=["[UNK]"], size=150, end_of_word_suffix="</w>")
    model.update(unk_token="[UNK]", end_of_word_suffix="</w>")
    size = len(model["vocab"])
    tokens = [added(0, "[UNK]"), added(size, "ÜBER", special=False, normalized=True),
              added(size + 1, "Ｅｎｇｉｎｅ", special=False, normalized=True, single_word=True),
              added(size + 2, "[SEP]", lstrip=True, rstrip=True)]
    return tokenizer_json(model, tokens, words, normalizer, None, None)


STYLES = [gpt2, gpt2_prefix_space, llama3, qwen2, cased_invert, digits_punctuation, llama2, mistral, metaspace_always,
          gemma, normalizers]

TEXTS = [
    "", " ", "a", "Hello world", "  two leading spaces", "trailing spaces   ", "tabs\tand\r\nlines\n\n\n  mixed \n x",
    "def f(x):\n    return x ** 2  # square\n", "I'm sure they'RE here; it'S we'd isn't", "1234567 and 12 34.5 ٣٤٥ Ⅷ ½ ²",
    "the larger model", "café cafe\u0301 ÅÅÅ ﬁ Ⅳ 한 한", "漢字かな交じり文 한국어 привет", "😀👩‍👧🇩🇪 ok", "\u00a0nbsp\u3000wide\u2028line",
    "a\u200db \u180e \ufeff \u0000nul", "<|begin_of_text|>x<|eot_id|> y", "a <mask> b<tag>  c wordy word, sword word",
    "<|im_start|>user\nHi<|im_end|>\n<tool_call>{}", "<s>hello</s> world <s> again", "[INST] do it [/INST]<unk><bos>",
    "über ÜBER überall ENGINE engines [SEP] x", "x\n\ny\n\n\nz<start_of_turn>", "▁under▁score ▁ ▁▁", "<0x41><0xE2>",
    "a&b || c!=d -- e++ ... ?!", "CamelCaseHTMLParser's XMLHttpRequest", "𝔘𝟘 ẞ İI ſ ς Σ", "ĠĊ Ã©",
]


def cases(tokenizer, texts):
    for text in texts:
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(text, add_special_tokens=True).ids
        yield {"text": text, "ids": plain, "ids_special": special, **decoded(tokenizer, special)}


def decoded(tokenizer, ids):
    return {"decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True)}


def decodes(tokenizer, rng):
    """Random id sequences: stray bytes, halves of characters, special tokens anywhere."""
    ids = sorted(tokenizer.get_vocab().values())
    stray = sorted(i for t, i in tokenizer.get_vocab().items() if t.startswith("<0x") or len(t) == 1)
    for length in (1, 2, 3, 5, 8, 8, 12, 12):
        sequence_ids = [rng.choice(stray if rng.random() < 0.6 else ids) for _ in range(length)]
        yield {"ids": sequence_ids, **decoded(tokenizer, sequence_ids)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/unit/data/tokenizers")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        value = style()
        tokenizer = Tokenizer.from_str(json.dumps(value))
        rng = random.Random(SEED)
        fixture = {"tokenizer": value, "cases": list(cases(tokenizer, TEXTS)), "decodes": list(decodes(tokenizer, rng))}
        path = arguments.out / f"{style.__name__}.json"
        path.write_text(json.dumps(fixture, ensure_ascii=True, separators=(",", ":")) + "\n")
        print(f"{path}: {len(value['model']['vocab'])} tokens, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Tiny random models with the chat templates and special tokens of well-known families."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

TEXTS = ["the film was good and the cast was bad", "tell me what you think of it, please. Yes!"]
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# template, special tokens with the first as padding, end of a text, end of a turn, its beginning
FAMILIES = {
    "llama": (
        LLAMA,
        [
            *("<|pad|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
            *("<|start_header_id|>", "<|end_header_id|>"),
        ],
        *("<|end_of_text|>", "<|eot_id|>", "<|begin_of_text|>"),
    ),
    "gemma": (
        GEMMA,
        ["<pad>", "<bos>", "<eos>", "<end_of_turn>", "<start_of_turn>"],
        *("<eos>", "<end_of_turn>", "<bos>"),
    ),
    "qwen": (
        QWEN,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        *("<|im_end|>", "<|im_end|>", None),
    ),
    "mistral": (MISTRAL, ["<pad>", "<s>", "</s>"], "</s>", "</s>", "<s>"),
}


def byte_level(special: list[str], vocabulary: int) -> Tokenizer:
    """Byte pairs as GPT-2 has them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=alphabet,
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def sentencepiece_bpe(special: list[str]) -> Tokenizer:
    """Pairs of characters as SentencePiece has them: spaces are ▁, one comes first, bytes last."""
    merges = [*zip("▁▁▁gb", "tfwoa", strict=True), ("▁t", "h"), ("▁th", "e"), ("go", "o")]
    words = [*special, "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    words += [*sorted({*"".join(TEXTS), *"[INST]/▁"} - {" "}), *("".join(pair) for pair in merges)]
    found = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(found, merges, unk_token="<unk>", byte_fallback=True))
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([*special, "<unk>"])
    return tokenizer


def chat_tokenizer(family: str, vocabulary: int = 320) -> Any:
    """A byte-pair encoding, with the special tokens and the template of a family."""
    template, special, end, _, begin = FAMILIES[family]
    tokenizer = (
        sentencepiece_bpe(special) if family == "mistral" else byte_level(special, vocabulary)
    )
    if begin is not None:
        number = tokenizer.token_to_id(begin)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, number)]
        )
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=special[0], bos_token=begin
    )
    found.chat_template = template
    return found


def llama(kind: Any, tokenizer: Any, seed: int, **changes: Any) -> Any:
    """A tiny Llama of a kind, in float64, over a tokenizer's tokens."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 32,
            "max_position_embeddings": 256,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.5,
            **changes,
        }
    )
    model = kind(config).double().eval()
    torch.random.set_rng_state(before)
    return model


def chat_models(family: str, **changes: Any) -> tuple[Any, Any, Any]:
    """A base model that ends turns as its family does, a reward model, and their tokenizer."""
    tokenizer = chat_tokenizer(family)
    _, _, end, turn, _ = FAMILIES[family]
    base = llama(LlamaForCausalLM, tokenizer, 0, **changes)
    ids = tokenizer.convert_tokens_to_ids([end, turn])
    base.generation_config = GenerationConfig(eos_token_id=sorted(set(ids)))
    reward = llama(LlamaForSequenceClassification, tokenizer, 1, num_labels=1)
    return base, reward, tokenizer

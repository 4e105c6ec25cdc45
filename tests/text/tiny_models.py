"""Tiny random models, made here: GPT-NeoX over a vocabulary of words."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    PreTrainedTokenizerFast,
)

WORDS = ["<pad>", "<end>", "<unk>", *(f"w{i}" for i in range(47))]
PROMPTS = ["w1 w2", "w3", "w4 w5 w6 w7"]


def make_tokenizer(words: list[str] = WORDS, **special: str) -> Any:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    special = special or {"pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>", **special
    )


def make_config(**changes: Any) -> Any:
    return GPTNeoXConfig(
        **{
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 1,
            "initializer_range": 0.5,
            **changes,
        }
    )


def make_model(kind: Any, seed: int, dtype: Any = torch.float64, **changes: Any) -> Any:
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = kind(make_config(**changes)).to(dtype).eval()
    torch.random.set_rng_state(before)
    return model


def base_model(seed: int = 0, **changes: Any) -> Any:
    return make_model(GPTNeoXForCausalLM, seed, **changes)


def reward_model(seed: int = 1, **changes: Any) -> Any:
    return make_model(GPTNeoXForSequenceClassification, seed, **{"num_labels": 1, **changes})

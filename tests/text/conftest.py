"""Fixtures of tiny random models; the packages they need are imported when they are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vgf.text.settings import AlignSettings


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost these models more than they bring."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """A base model, a reward model with other weights, and their tokenizer, in float64."""
    from tiny_models import base_model, make_tokenizer, reward_model

    return SimpleNamespace(sft=base_model(), rm=reward_model(), tokenizer=make_tokenizer())


@pytest.fixture(scope="session")
def models(made: SimpleNamespace) -> Any:
    from vgf.text import pair

    return pair(made.sft, made.rm, made.tokenizer)


@pytest.fixture(scope="session")
def folders(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same models as folders."""
    root = tmp_path_factory.mktemp("models")
    for name in ("sft", "rm"):
        getattr(made, name).save_pretrained(root / name)
        made.tokenizer.save_pretrained(root / name)
    return SimpleNamespace(sft=root / "sft", rm=root / "rm", root=root)


@pytest.fixture
def settings() -> AlignSettings:
    return AlignSettings(
        particles=3,
        steps=(0, 1, 3),
        max_new_tokens=6,
        decoding_weight=0.05,
        step_size=0.5,
        decoding_top=10,
    )


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    from tiny_models import PROMPTS

    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "{prompt}"}}\n' for prompt in PROMPTS))
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test calibrates is not found by the next one."""
    monkeypatch.setenv("VGF_CACHE_DIR", str(tmp_path / "cache"))

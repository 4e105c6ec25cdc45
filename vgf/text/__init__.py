"""Language models: the same flow, on the token embeddings of responses, at test time.

N responses of a base model take L flow steps along the gradient of a reward model, are decoded to
tokens, and the best is kept; no model is trained. The equations are `vgf.spec.text`'s and the
flow's own, computed by the torch backend. Needs the extra: ``pip install 'vgf[text]'``.

    from vgf.text import AlignSettings, align, load_models

    settings = AlignSettings(particles=8, steps=(0, 1, 2, 5))
    models = load_models("path/to/sft", "path/to/rm", settings)  # or pair(sft, rm, tokenizer)
    records = align(models, ["The film was"], settings)
"""

import importlib
from typing import TYPE_CHECKING, Any

from ..support.extras import need

if TYPE_CHECKING:
    from .alignment import align
    from .calibration import calibrate
    from .judging import judge, load_judge
    from .models import Models, load_models, pair
    from .prompts import read_prompts
    from .settings import AlignSettings

_HOMES = {
    "AlignSettings": "settings",
    "align": "alignment",
    "read_prompts": "prompts",
    "calibrate": "calibration",
    "judge": "judging",
    "load_judge": "judging",
    "Models": "models",
    "load_models": "models",
    "pair": "models",
}
_WITHOUT_MODELS = ("settings", "judging", "prompts")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vgf.text' has no attribute {name!r}")
    if _HOMES[name] not in _WITHOUT_MODELS:
        for module in ("torch", "transformers"):
            need(module, "text")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

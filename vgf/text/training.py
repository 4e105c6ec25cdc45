"""Training on one's own data, by trl: supervised, Bradley-Terry rewards, DPO.

The loops, losses and schedules are trl's (``pip install 'vgf[recipes]'``).
"""

from __future__ import annotations

import tempfile
from typing import Any

from ..support.extras import need


def fit(
    kind: str,
    models: list[Any],
    rows: list[dict[str, Any]],
    tokenizer: Any,
    seed: int,
    **options: Any,
) -> Any:
    """The model after one of trl's trainings.

    Args:
        kind: of the trainer: "SFT", "Reward", "DPO" or "RLOO".
        models: what that trainer takes before its configuration.
        rows: of its data set.
        tokenizer: of the models.
        seed: it fixes the order of the rows.
        options: of its configuration, besides what all trainings share.
    """
    need("trl", "recipes")
    import datasets
    import torch
    import trl

    cpu = not torch.cuda.is_available()
    shared = {
        "seed": seed,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "use_cpu": cpu,
        "bf16": False,
        "dataloader_pin_memory": not cpu,
        "save_strategy": "no",
        "report_to": "none",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    with tempfile.TemporaryDirectory() as place:
        config = getattr(trl, f"{kind}Config")(output_dir=place, **{**shared, **options})
        trainer = getattr(trl, f"{kind}Trainer")(
            *models,
            config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    return trainer.model.eval()

"""`vgf backends`: what is installed."""

from __future__ import annotations

from . import COMMANDS

# What the extras other than the backends' install.
_EXTRAS = {
    "envs": ("gymnasium", "ogbench"),
    "run": ("safetensors", "tomli_w", "tqdm", "matplotlib"),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
}


def main(words: list[str]) -> int:
    from ..backends import BACKENDS, BackendError, default_backend, get_backend, missing_packages
    from ..support.extras import installed_version, is_installed
    from ..support.parser import Parser
    from ..support.tables import format_table

    Parser(prog="vgf backends", description=COMMANDS["backends"]).parse_args(words)
    rows = []
    for name in BACKENDS:
        missing = missing_packages(name)
        row = {"backend": name, "version": "", "GPU": "", "x64": "", "bf16": "", "missing": ""}
        if missing:
            row["missing"] = f"pip install 'vgf[{name}]'"
        else:
            row["version"] = installed_version(name)
            row["x64"] = "yes"
            row["bf16"] = "no" if name == "numpy" else "yes"
            try:
                row["GPU"] = get_backend(name, device="gpu").device
            except BackendError:
                row["GPU"] = "none"
        rows.append(row)
    print(format_table(rows))
    absent = [extra for extra, modules in _EXTRAS.items() if not all(map(is_installed, modules))]
    print("\nsimulators, run folders and logs: " + ("" if absent else "all installed"), end="")
    print(", ".join(f"pip install 'vgf[{extra}]'" for extra in absent))
    try:
        print(f"default here: {get_backend().name} on {get_backend().device}")
    except BackendError:
        print(f"\ndefault here: {default_backend()}, which cannot be used")
        raise
    return 0

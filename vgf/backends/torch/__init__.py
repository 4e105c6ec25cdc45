"""The torch backend: eager by default, or compiled as a whole; on the CPU or a CUDA GPU.

Gradients come from torch.func, the optimiser from torch.optim. The traps that separate torch from
the specification are handled where they occur: the lower median (flow.py), LayerNorm's epsilon
(networks.py), TF32 (device.py).

    device.py       devices, arrays, the precision of matrix products
    flow.py         the kernel and the flow
    networks.py     networks
    losses.py       the reference, the critic, and what methods add
    selection.py    selection, the optimiser, decoding
    updates.py      updates and acting, and their random numbers
    programs.py     the whole update, compiled
"""

from __future__ import annotations

from .losses import TorchLosses
from .selection import TorchSelection
from .updates import TorchUpdates


class TorchBackend(TorchLosses, TorchSelection, TorchUpdates):
    """torch. With `compile=True` the whole update is one program.

    Compiled is fastest in long training; compiling takes half a minute for every new
    combination of settings and shapes and needs a C++ compiler, so eager is the default. On the
    CPU the programs are kept in :func:`vgf.support.files.programs_folder`.
    """

"""The flow on a language model's responses: particles that are sequences of token embeddings.

N responses of a base model to one prompt are N particles u_i. A response of T_i tokens is a row of
T_i vectors in R^d, the reward model's input embeddings; after its end comes padding, which is
zero, never moves and pulls nothing. The steps are those of `flow_step`, unprojected.
"""

from __future__ import annotations

import numpy as np

from .flow import phi
from .shapes import check_shapes
from .types import Array

SEQUENCE_KERNELS = ("sequence", "position")
# A direction shorter than this is not lengthened to full length
LENGTH_MIN = 1e-12


def within_lengths(lengths: tuple[int, ...], positions: int) -> Array:
    """Which positions of responses hold a token; the rest are padding.

    Shapes:
        lengths: N numbers T_i of tokens; positions: T. Returns booleans ``[N, T]``.

    Equation:
        m_it = [ t < T_i ],  t = 0 .. T - 1

    Raises:
        ValueError: a length below 0 or above T.

    Source:
        Our choice: responses are padded on the right.
    """
    if not all(0 <= length <= positions for length in lengths):
        raise ValueError(f"lengths are {lengths}; they must lie between 0 and {positions}")
    return np.arange(positions) < np.asarray(lengths)[:, None]


def sequence_phi(
    u: Array,
    g: Array,
    lengths: tuple[int, ...],
    kernel: str | None = "sequence",
    temperature: float | None = None,
    bandwidth: float | None = None,
) -> Array:
    """The direction of the flow for responses of different lengths.

    Shapes:
        u, g: embeddings of N responses and the reward's gradients, ``[N, T, d]``; lengths: N
        numbers of tokens; temperature, bandwidth: as in `phi`. Returns ``[N, T, d]``.

    Equation:
        None:      every response by itself: phi with N = 1, which is g_i (/ alpha)
        sequence:  phi of the N particles u_i in R^{T d}
        position:  at each t, phi of the particles u_it in R^d of the responses with T_i > t
        Padding counts as the zero vector in the arguments, and is zero in the result.

    Raises:
        ValueError: shapes that do not match, a length out of its range, or an unknown kernel.

    Source:
        Paper, its section on language models, which runs the flow on the input embeddings and
        leaves open what the kernel compares; the three kinds are ours.
    """
    size = check_shapes("sequence_phi", u=(u, "N T d"), g=(g, "N T d"))
    check_shapes("sequence_phi", lengths=(np.asarray(lengths), f"{size['N']}"))
    there = within_lengths(lengths, size["T"])
    u, g = u * there[:, :, None], g * there[:, :, None]
    flat = (size["N"], size["T"] * size["d"])
    if kernel is None:
        alone = (size["N"], 1, size["T"] * size["d"])
        moved = phi(u.reshape(alone), g.reshape(alone), temperature, bandwidth)
    elif kernel == "sequence":
        moved = phi(u.reshape(flat), g.reshape(flat), temperature, bandwidth)
    elif kernel == "position":
        moved = np.zeros_like(u)
        for t in range(max(lengths)):
            i = there[:, t]
            moved[i, t] = phi(u[i, t], g[i, t], temperature, bandwidth)
    else:
        raise ValueError(
            f"kernel is {kernel!r}; choose one of {', '.join(SEQUENCE_KERNELS)}, or None"
        )
    return moved.reshape(u.shape) * there[:, :, None]


def rescale_sequences(v: Array, lengths: tuple[int, ...], like: Array | None = None) -> Array:
    """Directions rescaled to a given length: the normalised step.

    Shapes:
        v, like: ``[N, T, d]``, zero at padding; lengths: N numbers of tokens. Returns
        ``[N, T, d]``.

    Equation:
        v_i <- v_i sqrt(T_i) / max(||v_i||, 1e-12): a root mean square of 1 over the tokens, or
        v_i <- v_i ||like_i|| / max(||v_i||, 1e-12), a direction as long as another one.
        The norms are over a whole response, so that its tokens keep their shares.

    Raises:
        ValueError: shapes that do not match.

    Source:
        Our choice: a reward's gradient varies by orders of magnitude between responses and along
        the way; L steps of length epsilon are a budget that does not.
    """
    n = check_shapes("rescale_sequences", v=(v, "N T d"))["N"]
    check_shapes("rescale_sequences", lengths=(np.asarray(lengths), f"{n}"))
    norm = np.sqrt(np.sum(v**2, axis=(1, 2)))
    if like is None:
        wanted = np.sqrt(np.asarray(lengths, v.dtype))
    else:
        check_shapes("rescale_sequences", v=(v, "N T d"), like=(like, "N T d"))
        wanted = np.sqrt(np.sum(like**2, axis=(1, 2)))
    return v * (wanted / np.maximum(norm, LENGTH_MIN))[:, None, None]


def decoding_scores(
    u: Array,
    log_p: Array,
    embeddings: Array,
    original: Array,
    allowed: Array,
    decoding_weight: float = 0.2,
    decoding_top: int | None = 50,
) -> Array:
    """What decoding maximises over the tokens at one position: y = argmax_c, the first of equals.

    Responses are decoded from left to right, so that log p_LM(c) is given what was decoded before.
    With weight 0 and no `decoding_top` it is the nearest token embedding.

    Shapes:
        u: moved embeddings ``[B, d]``; log_p: the base model's log-probabilities of the next token
        ``[B, V]``; embeddings: e_c ``[V, d]``; original: the tokens the particles started from
        ``[B]``; allowed: booleans ``[V]``, false for tokens not to be decoded to;
        decoding_weight: lambda. Returns ``[B, V]``.

    Equation:
        (u . e_c - ||e_c||^2 / 2) / mean_c ||e_c||^2 + lambda log p_LM(c)
        for c the original token, or allowed and among the `decoding_top` likeliest allowed tokens
        (ties included); -inf for all others. The first term is -||u - e_c||^2 / 2 in units of the
        mean squared norm, up to a constant.

    Raises:
        ValueError: shapes that do not match, or `decoding_top` below 1.

    Source:
        Paper: y = Dec(u), decoded at the end, the decoder left open. The rule is ours.
    """
    size = check_shapes(
        "decoding_scores",
        u=(u, "B d"),
        log_p=(log_p, "B V"),
        embeddings=(embeddings, "V d"),
        original=(original, "B"),
        allowed=(allowed, "V"),
    )
    if decoding_top is not None and decoding_top < 1:
        raise ValueError(f"decoding_top is {decoding_top}; it must be 1 or more, or None")
    norms = np.sum(embeddings**2, axis=-1)
    score = (u @ embeddings.T - norms / 2) / np.mean(norms) + decoding_weight * log_p
    likely = np.where(allowed, log_p, -np.inf)
    if decoding_top is not None and decoding_top < size["V"]:
        likely = np.where(
            likely >= np.sort(likely, axis=-1)[:, -decoding_top, None], likely, -np.inf
        )
    candidate = (likely > -np.inf) | (np.arange(size["V"]) == original[:, None])
    return np.where(candidate, score, -np.inf)

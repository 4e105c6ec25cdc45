"""vgf check: whether somebody's function computes an equation, and what it computes instead."""

"""The specification of Value Gradient Flow: every equation as a pure function on NumPy arrays.

Start at :func:`update`, one training update; README.md beside this file goes from each equation
to its function. NumPy and SciPy only, no automatic differentiation: each gradient is derived by
hand beside its formula. Written to be read; the backends are written to be fast, and equal it.
"""

# The version of the equations, not of the package; README.md says when it changes.
__version__ = "1.0"

import numpy as xp  # for your own parts, which have it on every backend

from .agent import (
    check_batch,
    check_gradients,
    check_network,
    fit_critic,
    fit_reference,
    optimise,
    sample_reference,
    transport_metrics,
)
from .critic import (
    action_gradient,
    aggregate,
    critic_gradient,
    critic_loss,
    critic_loss_derivative,
    critic_transport,
    critic_values,
    td_target,
)
from .flow import clip_velocity, flow_step, follow, phi, project, transport
from .kernel import (
    bandwidth_squared,
    rbf_kernel,
    repulsion,
    repulsion_through_bandwidth,
    squared_distances,
)
from .methods.avgf import (
    amortised_transport,
    gradient_field,
    gradient_field_gradient,
    gradient_field_loss,
    normalise_rows,
)
from .methods.base import Declaration, Draw, NetworkShape, Specification, normal, uniform
from .methods.fql import fit_policy, policy_actions, policy_gradient, policy_loss
from .methods.iql import state_values, value_gradient, value_loss
from .methods.weighted_bc import advantage_weights, weigh
from .networks import (
    activate,
    activate_derivative,
    ensemble,
    ensemble_size,
    ensemble_vjp,
    hidden_layers,
    init_ensemble,
    init_mlp,
    layer_norm,
    layer_norm_vjp,
    member,
    mlp,
    mlp_vjp,
)
from .operators.ascent import gradient_ascent, langevin
from .operators.base import Cost, Operator, operate, proposal_cost
from .operators.guidance import denoised_gradient, guided_sample, sampler_gradient, velocity_vjp
from .optimiser import adam_init, adam_step, clip_by_global_norm, global_norm, polyak, tree_map
from .reference import (
    flow_matching_gradient,
    flow_matching_loss,
    flow_sample,
    flow_velocity,
    gaussian_gradient,
    gaussian_loss,
    gaussian_sample,
    repeat_states,
    row_weights,
    time_features,
    time_frequencies,
)
from .selection import select, selection_probabilities
from .settings import Budget, Network, Settings, method_settings
from .shapes import check_shapes, check_states
from .text import decoding_scores, rescale_sequences, sequence_phi, within_lengths
from .theory import (
    adam_displacement_bound,
    adam_step_bound,
    boltzmann_log_density,
    displacement_bound,
    kernel_lipschitz,
    mmd_squared,
    mmd_squared_bound,
    mmd_squared_sharp_bound,
    speed_bound,
    stein_discrepancy_squared,
    wasserstein2,
)
from .types import Array, Params, VectorField
from .update import (
    act,
    draw_act_noise,
    draw_update_noise,
    init_state,
    move,
    propose,
    specification,
    update,
    update_draws,
)

__all__ = [name for name in dir() if not name.startswith("_")]

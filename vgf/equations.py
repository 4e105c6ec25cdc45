"""What an equation is: its name, arguments, defaults and text come from the specification.

:class:`Equations` lists them. A backend computes each on its own arrays, in a method of the same
name whose parameters have the same names; the defaults and the docstring are filled in from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Generic, ParamSpec

from . import spec

P = ParamSpec("P")

# What a compiled program takes as arrays; every other parameter is part of the program.
_ARRAYS = ("Array", "Params", "VectorField", "Any")


class Equation(Generic[P]):
    """A function of the specification, as a method that a backend must have.

    Args:
        function: of the specification.
    """

    def __init__(self, function: Callable[P, Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, backend: Any, owner: type) -> Callable[P, Any]:
        if backend is None:
            return self.function
        raise NotImplementedError(f"{owner.__name__} has no {self.name}")

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The parameters of the specification's function."""
        return list(inspect.signature(self.function).parameters.values())

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the parameters that are not arrays."""
        return tuple(
            p.name for p in self.parameters if str(p.annotation).partition(" ")[0] not in _ARRAYS
        )

    @property
    def takes_function(self) -> bool:
        """Whether a function of particles is among its arguments."""
        return any("VectorField" in str(p.annotation) for p in self.parameters)

    def adopt(self, owner: type, method: FunctionType) -> None:
        """Give a method of a backend the defaults and the text of this equation.

        Raises:
            TypeError: its parameters have other names, so that calls would be wrong.
        """
        first, *found = inspect.signature(method).parameters.values()
        method.__doc__ = method.__doc__ or self.__doc__
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in found):  # it takes anything
            method.__signature__ = inspect.Signature([first, *self.parameters])  # type: ignore[attr-defined]
            return
        wanted = [p.name for p in self.parameters]
        if [p.name for p in found] != wanted:
            raise TypeError(
                f"{owner.__name__}.{self.name} takes ({', '.join(p.name for p in found)}); it is "
                f"called with ({', '.join(wanted)})"
            )
        defaults = [p.default for p in self.parameters if p.default is not p.empty]
        method.__defaults__ = tuple(defaults)


class Equations:
    """Every equation, on one backend: what a method is given as `eq`.

    Shapes: B states, N particles, E critics, ``*`` any leading axes.
    """

    @property
    def xp(self) -> Any:
        """The functions of the array API standard for this backend's arrays (``eq.xp.exp``)."""
        raise NotImplementedError(f"{type(self).__name__} has no xp")

    def value_and_gradient(self, loss: Callable[[Any], Any], params: Any) -> tuple[Any, Any]:
        """A loss and its gradient, by automatic differentiation.

        Args:
            loss: a function from a tree of arrays to a scalar.
            params: where to take the gradient.

        Returns:
            The loss, and a tree like params.

        Raises:
            NotImplementedError: on NumPy, which runs hand-derived gradients.
        """
        raise NotImplementedError(f"{type(self).__name__} differentiates nothing automatically")

    # kernel and flow
    squared_distances = Equation(spec.squared_distances)
    bandwidth_squared = Equation(spec.bandwidth_squared)
    rbf_kernel = Equation(spec.rbf_kernel)
    repulsion = Equation(spec.repulsion)
    repulsion_through_bandwidth = Equation(spec.repulsion_through_bandwidth)
    phi = Equation(spec.phi)
    project = Equation(spec.project)
    clip_velocity = Equation(spec.clip_velocity)
    flow_step = Equation(spec.flow_step)
    follow = Equation(spec.follow)
    transport = Equation(spec.transport)

    # networks
    activate = Equation(spec.activate)
    layer_norm = Equation(spec.layer_norm)
    mlp = Equation(spec.mlp)
    mlp_vjp = Equation(spec.mlp_vjp)
    ensemble = Equation(spec.ensemble)
    ensemble_vjp = Equation(spec.ensemble_vjp)

    # the reference
    flow_velocity = Equation(spec.flow_velocity)
    flow_matching_loss = Equation(spec.flow_matching_loss)
    flow_matching_gradient = Equation(spec.flow_matching_gradient)
    flow_sample = Equation(spec.flow_sample)
    gaussian_loss = Equation(spec.gaussian_loss)
    gaussian_gradient = Equation(spec.gaussian_gradient)
    gaussian_sample = Equation(spec.gaussian_sample)
    sample_reference = Equation(spec.sample_reference)

    # the critic
    critic_values = Equation(spec.critic_values)
    aggregate = Equation(spec.aggregate)
    action_gradient = Equation(spec.action_gradient)
    critic_transport = Equation(spec.critic_transport)
    td_target = Equation(spec.td_target)
    critic_loss = Equation(spec.critic_loss)
    critic_gradient = Equation(spec.critic_gradient)

    # methods
    gradient_field = Equation(spec.gradient_field)
    gradient_field_loss = Equation(spec.gradient_field_loss)
    gradient_field_gradient = Equation(spec.gradient_field_gradient)
    amortised_transport = Equation(spec.amortised_transport)
    advantage_weights = Equation(spec.advantage_weights)
    policy_actions = Equation(spec.policy_actions)
    policy_loss = Equation(spec.policy_loss)
    policy_gradient = Equation(spec.policy_gradient)
    state_values = Equation(spec.state_values)
    value_loss = Equation(spec.value_loss)
    value_gradient = Equation(spec.value_gradient)

    # selection and optimiser
    select = Equation(spec.select)
    adam_init = Equation(spec.adam_init)
    adam_step = Equation(spec.adam_step)
    global_norm = Equation(spec.global_norm)
    clip_by_global_norm = Equation(spec.clip_by_global_norm)
    polyak = Equation(spec.polyak)

    # text
    sequence_phi = Equation(spec.sequence_phi)
    rescale_sequences = Equation(spec.rescale_sequences)
    decoding_scores = Equation(spec.decoding_scores)

    # operators
    denoised_gradient = Equation(spec.denoised_gradient)
    sampler_gradient = Equation(spec.sampler_gradient)
    guided_sample = Equation(spec.guided_sample)
    gradient_ascent = Equation(spec.gradient_ascent)
    langevin = Equation(spec.langevin)
    operate = Equation(spec.operate)

    # the agent
    init_state = Equation(spec.init_state)
    propose = Equation(spec.propose)
    move = Equation(spec.move)
    update = Equation(spec.update)
    act = Equation(spec.act)
    draw_update_noise = Equation(spec.draw_update_noise)
    draw_act_noise = Equation(spec.draw_act_noise)


EQUATIONS: dict[str, Equation[Any]] = {
    name: value for name, value in vars(Equations).items() if isinstance(value, Equation)
}

"""What the complementarity-free step does not cover: refused by name, whenever it is asked for.

Options can be set in MJCF, and on the model after `put_model`. So they are looked at where a model
is made, and again by everything that steps.
"""

import mujoco
import mujoco_warp
import warp as wp
from mujoco_warp import EnableBit, IntegratorType

from comfree_warp.types import Data, Model

_INTEGRATORS = (IntegratorType.EULER, IntegratorType.IMPLICIT, IntegratorType.IMPLICITFAST)


def check_options(opt: mujoco.MjOption | mujoco_warp.Option) -> None:
    """Refuse options that comfree does not honour.

    Raises:
      NotImplementedError: names the option and what to use instead.
    """
    if opt.integrator not in _INTEGRATORS:
        name = mujoco.mjtIntegrator(int(opt.integrator)).name.removeprefix("mjINT_")
        raise NotImplementedError(
            f"integrator {name} is not supported by comfree: "
            "set <option integrator> to Euler, implicitfast or implicit"
        )
    if opt.enableflags & EnableBit.SLEEP:
        raise NotImplementedError(
            "sleep is not supported by comfree: remove <flag sleep='enable'/> from <option>"
        )
    if opt.noslip_iterations > 0:
        raise NotImplementedError(
            f"noslip_iterations={opt.noslip_iterations} is not supported by comfree, which has "
            "no solver to post-process: set it to 0 in <option>"
        )


def check_flex(m: mujoco_warp.Model) -> None:
    """Refuse the flex models that MuJoCo Warp itself would refuse, but only inside its step.

    Raises:
      NotImplementedError: names what the model has, and what to use instead.
    """
    refused = {
        "stable Neo-Hookean flex elasticity": m.has_flex_snh,
        "passive flex contact": m.has_flex_passive,
        "flex elasticity under an implicit integrator": m.opt.integrator != IntegratorType.EULER
        and (m.nefmK > 0 or m.has_non_simple_flex),
    }
    for what, found in refused.items():
        if found:
            raise NotImplementedError(
                f"{what} needs MuJoCo's discrete integrator, which comfree does not support: "
                "use flex edge equalities, or elasticity with integrator='Euler'"
            )


def check_supported(m: Model, d: Data) -> None:
    """Refuse to step with options that were set since `put_model`, or with data made for others.

    Raises:
      NotImplementedError: an option is not supported.
      ValueError: the data does not go with the model.
    """
    check_options(m.opt)
    check_flex(m)
    if m.comfree_efc != d.comfree_efc:
        raise ValueError(
            f"the model has comfree_efc={m.comfree_efc!r} and the data {d.comfree_efc!r}: give "
            "put_model and put_data (or make_data) the same"
        )
    if m.comfree_law == "warm" and d.warm is None:
        raise ValueError(
            "the model has comfree_law='warm' and the data was made for 'paper': leave "
            "comfree_law out of put_data (or make_data), or give 'warm'"
        )
    _follow_arrays(m)


def _follow_arrays(m: Model) -> None:
    """Let a medium, adhesion or conveyors act that the model got after `put_model`.

    MuJoCo Warp decides in `put_model` whether it has them. On a GPU the host would have to wait for
    the arrays: there a model that gets them later has to be made with some from the start.
    """
    if not m.geom_adhesion.device.is_cpu:
        return
    if not m.has_fluid:
        medium = (m.opt.wind, m.opt.density, m.opt.viscosity)
        m.has_fluid = any(map(_any, medium))
    if not m.flg_adhesion:
        m.flg_adhesion = _any(m.geom_adhesion) or _any(m.pair_adhesion)
    if not m.flg_surfacevel:
        m.flg_surfacevel = _any(m.geom_surfacevel)


def _any(values: wp.array) -> bool:
    return bool(values.numpy().any())

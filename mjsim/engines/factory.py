"""Make a simulation from the names and numbers that a person gives."""

import mujoco
import numpy.typing as npt

from mjsim.choices import engine_name, refuse_unused, split_name
from mjsim.engines.noise import ControlNoise
from mjsim.engines.simulation import Progress, Report, Simulation, log_warning
from mjsim.errors import SettingError


def make_simulation(
    mjm: mujoco.MjModel,
    engine: str = "comfree",
    device: str = "cpu",
    nworld: int = 1,
    nconmax: int | None = None,
    njmax: int | None = None,
    nccdmax: int | None = None,
    stiffness: npt.ArrayLike | None = None,
    damping: npt.ArrayLike | None = None,
    law: str | None = None,
    passes: int | None = None,
    noise: ControlNoise | None = None,
    remember: float = 0.0,
    progress: Progress | None = None,
    fixed_buffers: bool = False,
    report: Report = log_warning,
) -> Simulation:
    """Build worlds of a model on an engine and a device, compiled and ready to step.

    Args:
      mjm: the model.
      engine: one of `ENGINES`, or comfree with its law, such as "comfree:warm".
      device: Warp's name of a device; mjc runs on the CPU only.
      nworld: number of worlds, all starting from `initial_data`.
      nconmax: contacts per world to begin with; from the model when None. Not for mjc.
      njmax: constraint rows per world to begin with, likewise.
      nccdmax: convex collisions per world to begin with, up to nconmax; from the model when both
        are None, else nconmax when None. A few worlds get as many as one of nconmax has.
      stiffness: k of the law paper, a scalar or one per world (mod len); comfree only.
      damping: d of the law paper, likewise.
      law: one of `LAWS`, paper when None; comfree only.
      passes: of the law warm, one of `PASSES`, 1 when None; comfree only.
      noise: what to add to the controls; nothing when None.
      remember: simulated time of which states are kept for `recall`, s; 0: none.
      progress: told what is being compiled, where something is.
      fixed_buffers: keep these sizes, and MuJoCo's arena, whatever does not fit being lost and
        told by `Simulation.health`; else they grow as a step needs more, and nothing is lost.
      report: told a line each time that they grow; by default a warning of the log.

    Raises:
      SettingError: the engine, the device, a size, a parameter or the model cannot be used, or the
        engine makes no use of a setting that is given.
    """
    engine, law = split_name(engine, law)
    for setting, size, least in (
        ("nworld", nworld, 1),
        ("nconmax", nconmax, 0),
        ("njmax", njmax, 0),
        ("nccdmax", nccdmax, 0),
    ):
        if size is not None and size < least:
            raise SettingError(setting, f"{size} is too small: at least {least}")
    sizes = {"nconmax": nconmax, "njmax": njmax, "nccdmax": nccdmax}
    law_settings = {"stiffness": stiffness, "damping": damping, "passes": passes, "law": law}
    given = {name: value for name, value in law_settings.items() if value is not None}
    given_sizes = {name: size for name, size in sizes.items() if size is not None}
    refuse_unused({**given, **given_sizes}, [engine_name(engine, law)])
    noise = noise or ControlNoise()
    if engine == "mjc":
        if device != "cpu":
            raise SettingError("device", f"{device!r} cannot run mjc, which is CPU only; use cpu")
        from mjsim.engines.mjc import MjcSimulation

        return MjcSimulation(mjm, nworld, noise, remember, fixed_buffers, report)

    # Only here: importing Warp and compiling its kernels' sources takes seconds.
    from mjsim.engines.on_warp import make_on_warp

    return make_on_warp(
        *(mjm, engine, device, nworld, sizes, given, noise, remember, progress),
        *(fixed_buffers, report),
    )

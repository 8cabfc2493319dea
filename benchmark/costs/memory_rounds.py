"""The warm law's memory against the whole step, in rounds that take turns."""

import mujoco
import warp as wp
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import comfree_warp as cfwarp
from benchmark.common.machine import cpu_name
from benchmark.common.measuring import interleaved_times, median_and_quartiles, round_ratios, spread
from benchmark.speed.scenes import BY_NAME
from comfree_warp.shared.threads import launch
from comfree_warp.types import vec6
from comfree_warp.warm import memory
from mjsim import engines
from mjsim.engines.buffers import size_buffers
from mjsim.engines.device import warp_device

GROUPS = (  # scene, number of worlds
    ("layer, 10,000 contacts", 1),
    ("wall, 3,000 contacts", 1),
    ("hand holding a cube", 8192),
)


@wp.kernel(enable_backward=False)
def _inherit_all(
    nacon_in: wp.array[int],
    contact_frame_in: wp.array[wp.mat33],
    sign_in: wp.array[float],
    inherited_in: wp.array[int],
    mem_normal: wp.array[wp.vec2],
    mem_friction: wp.array[wp.vec3],
    mem_torque: wp.array[wp.vec3],
    mem_next: wp.array[int],
    out: wp.array[vec6],
):
    """What the kernel that prepares a contact does with the memory, alone."""
    conid = wp.tid()
    if conid >= nacon_in[0]:
        return
    force, _ = memory.inherit(
        inherited_in[conid],
        contact_frame_in[conid],
        6,
        1.0,
        sign_in[conid],
        False,
        mem_normal,
        mem_friction,
        mem_torque,
        mem_next,
    )
    out[conid] = force


def remember_only(m: cfwarp.Model, d: cfwarp.Data, out: wp.array) -> None:
    """All that a step does for its memory, and nothing else."""
    warm = d.warm
    memory.index_contacts(m, d)
    launch(
        _inherit_all,
        dim=d.naconmax,
        inputs=[
            *(d.nacon, d.contact.frame, warm.sign, warm.inherited),
            *(warm.mem_normal, warm.mem_friction, warm.mem_torque, warm.mem_next),
        ],
        outputs=[out],
    )
    memory.remember(m, d)


def measure(scene_name: str, nworld: int, device: str, rounds: int) -> list[str]:
    """A row of the table: contacts, time of the memory, and its part of a step."""
    scene = BY_NAME[scene_name]
    mjm = scene.load()
    sizes = size_buffers(mjm, scene.probe)
    mjd = engines.initial_data(mjm)
    mujoco.mj_step(mjm, mjd, scene.probe)
    graphs: dict[str, cfwarp.Graph] = {}
    with wp.ScopedDevice(device):
        m = cfwarp.put_model(mjm, comfree_law="warm")
        d = cfwarp.put_data(mjm, mjd, nworld=nworld, **sizes)
        out = wp.zeros(d.naconmax, dtype=vec6)
        for _ in range(3):
            cfwarp.step(m, d)
            remember_only(m, d, out)
        graphs["step"] = cfwarp.capture(lambda: cfwarp.step(m, d))
        graphs["memory"] = cfwarp.capture(lambda: remember_only(m, d, out))
        nstep = max(1, 20 // nworld)

        def run(name: str) -> None:
            graphs[name].launch(nstep)
            wp.synchronize_device(device)

        times = interleaved_times({name: lambda name=name: run(name) for name in graphs}, rounds)
        ncon = int(d.nacon.numpy()[0])
    median = spread(times["memory"])["median"] / nstep
    return [
        f"{scene_name}, {nworld:,} world(s)",
        f"{ncon:,}",
        f"{1e6 * median:,.0f} us",
        median_and_quartiles([100 * it for it in round_ratios(times["memory"], times["step"])]),
    ]


def show(device: str, rounds: int) -> None:
    """Measure and print the table.

    Raises:
      SettingError: there is no such device.
    """
    device = warp_device(device).alias
    console = Console(width=140)  # Markdown tables do not wrap
    console.print(f"{rounds} interleaved rounds on {device}, {cpu_name()}: median (quartiles)")
    table = Table("scene", "contacts", "memory per step", "% of the step", box=MARKDOWN)
    for scene_name, nworld in GROUPS:
        table.add_row(*measure(scene_name, nworld, device, rounds))
    console.print(table)

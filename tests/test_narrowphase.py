"""MuJoCo Warp's narrow phase finds the same contacts with fewer threads and fewer modules."""

import mujoco
import mujoco_warp
import pytest
import warp as wp
from mujoco_warp._src import collision_convex
from programs import printed_lines

import engines
from comfree_warp import graph
from comfree_warp.narrowphase import narrow_phase_on_few_threads

pytestmark = pytest.mark.engine

BALLS = """
<mujoco><worldbody>
  <geom type="plane" size="1 1 1"/>
  <body pos="0 0 .1"><freejoint/><geom size=".1"/></body>
  <body pos=".3 0 .1"><freejoint/><geom size=".1"/></body>
  <body pos=".6 0 .1"><freejoint/><geom size=".1"/></body>
</worldbody></mujoco>
"""


def data() -> mujoco_warp.Data:
    return mujoco_warp.make_data(mujoco.MjModel.from_xml_string(BALLS))


def test_a_kernel_of_convex_collision_has_one_thread_on_the_cpu_within_the_context():
    cpu = wp.get_device("cpu")
    with narrow_phase_on_few_threads(data()):
        assert collision_convex._ccd_grid_size(None, 100, cpu) == 1
    assert collision_convex._ccd_grid_size(None, 100, cpu) == 100


@pytest.mark.cuda
@pytest.mark.skipif(not wp.is_cuda_available(), reason="no CUDA device on this machine")
def test_a_gpu_has_as_many_threads_as_mujoco_warp_chooses():
    @wp.kernel(module="unique")
    def nothing(values: wp.array[float]):
        values[0] = 0.0

    chosen = collision_convex._ccd_grid_size(nothing, 100, wp.get_device("cuda:0"))
    with narrow_phase_on_few_threads(data()):
        assert collision_convex._ccd_grid_size(nothing, 100, wp.get_device("cuda:0")) == chosen


@pytest.mark.parametrize(("engine", "trimmed"), [("comfree", 2), ("mjwarp", 1)])
def test_a_captured_step_launches_a_thread_for_each_candidate(engine, trimmed):
    mjm = mujoco.MjModel.from_xml_string(BALLS)
    simulation = engines.make_simulation(mjm, engine, nconmax=4, njmax=32)
    table = simulation._graph._command.fwd_args[0].numpy()
    # `primitive_narrowphase`, and in comfree the list of pairs that its broad phase found.
    assert (table[:, 0] == graph._TRIM).sum() == trimmed


# The programs have a process each, since MuJoCo Warp keeps the kernels that were made for a pair.
LAUNCHES = """
import sys
import engines, warp as wp
from comfree_warp import narrowphase

class Rehearsed(Exception):
    pass

def capture():
    raise Rehearsed

threads = []
grid_size = narrowphase._grid_size
narrowphase._grid_size = lambda *args: threads.append(grid_size(*args)) or threads[-1]
wp.force_load = lambda *args: None
wp.ScopedCapture = capture
mjm = engines.load_model("benchmark/test_data/hand/env_hand_cube.xml")
try:
    engines.make_simulation(mjm, sys.argv[1])
except Rehearsed:
    print(threads)
"""


@pytest.mark.parametrize("engine", ["comfree", "mjwarp"])
def test_a_simulation_on_the_cpu_launches_one_thread_per_pair_of_geom_types(engine):
    assert printed_lines(LAUNCHES, engine)[-1] == "[1, 1, 1]"


REHEARSALS = """
import sys
import mujoco, mujoco_warp, warp as wp
from comfree_warp.compilation import compile_kernels

loaded = []
wp.force_load = lambda device, modules, block_dim: loaded.extend(modules)
wp.is_cuda_available = lambda: sys.argv[1] == "with-gpu"

def rehearse(kinds, cores):
    bodies = "".join(
        f"<body><freejoint/><geom type='{kind}' size='.1 .1 .1'/></body>" for kind in kinds
    )
    mjm = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    m, d = mujoco_warp.put_model(mjm), mujoco_warp.make_data(mjm)
    device = wp.get_device("cpu")
    compile_kernels(lambda: mujoco_warp.collision(m, d), device, max_workers=cores)

def of_pairs():
    return [
        module
        for module in dict.fromkeys(loaded)
        if any(kernel.func.__name__ == "ccd_kernel" for kernel in module.kernels.values())
    ]
"""

MODULES = f"""{REHEARSALS}
rehearse(("ellipsoid", "cylinder", "box", "capsule", "sphere"), cores=int(sys.argv[2]))
print(len(of_pairs()))
"""


@pytest.mark.parametrize(
    ("machine", "cores", "modules"),
    [("no-gpu", 1, 1), ("no-gpu", 2, 1), ("no-gpu", 5, 2), ("no-gpu", 64, 6), ("with-gpu", 2, 6)],
)
def test_six_pairs_of_geom_types_share_a_module_for_every_two_cores(machine, cores, modules):
    assert printed_lines(MODULES, machine, str(cores))[-1] == str(modules)


TWO_MODELS = f"""{REHEARSALS}
rehearse(("ellipsoid", "ellipsoid"), cores=2)
rehearse(("ellipsoid", "ellipsoid", "box", "box"), cores=2)
print(len(of_pairs()), len({{module.name for module in of_pairs()}}))
"""


def test_modules_of_two_models_in_a_process_have_names_of_their_own():
    assert printed_lines(TWO_MODELS, "no-gpu")[-1] == "2 2"


ALIKE = """
import engines, mujoco, mujoco_warp, numpy as np, warp as wp

bodies = "".join(
    f"<body pos='{.15 * (i % 3)} {.15 * (i // 3)} {.2 + .01 * i}' euler='{20 * i} {50 * i} 0'>"
    f"<freejoint/><geom type='{('ellipsoid', 'cylinder')[i % 2]}' size='.1 .08 .06'/></body>"
    for i in range(9)
)
floor = "<geom type='plane' size='0 0 1'/>"
mjm = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{floor}{bodies}</worldbody></mujoco>")
states, between_bodies = [], 0
for own_modules in (True, False):
    wp.is_cuda_available = lambda: own_modules
    mujoco_warp._src.warp_util._KERNEL_CACHE.clear()
    simulation = engines.make_simulation(mjm, "comfree")
    for _ in range(100):
        simulation.step(1)
        contact, count = simulation._d.contact, simulation._d.nacon.numpy()[0]
        between_bodies += np.sum(contact.geom.numpy()[:count].min(axis=1) > 0)
    states.append(simulation.read("qpos"))
np.testing.assert_array_equal(*states)
print(between_bodies > 500)
"""


def test_a_simulation_does_not_depend_on_the_pairs_that_share_a_module():
    assert printed_lines(ALIKE)[-1] == "True"

"""MuJoCo Warp's narrow phase finds the same contacts with fewer threads and fewer kernels."""

import contextlib
import dataclasses

import mujoco
import mujoco_warp
import numpy as np
import pytest
import warp as wp

from comfree_warp.collision.narrowphase import checked_narrow_phase
from comfree_warp.runtime import graph
from mjsim import engines

pytestmark = pytest.mark.engine


def put(bodies: str) -> tuple[mujoco_warp.Model, mujoco_warp.Data]:
    mjm = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    return mujoco_warp.put_model(mjm), mujoco_warp.put_data(mjm, mujoco.MjData(mjm), nconmax=99)


def one_of_each(*kinds: str) -> str:
    return "".join(
        f"<body><freejoint/><geom type='{kind}' size='.1 .1 .1'/></body>" for kind in kinds
    )


def launched(monkeypatch, m: mujoco_warp.Model, d: mujoco_warp.Data) -> list[tuple[wp.Kernel, int]]:
    """The kernels of convex pairs that a collision launches, and their threads."""
    launches = []
    with monkeypatch.context() as patch, wp.ScopedDevice(d.qpos.device):
        patch.setattr(wp, "launch", lambda kernel, dim, **_: launches.append((kernel, dim)))
        with checked_narrow_phase(d, wp.zeros(d.nworld, dtype=int)):
            mujoco_warp.collision(m, d)
    return [
        (kernel, dim) for kernel, dim in launches if "convex" in kernel.key or "ccd" in kernel.key
    ]


def test_one_thread_of_one_kernel_takes_all_convex_pairs_on_the_cpu(monkeypatch):
    m, d = put(one_of_each("ellipsoid", "cylinder", "box"))
    launches = launched(monkeypatch, m, d)
    assert len({kernel for kernel, _ in launches}) == 1
    assert [dim for _, dim in launches] == [1, 0, 0]


def test_models_with_other_pairs_share_that_kernel(monkeypatch):
    first = launched(monkeypatch, *put(one_of_each("ellipsoid", "cylinder")))
    second = launched(monkeypatch, *put(one_of_each("box", "capsule", "ellipsoid")))
    assert first[0][0] is second[0][0]


@pytest.mark.cuda
@pytest.mark.skipif(not wp.is_cuda_available(), reason="no CUDA device on this machine")
def test_a_gpu_has_a_kernel_for_each_pair_as_mujoco_warp_makes_them(monkeypatch):
    with wp.ScopedDevice("cuda:0"):
        m, d = put(one_of_each("ellipsoid", "cylinder"))
    launches = launched(monkeypatch, m, d)
    assert len({kernel for kernel, _ in launches}) == 3
    assert all(dim > 0 for _, dim in launches)


HEAP = "".join(
    f"<body pos='{0.15 * (i % 4)} {0.15 * (i // 4)} {0.1 + 0.004 * i}' "
    f"euler='{i % 2 * 20 * i} 0 0'><freejoint/>"
    f"<geom type='{('ellipsoid', 'cylinder', 'box')[i % 3]}' size='.1 .08 .06'/></body>"
    for i in range(12)
)
SETTINGS = {
    "as they come": {},
    "one contact for a pair": {"disableflags": int(mujoco.mjtDisableBit.mjDSBL_MULTICCD)},
    "boxes not convex": {"disableflags": int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)},
    "too little room": {"naccdmax": 2},
    "a gap around them": {"gap": 0.05},
    "a margin around them": {"margin": 0.03},
}
CONTACTS = [field.name for field in dataclasses.fields(mujoco_warp.Contact)]


def assert_same_contacts(m: mujoco_warp.Model, d: mujoco_warp.Data) -> dict[str, np.ndarray]:
    """The contacts, which are the same with a kernel for each pair and with one for all."""
    mujoco_warp.kinematics(m, d)
    found = []
    for context in (
        contextlib.nullcontext(),
        checked_narrow_phase(d, wp.zeros(d.nworld, dtype=int)),
    ):
        d.overflow.zero_()
        for name in CONTACTS:
            getattr(d.contact, name).fill_(7)
        with context:
            mujoco_warp.collision(m, d)
        count = d.nacon.numpy()[0]
        found.append({name: getattr(d.contact, name).numpy()[:count].copy() for name in CONTACTS})
        found[-1]["overflow"] = d.overflow.numpy().copy()
    theirs, ours = found
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, name)
    return ours


@pytest.mark.parametrize("setting", SETTINGS)
def test_contacts_and_their_order_are_those_of_a_kernel_for_each_pair(setting):
    m, d = put(HEAP)
    changes = SETTINGS[setting]
    m.opt.disableflags |= changes.get("disableflags", 0)
    m.opt.warn_overflow = 0
    d.naccdmax = changes.get("naccdmax", d.naccdmax)
    m.geom_margin.fill_(changes.get("margin", 0.0))
    m.geom_gap.fill_(changes.get("gap", 0.0))
    contacts = assert_same_contacts(m, d)
    assert len(contacts["dist"]) > 5
    assert (setting == "too little room") == contacts["overflow"].any()


NAMES = {
    int(mujoco.mjtGeom.mjGEOM_HFIELD): "hfield",
    int(mujoco.mjtGeom.mjGEOM_MESH): "mesh",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
}
# The terrain is low in its middle, where it would be if it were a point.
TERRAIN = """
<mujoco>
  <asset>
    <hfield name="valley" nrow="3" ncol="3" size="1 1 .2 .1" elevation="1 1 1 1 0 1 1 1 1"/>
    <mesh name="rock" vertex="0 0 0 .3 0 0 0 .3 0 0 0 .3"/>
  </asset>
  <worldbody>
    <geom type="hfield" hfield="valley"/>
    <body pos="-.1 -.1 -.05"><freejoint/><geom name="rock" type="mesh" mesh="rock"/></body>
    <body pos="-.05 -.1 .05"><freejoint/><geom type="mesh" mesh="rock"/></body>
    <body pos=".3 0 .05"><freejoint/><geom name="ball" size=".1"/></body>
    <body pos="0 0 2"><freejoint/><geom name="far" size=".1"/></body>
  </worldbody>
  <contact><pair geom1="rock" geom2="ball" condim="6" margin=".2"/></contact>
  <sensor><distance geom1="rock" geom2="far" cutoff="9"/></sensor>
</mujoco>
"""


def test_so_are_those_with_terrain_meshes_explicit_pairs_and_sensors_in_two_worlds():
    mjm = mujoco.MjModel.from_xml_string(TERRAIN)
    m = mujoco_warp.put_model(mjm)
    d = mujoco_warp.put_data(mjm, mujoco.MjData(mjm), nworld=2, nconmax=99)
    d.qpos.assign(np.add(d.qpos.numpy(), [[0.0], [0.01]]))
    contacts = assert_same_contacts(m, d)
    for worldid in range(2):
        in_world = contacts["worldid"] == worldid
        pairs = mjm.geom_type[contacts["geom"][in_world]]
        kinds = {"-".join(sorted(NAMES[kind] for kind in pair)) for pair in pairs}
        assert kinds == {"hfield-sphere", "hfield-mesh", "mesh-sphere", "mesh-mesh"}
        assert contacts["dim"][in_world].max() == 6
        assert contacts["dist"][in_world].max() > 1.0


@pytest.mark.shortcut
@pytest.mark.parametrize(
    ("engine", "nball", "trimmed"), [("comfree", 3, 2), ("comfree", 9, 3), ("mjwarp", 9, 1)]
)
def test_a_captured_step_launches_a_thread_for_each_candidate(engine, nball, trimmed):
    balls = "".join(
        f'<body pos="{0.3 * i} 0 .1"><freejoint/><geom size=".1"/></body>' for i in range(nball)
    )
    mjm = mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><geom type="plane" size="1 1 1"/>{balls}</worldbody></mujoco>'
    )
    simulation = engines.make_simulation(mjm, engine, nconmax=16, njmax=64)
    table = simulation._graph._command.fwd_args[0].numpy()
    # `primitive_narrowphase`; in comfree rows of friction loss, and of many balls the list of pairs
    # that its broad phase found.
    assert (table[:, 0] == graph._TRIM).sum() == trimmed

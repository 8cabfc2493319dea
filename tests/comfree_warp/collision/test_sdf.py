"""MuJoCo's SDF shapes are on both Warp engines what they are in MuJoCo, or refused by name."""

import ctypes
from pathlib import Path

import mujoco
import mujoco_warp
import numpy as np
import pytest
import warp as wp
from mujoco_warp._src import collision_sdf
from mujoco_warp._src.types import vec_pluginattr

import comfree_warp as cfwarp
from comfree_warp import ignored
from comfree_warp.collision import sdf, sdf_shapes
from mjsim import engines
from mjsim.errors import SettingError

pytestmark = pytest.mark.engine


def instance(shape: str, name: str = "", **parameters: float) -> str:
    config = "".join(f'<config key="{k}" value="{v}"/>' for k, v in parameters.items())
    named = f'<instance name="{name or shape}">{config}</instance>'
    return f'<plugin plugin="mujoco.sdf.{shape}">{named}</plugin>'


def geom(name: str) -> str:
    return f'<geom type="sdf" mesh="{name}"><plugin instance="{name}"/></geom>'


def body(name: str, height: float) -> str:
    return f'<body pos="0 0 {height}"><freejoint/>{geom(name)}</body>'


def model(instances: str, world: str, *names: str, extra: str = "") -> mujoco.MjModel:
    meshes = "".join(f'<mesh name="{name}"><plugin instance="{name}"/></mesh>' for name in names)
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco>
          <extension>{instances}</extension>
          <option sdf_iterations="10" sdf_initpoints="40"/>
          <asset>
            {meshes}
            <mesh name="slab" vertex="-1 -1 -.5 1 -1 -.5 -1 1 -.5 1 1 -.5
              -1 -1 0 1 -1 0 -1 1 0 1 1 0"/>
            <hfield name="hills" nrow="2" ncol="2" size="1 1 .1 .1" elevation="0 1 1 0"/>
          </asset>
          <worldbody>{world}</worldbody>
          {extra}
        </mujoco>"""
    )


FLOOR = '<geom type="plane" size="5 5 .1"/>'
TORUS = instance("torus", radius1=0.35, radius2=0.15)


@pytest.mark.parametrize(
    ("engine", "law", "steps", "lowest"),
    [
        ("mjwarp", None, 500, 0.149),
        ("comfree", "paper", 500, 0.148),
        ("comfree", "warm", 1500, 0.149),
    ],
)
def test_a_torus_comes_to_rest_on_the_floor(engine, law, steps, lowest, capfd):
    simulation = engines.make_simulation(
        model(TORUS, FLOOR + body("torus", 0.3), "torus"), engine, law=law, nconmax=80, njmax=400
    )
    simulation.step(steps)
    assert lowest < simulation.read("qpos")[2] < 0.1502
    assert "ERROR" not in capfd.readouterr().out  # of which MuJoCo Warp prints millions


# ------------------------------------------------------------------------------- the shapes

# As in mjplugin.h: what MuJoCo knows of a plugin.
_POINTERS = (
    "nstate nsensordata init destroy copy reset compute advance visualize actuator_act_dot "
    "sdf_distance sdf_gradient sdf_staticdistance sdf_attribute sdf_aabb"
)


class _Plugin(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("nattribute", ctypes.c_int),
        ("attributes", ctypes.POINTER(ctypes.c_char_p)),
        ("capabilityflags", ctypes.c_int),
        ("needstage", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in _POINTERS.split()),
    )


def plugin_of(name: str) -> _Plugin:
    library = ctypes.CDLL(str(next(Path(mujoco.__file__).parent.glob("libmujoco.*"))))
    library.mjp_getPluginAtSlot.restype = ctypes.POINTER(_Plugin)
    return library.mjp_getPluginAtSlot(sdf.plugin_slots()[name]).contents


DOUBLES = ctypes.POINTER(ctypes.c_double)


def distances_of_mujoco(name: str, points: np.ndarray, values: list[float]) -> np.ndarray:
    signature = ctypes.CFUNCTYPE(ctypes.c_double, DOUBLES, DOUBLES)
    distance = signature(plugin_of(name).sdf_staticdistance)
    attributes = (ctypes.c_double * len(values))(*values)
    return np.array([distance((ctypes.c_double * 3)(*map(float, p)), attributes) for p in points])


@wp.kernel
def _measure(
    points: wp.array[wp.vec3],
    attributes: wp.array[vec_pluginattr],
    shape: int,
    distance_out: wp.array[float],
    gradient_out: wp.array[wp.vec3],
):
    i = wp.tid()
    distance_out[i] = sdf_shapes.distance(points[i], attributes[0], shape)
    gradient_out[i] = sdf_shapes.gradient(points[i], attributes[0], shape)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("torus", [0.35, 0.15]),
        ("torus", [0.2, 0.05]),
        ("bowl", [0.4, 1.0, 0.02]),
        ("bowl", [0.1, 0.5, 0.05]),
        ("bolt", [0.26]),
        ("nut", [0.3]),
        ("gear", [0.0, 2.8, 25.0, 0.2, -1.0]),
    ],
)
def test_distances_are_those_of_the_plugin_that_mujoco_has(name, values, device):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3)).astype(np.float32)
    padded = np.zeros((1, vec_pluginattr._length_), dtype=np.float32)
    padded[0, : len(values)] = values
    distance = wp.empty(500, dtype=float)
    gradient = wp.empty(500, dtype=wp.vec3)
    shape = list(sdf._SHAPES).index(f"mujoco.sdf.{name}")
    wp.launch(
        _measure,
        dim=500,
        inputs=[
            wp.array(points, dtype=wp.vec3),
            wp.array(padded, dtype=vec_pluginattr),
            shape,
        ],
        outputs=[distance, gradient],
    )
    expected = distances_of_mujoco(f"mujoco.sdf.{name}", points, values)
    np.testing.assert_allclose(distance.numpy(), expected, atol=2e-6)
    # Of all but a few points, which are at an edge, the distance falls along the gradient.
    step = 1e-3 * gradient.numpy()
    ahead = distances_of_mujoco(f"mujoco.sdf.{name}", points + step, values)
    right = np.abs(ahead - expected - 1e-3 * np.sum(gradient.numpy() ** 2, axis=1)) < 1e-4
    assert right.mean() > 0.95


def test_parameters_that_a_model_leaves_out_are_mujocos_defaults():
    for name, shape in sdf._SHAPES.items():
        plugin = plugin_of(name)
        assert [plugin.attributes[i].decode() for i in range(plugin.nattribute)] == [
            *shape.parameters
        ]
        names = (ctypes.c_char_p * plugin.nattribute)(*plugin.attributes[: plugin.nattribute])
        nothing = (ctypes.c_char_p * plugin.nattribute)(*[b""] * plugin.nattribute)
        values = (ctypes.c_double * plugin.nattribute)()
        texts = ctypes.POINTER(ctypes.c_char_p)
        ctypes.CFUNCTYPE(None, DOUBLES, texts, texts)(plugin.sdf_attribute)(values, names, nothing)
        assert list(values) == list(shape.parameters.values())


def test_a_parameter_is_not_taken_for_the_one_before_it_that_is_left_out():
    mjm = model(instance("torus", radius2=0.1), body("torus", 1), "torus")
    m = ignored.put_model(mjm)
    np.testing.assert_allclose(m.plugin_attr.numpy()[0, :3], [0.35, 0.1, 0.0])


def test_contacts_of_geoms_that_share_an_instance_are_those_of_mujoco():
    """MuJoCo Warp ends in `RuntimeError: Failed to reshape` for these."""
    world = FLOOR + body("torus", 0.14) + body("torus", 0.43)
    mjm = model(TORUS + instance("nut"), world, "torus")
    assert mjm.nplugin == 2
    m, mjd = ignored.put_model(mjm), mujoco.MjData(mjm)
    d = mujoco_warp.put_data(mjm, mjd, nconmax=99, njmax=400)
    mujoco_warp.kinematics(m, d)
    mujoco_warp.collision(m, d)
    mujoco.mj_forward(mjm, mjd)
    count = d.nacon.numpy()[0]
    pairs = {tuple(pair) for pair in d.contact.geom.numpy()[:count].tolist()}
    assert pairs == {tuple(pair) for pair in mjd.contact.geom.tolist()} == {(0, 1), (1, 2)}
    ours = (d.contact.geom.numpy()[:count] == (1, 2)).all(axis=1)
    theirs = (mjd.contact.geom == (1, 2)).all(axis=1)
    np.testing.assert_allclose(
        d.contact.dist.numpy()[:count][ours].min(), mjd.contact.dist[theirs].min(), atol=1e-4
    )


@pytest.fixture
def own_hooks(monkeypatch):
    @wp.func
    def user_sdf(p: wp.vec3, attr: vec_pluginattr, sdf_type: int) -> float:
        return wp.length(p) - attr[0]

    monkeypatch.setattr(collision_sdf, "user_sdf", user_sdf)
    return user_sdf


def test_a_program_that_fills_the_hooks_itself_is_left_alone(own_hooks):
    mjm = model(instance("gear", teeth=12), body("gear", 1), "gear")
    m = cfwarp.put_model(mjm)
    assert collision_sdf.user_sdf is own_hooks
    assert m.plugin.numpy().tolist() == mjm.plugin.tolist()  # by which it tells the shapes apart


# -------------------------------------------------------------------------------- refused

SLIDER = '<body><joint name="j" type="slide"/><geom size=".1" contype="0" conaffinity="0"/></body>'
PID = (
    '<plugin plugin="mujoco.pid"><instance name="loop"><config key="kp" value="9"/></instance>'
    "</plugin>"
)
SITE = '<site name="eye" pos="0 0 3" euler="180 0 0"/>'
REFUSED = {
    "a mesh under it": (
        lambda: model(
            TORUS, '<geom name="m" type="mesh" mesh="slab"/>' + body("torus", 1), "torus"
        ),
        "collision of an SDF .* with a mesh",
    ),
    "hills under it": (
        lambda: model(TORUS, '<geom type="hfield" hfield="hills"/>' + body("torus", 1), "torus"),
        "collision of an SDF .* with a height field",
    ),
    "a rangefinder": (
        lambda: model(
            TORUS,
            SITE + body("torus", 1),
            "torus",
            extra='<sensor><rangefinder name="eye" site="eye"/></sensor>',
        ),
        "sensor 'eye', a rangefinder, .* an SDF .geom number 0",
    ),
    "a gear of its own": (
        lambda: model(instance("gear", "cog", teeth=12), body("cog", 1), "cog"),
        "geom number 0 .* 'cog': MuJoCo Warp has mujoco.sdf.gear with its defaults only",
    ),
    "a plugin of an actuator": (
        lambda: model(
            PID,
            SLIDER,
            extra='<actuator><plugin name="servo" joint="j" plugin="mujoco.pid" instance="loop"/>'
            "</actuator>",
        ),
        "the plugin of actuator 'servo' is not supported by MuJoCo Warp",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_mujoco_warp_would_get_wrong_is_refused_by_name(what):
    make, message = REFUSED[what]
    mjm = make()
    with pytest.raises(NotImplementedError, match=message):
        cfwarp.put_model(mjm)
    for engine in ("mjwarp", "comfree"):
        with pytest.raises(SettingError, match=message):
            engines.make_simulation(mjm, engine, nconmax=9, njmax=9)


def test_a_parameter_that_is_no_number_is_told():
    mjm = model(TORUS, body("torus", 1), "torus")
    mjm.plugin_attr[:4] = np.frombuffer(b"wide", dtype=np.uint8)
    with pytest.raises(ValueError, match=r"geom number 0 .*'torus': radius1='wide' is no number"):
        cfwarp.put_model(mjm)


def test_an_unknown_plugin_is_named(monkeypatch):
    monkeypatch.setattr(sdf, "plugin_slots", dict)
    with pytest.raises(NotImplementedError, match=r"plugin 'torus', whose shape"):
        cfwarp.put_model(model(TORUS, body("torus", 1), "torus"))

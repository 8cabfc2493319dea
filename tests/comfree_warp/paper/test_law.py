"""One step of the kernels against the independent float64 reference, on every model.

With both cones, both Jacobian layouts and the three integrators, of which any two meet. The
reference runs over MuJoCo C's own rows. Where the two collision pipelines find different rows it
runs over the engine's rows instead; the end of the test run says on how many states that was so.
"""

import copy
import itertools

import mujoco
import numpy as np
import pytest
import reference
import scenes
import warp as wp
from engine_rows import engine_rows, relative_error

import comfree_warp as cfwarp

pytestmark = pytest.mark.engine

TOLERANCE = 1e-4  # relative to the largest component, for float32 against float64

CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}
JACOBIANS = {"dense": mujoco.mjtJacobian.mjJAC_DENSE, "sparse": mujoco.mjtJacobian.mjJAC_SPARSE}
INTEGRATORS = {
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
    "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
}
STIFFNESS, DAMPING = 0.2, 0.001


def same_rows(ours: reference.Rows, theirs: reference.Rows) -> bool:
    """Whether two collision pipelines found the same rows, in whatever order.

    By sums over the rows, which do not depend on their order: of each type's number, and of D,
    D phi and D J^2 along each dof.
    """
    if sorted(ours.type) != sorted(theirs.type):
        return False

    def sums(rows: reference.Rows) -> list[np.ndarray]:
        weights = (rows.D, rows.D * rows.phi, rows.D * rows.vel)
        return [*(weight @ rows.J for weight in weights), rows.D @ rows.J**2]

    return all(
        relative_error(one, other) < 3e-5
        for one, other in zip(sums(ours), sums(theirs), strict=True)
    )


def integrated_velocity(
    mjm: mujoco.MjModel, mjd: mujoco.MjData, qfrc_constraint: np.ndarray
) -> np.ndarray:
    """Velocity after a step of MuJoCo C's own integrator, given the constraint force of the law."""
    free = copy.copy(mjm)
    # Some random states are so deep in contact that MuJoCo would put the model back to its start.
    free.opt.disableflags |= (
        mujoco.mjtDisableBit.mjDSBL_CONSTRAINT | mujoco.mjtDisableBit.mjDSBL_AUTORESET
    )
    stepped = mujoco.MjData(free)
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(mjm, spec))
    mujoco.mj_getState(mjm, mjd, state, spec)
    mujoco.mj_setState(free, stepped, state, spec)
    stepped.qfrc_applied += qfrc_constraint
    mujoco.mj_step(free, stepped)
    return stepped.qvel


# The models that are refused, each once, by an integrator that they cannot have.
REFUSED = {"theirs/flex/floppy.xml": ("implicit", "implicitfast")}


def pairwise() -> list[tuple[str, str, str, str]]:
    """Model, cone, Jacobian and integrator, so that any two values of two of them meet.

    Of a model there is a case for every integrator that it can have. Among them are both cones and
    both Jacobians, in turns that begin elsewhere from model to model.
    """
    cones, jacobians, cases = tuple(CONES), tuple(JACOBIANS), []
    for i, scene in enumerate(scenes.PATHS):
        allowed = [name for name in INTEGRATORS if name not in REFUSED.get(scene, ())]
        for k in range(max(len(allowed), 2)):
            cone, jacobian = cones[(i + k) % 2], jacobians[(i // 2 + (k > 0)) % 2]
            cases.append((scene, cone, jacobian, allowed[k % len(allowed)]))
    return cases


def load(scene: str, cone: str, jacobian: str, integrator: str) -> mujoco.MjModel:
    mjm = mujoco.MjModel.from_xml_path(str(scenes.PATHS[scene]))
    if mjm.nv > 60:
        jacobian = "sparse"  # MuJoCo Warp has no dense Jacobian above 60 dofs
    mjm.opt.cone, mjm.opt.jacobian = CONES[cone], JACOBIANS[jacobian]
    mjm.opt.integrator = INTEGRATORS[integrator]
    return mjm


def test_every_two_settings_meet():
    cases = [
        dict(zip(("model", "cone", "jacobian", "integrator"), c, strict=True)) for c in pairwise()
    ]
    values = {"cone": CONES, "jacobian": JACOBIANS, "integrator": INTEGRATORS}
    for one, other in itertools.combinations(values, 2):
        met = {(case[one], case[other]) for case in cases}
        assert met == set(itertools.product(values[one], values[other]))
    for name in values:
        expected = set(itertools.product(scenes.PATHS, values[name]))
        if name == "integrator":
            expected -= {(scene, each) for scene in REFUSED for each in REFUSED[scene]}
        assert {(case["model"], case[name]) for case in cases} == expected


@pytest.mark.parametrize(
    ("scene", "integrator"), [(scene, each) for scene in REFUSED for each in REFUSED[scene]]
)
def test_what_the_law_cannot_step_is_refused_by_name(scene, integrator, device):
    mjm = load(scene, "pyramidal", "sparse", integrator)
    with pytest.raises(NotImplementedError, match="flex elasticity under an implicit integrator"):
        cfwarp.put_model(mjm)


@pytest.mark.parametrize(("scene", "cone", "jacobian", "integrator"), pairwise())
def test_step_agrees_with_float64_reference(
    scene, cone, jacobian, integrator, device, record_property
):
    mjm = load(scene, cone, jacobian, integrator)
    m = cfwarp.put_model(mjm, comfree_stiffness=STIFFNESS, comfree_damping=DAMPING)
    for seed in range(2):
        mjd = scenes.random_state(mjm, seed)
        mujoco.mj_forward(mjm, mjd)
        expected = reference.step_reference(mjm, mjd, STIFFNESS, DAMPING)
        nconmax, njmax = 2 * mjd.ncon + 128, 2 * mjd.nefc + 512
        sizes = {"nconmax": nconmax, "njmax": njmax, "njmax_nnz": njmax * mjm.nv}
        d = cfwarp.put_data(mjm, mjd, **sizes)  # room for the Jacobian that engine_rows makes
        cfwarp.forward(m, d)
        wp.synchronize()
        assert d.overflow.numpy()[0] == 0

        rows, found = engine_rows(mjm, m, d)
        forces = reference.row_forces(
            rows, d.qacc_smooth.numpy()[0].astype(float), mjm.opt.timestep, STIFFNESS, DAMPING
        )
        assert relative_error(found, forces) < TOLERANCE

        qfrc_constraint, qacc = expected.qfrc_constraint, expected.qacc
        same = same_rows(rows, expected.rows)
        record_property("reference_rows", "mujoco" if same else "engine")
        if not same:
            M = reference.full_mass_matrix(mjm, mjd)
            forces = reference.row_forces(
                rows, mjd.qacc_smooth, mjm.opt.timestep, STIFFNESS, DAMPING
            )
            qfrc_constraint, qacc = reference.acceleration(M, mjd.qfrc_smooth, rows, forces)
        assert relative_error(d.qfrc_constraint.numpy()[0], qfrc_constraint) < TOLERANCE
        # A long chain's M^-1 multiplies float32 rounding; what MuJoCo Warp's own acceleration
        # without constraints is off by is not the law's.
        allowed = TOLERANCE + relative_error(d.qacc_smooth.numpy()[0], mjd.qacc_smooth)
        assert relative_error(d.qacc.numpy()[0], qacc) < allowed

        expected_qvel = integrated_velocity(mjm, mjd, qfrc_constraint)
        cfwarp.step(m, d)
        assert relative_error(d.qvel.numpy()[0], expected_qvel) < allowed

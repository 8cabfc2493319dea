"""One home for the fields of a state, by MuJoCo's names and in one order."""

import mujoco
import numpy as np
import pytest
from recordings import SCENE

from mjsim import engines, state
from mjsim.state import SHAPES, SHARED_FIELDS, STATE_FIELDS, pack_mjdata


def test_the_shapes_are_those_of_mujoco() -> None:
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    mjd = mujoco.MjData(mjm)
    assert set(STATE_FIELDS) == {"time", *SHAPES}
    for field, sizes in SHAPES.items():
        shape = tuple(size if isinstance(size, int) else getattr(mjm, size) for size in sizes)
        assert getattr(mjd, field).shape == shape


def test_what_leaves_the_process_is_a_part_of_what_the_engines_know() -> None:
    assert engines.STATE_FIELDS is STATE_FIELDS
    assert [field for field in STATE_FIELDS if field in SHARED_FIELDS] == list(SHARED_FIELDS)
    assert set(state.OPTIONAL_FIELDS) <= set(SHARED_FIELDS)


def test_a_packed_state_has_the_documented_fields_in_order() -> None:
    mjd = mujoco.MjData(mujoco.MjModel.from_xml_string(SCENE))
    packed = pack_mjdata(mjd)
    assert list(packed) == ["time", *SHARED_FIELDS]
    assert type(packed["time"]) is float
    for field in SHARED_FIELDS:
        assert packed[field].dtype == np.float64
        assert not np.shares_memory(packed[field], getattr(mjd, field))


@pytest.mark.parametrize("field", ["qpos", "xfrc_applied", "mocap_quat"])
def test_a_state_that_is_set_is_the_one_that_was_packed(field: str) -> None:
    mjm = mujoco.MjModel.from_xml_string(SCENE)
    one, other = mujoco.MjData(mjm), mujoco.MjData(mjm)
    getattr(one, field)[:] = np.random.default_rng(0).normal(size=getattr(one, field).shape)
    state.apply_mjdata(other, pack_mjdata(one))
    np.testing.assert_array_equal(getattr(one, field), getattr(other, field))

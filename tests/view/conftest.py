"""Models that several displays show, as files."""

from pathlib import Path

import pytest
from watching import SWINGING

FALLING = """
<mujoco model="falling">
  <worldbody>
    <geom type="plane" size="3 3 .1"/>
    <body pos="0 0 1"><freejoint/><geom size=".1"/></body>
    <body pos="0 1 1"><freejoint/><geom size=".1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def swinging(tmp_path: Path) -> Path:
    path = tmp_path / "swinging.xml"
    path.write_text(SWINGING)
    return path


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    path = tmp_path / "falling.xml"
    path.write_text(FALLING)
    return path

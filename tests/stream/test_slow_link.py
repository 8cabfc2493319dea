"""A link of 2 Mbit/s and 100 ms of round trip: as many frames as it carries, and none of them old.

The clock is the machine's own, since server and viewer are on the same.
"""

import dataclasses
import statistics
import time

import pytest
from proxy import SlowLink
from scenes import OWN_FOLDER
from watching import free_port, streaming_scene

from mjsim.stream import StreamClient, encode_packet

pytestmark = pytest.mark.alone

SCENE = OWN_FOLDER / "primitives.xml"  # 125 bodies that move
BITS_PER_SECOND = 2e6
ROUND_TRIP = 0.1  # s


@dataclasses.dataclass(frozen=True)
class Reception:
    """What a viewer got over some time.

    Attributes:
      frames: states that arrived.
      frame_bytes: size of one on the wire.
      seconds: how long that took.
      ages: of the newest state at the viewer, just before each next one arrived, s.
    """

    frames: int
    frame_bytes: int
    seconds: float
    ages: list[float]

    @property
    def share(self) -> float:
        """Frames that came, of those that the bandwidth allows."""
        return self.frames * self.frame_bytes * 8.0 / (BITS_PER_SECOND * self.seconds)


def receive(client: StreamClient, seconds: float) -> Reception:
    """Read for some time, counted from the first state, and look at the clock."""
    start, newest, frames, ages = None, None, 0, []
    while start is None or time.monotonic() - start < seconds:
        states = [packet for packet in client.drain(0.05) if packet["kind"] == "state"]
        if not states:
            continue
        size = len(encode_packet(states[-1]))
        if start is None:
            start, client.skipped = time.monotonic(), 0
        else:
            ages.append(time.time() - newest)
            frames += 1
        newest = states[-1]["sent"]
    return Reception(frames + client.skipped, size, time.monotonic() - start, ages)


@pytest.mark.parametrize(
    "seconds", [20.0, pytest.param(120.0, marks=pytest.mark.slow)], ids=lambda value: f"{value:g}s"
)
def test_slow_link_carries_new_states(seconds: float, request: pytest.FixtureRequest) -> None:
    if seconds > 60.0 and "slow" not in request.config.getoption("-m"):
        pytest.skip("two minutes by itself: ask for it with -m slow")
    port = free_port()
    with (
        streaming_scene(SCENE, port),
        SlowLink(port, BITS_PER_SECOND, ROUND_TRIP) as link,
        StreamClient.connect("127.0.0.1", link.port) as client,
    ):
        reception = receive(client, seconds)
    middle = 1e3 * statistics.median(reception.ages)
    print(
        f"{reception.frames} frames, {reception.share:.1%} of what the bandwidth allows; "
        f"age {middle:.0f} ms at the median, {1e3 * max(reception.ages):.0f} ms at most"
    )
    assert reception.share >= 0.8
    assert max(reception.ages) < 0.4

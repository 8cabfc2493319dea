"""The mailbox between simulation and I/O thread: the newest state, and no wake-up lost."""

import select
import threading
from collections.abc import Iterator

import pytest

from mjsim.stream.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    opened = Mailbox(world=1, nworld=4)
    opened.open()
    yield opened
    opened.close()


def woken(mailbox: Mailbox, seconds: float = 0.0) -> bool:
    readable, _, _ = select.select([mailbox.wakes], [], [], seconds)
    return bool(readable)


def put(mailbox: Mailbox, step: int) -> None:
    mailbox.put([], {"step": step})


def test_a_newer_state_takes_the_place_of_one_that_was_not_taken(mailbox: Mailbox) -> None:
    for step in range(3):
        put(mailbox, step)
    frame = mailbox.take()
    assert (frame.number, frame.entries) == (3, {"step": 2})
    assert mailbox.take() is None
    assert not mailbox.filled
    assert mailbox.counters.frames == 3


def test_a_state_wakes_who_sleeps_and_once_is_enough(mailbox: Mailbox) -> None:
    mailbox.take()
    put(mailbox, 0)
    put(mailbox, 1)
    assert woken(mailbox)
    assert mailbox.wakes.recv(100) == b"\0"


def test_who_looks_anyway_is_not_woken(mailbox: Mailbox) -> None:
    mailbox.stay_awake()
    put(mailbox, 0)
    assert mailbox.filled
    assert not woken(mailbox)


def test_the_order_to_stop_wakes_whoever_it_is_for(mailbox: Mailbox) -> None:
    mailbox.stay_awake()
    mailbox.stop(12.0)
    assert mailbox.stop_at == 12.0
    assert woken(mailbox)


def test_what_was_left_is_gone_when_it_is_opened_again(mailbox: Mailbox) -> None:
    put(mailbox, 0)
    mailbox.stop(12.0)
    mailbox.close()
    mailbox.open()
    assert mailbox.stop_at is None
    assert mailbox.take() is None
    assert not woken(mailbox)


@pytest.mark.parametrize(("asked", "shown"), [(0, 0), (3, 3), (99, 3), (-5, 0)])
def test_a_wish_is_for_a_world_that_there_is(asked: int, shown: int, mailbox: Mailbox) -> None:
    assert mailbox.world == 1
    mailbox.ask_for_world(asked)
    assert mailbox.world == shown


def test_no_wake_up_is_lost_between_two_threads(mailbox: Mailbox) -> None:
    """The reader sleeps without a limit worth the name, as long as nobody wakes it."""
    count, taken = 20_000, []

    def read() -> None:
        while not taken or taken[-1] < count:
            frame = mailbox.take()
            if frame is not None:
                taken.append(frame.number)
            elif woken(mailbox, 20.0):
                mailbox.wakes.recv(4096)
            else:
                return

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(count):
        put(mailbox, step)
    reader.join()
    assert taken[-1] == count
    assert taken == sorted(set(taken))

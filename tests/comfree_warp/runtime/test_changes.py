"""What is put in the place of Warp's functions is there for one thread, and not for good."""

import threading
import types

import pytest

from comfree_warp.runtime.changes import (
    changed,
    in_this_thread,
    shared_substitute,
    substituted,
)


@pytest.fixture
def module() -> types.SimpleNamespace:
    return types.SimpleNamespace(say=lambda: "original", kernel="original", value=1)


def in_another_thread(call) -> object:
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def test_changed_values_come_back_after_an_error(module):
    with changed(module, value=2):
        assert module.value == 2
    with pytest.raises(RuntimeError), changed(module, value=2):
        raise RuntimeError
    assert module.value == 1


def test_other_threads_call_the_original_function(module):
    original = module.say
    with substituted(module, say=lambda: "substitute"):
        assert module.say() == "substitute"
        assert in_another_thread(lambda: module.say()) == "original"
    assert module.say is original


def test_a_substitute_in_a_substitute_is_called_until_its_own_context_ends(module):
    original = module.say
    with substituted(module, say=lambda: "outer"):
        outer = in_this_thread(module, "say")
        with substituted(module, say=lambda: f"inner of {outer()}"):
            assert module.say() == "inner of outer"
        assert module.say() == "outer"
    assert in_this_thread(module, "say") is module.say is original


def test_the_original_is_back_when_threads_end_in_the_order_in_which_they_began(module):
    original = module.say
    first_inside, second_inside, first_outside = (threading.Event() for _ in range(3))
    said = {}

    def first() -> None:
        with substituted(module, say=lambda: "first"):
            first_inside.set()
            second_inside.wait()
            said["first"] = module.say()
        first_outside.set()

    def second() -> None:
        first_inside.wait()
        with substituted(module, say=lambda: "second"):
            second_inside.set()
            first_outside.wait()
            said["second"] = module.say()

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {"first": "first", "second": "second"}
    assert module.say is original


def test_the_original_is_back_after_an_error(module):
    original = module.say
    with pytest.raises(RuntimeError), substituted(module, say=lambda: "substitute"):
        raise RuntimeError
    assert module.say is original


def test_what_is_not_called_is_back_when_the_last_context_ends(module):
    first, second = (shared_substitute(module, kernel="substitute") for _ in range(2))
    first.__enter__()
    second.__enter__()
    assert in_another_thread(lambda: module.kernel) == "substitute"
    first.__exit__(None, None, None)
    assert module.kernel == "substitute"
    second.__exit__(None, None, None)
    assert module.kernel == "original"

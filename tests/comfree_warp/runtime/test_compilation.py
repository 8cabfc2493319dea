"""Kernels are compiled before the step, all of them, and their names are told."""

import gc
import shutil
import threading

import mujoco
import mujoco_warp
import pytest
import warp as wp
from programs import printed_lines

import comfree_warp as cfwarp
from comfree_warp.collision.narrowphase import _collide_convex
from comfree_warp.runtime.collector import collector_paused
from comfree_warp.runtime.compilation import _slowest_first, compile_kernels
from comfree_warp.runtime.private import CONVEX_KEY

pytestmark = [pytest.mark.engine, pytest.mark.shortcut]

# In a process of its own, with a kernel cache of its own.
PROGRAM = """
import sys
import mujoco, warp as wp
import comfree_warp as cfwarp
from comfree_warp.runtime.compilation import compile_kernels
from mjsim.engines.device import warp_device

device = warp_device("cpu")
mjm = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
)
m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm)
told = []
report = compile_kernels(lambda: cfwarp.step(m, d), device, lambda *each: told.append(each))
assert d.time.numpy()[0] == 0.0, "the rehearsal must not step"
assert report.compiled == report.modules > 0
assert told[-1][:2] == (report.compiled, report.compiled)
assert any("comfree_warp.paper.contacts" in name for _, _, name in told)

from pathlib import Path
compiled = set(Path(wp.config.kernel_cache_dir).iterdir())
cfwarp.capture(lambda: cfwarp.step(m, d)).launch()
new = set(Path(wp.config.kernel_cache_dir).iterdir()) - compiled
assert not new, f"compiled when the step is captured: {new}"

again = compile_kernels(lambda: cfwarp.step(m, d), device, lambda *each: told.append("again"))
assert again.compiled == 0 and told[-1] != "again"
"""


def test_every_kernel_of_a_step_is_compiled_beforehand(tmp_path):
    printed_lines(PROGRAM, WARP_CACHE_PATH=str(tmp_path))


def test_a_rehearsal_sorts_nothing_by_segments_that_were_never_made(monkeypatch):
    def sort(*args):
        raise AssertionError("sorted in a rehearsal")

    monkeypatch.setattr(wp.utils, "segmented_sort_pairs", sort)
    mjm = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom type='plane' size='1 1 1'/>"
        "<body><freejoint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm)
    m.opt.broadphase = mujoco_warp.BroadphaseType.SAP_SEGMENTED
    with pytest.raises(AssertionError, match="sorted"):
        cfwarp.step(m, d)
    compile_kernels(lambda: cfwarp.step(m, d), wp.get_device("cpu"))


@wp.kernel(module="unique")
def _count(out: wp.array[int]):
    out[wp.tid()] += 1


def test_what_other_threads_launch_meanwhile_is_done():
    cpu = wp.get_device("cpu")
    rehearsed, launched = wp.zeros(3, dtype=int, device=cpu), wp.zeros(3, dtype=int, device=cpu)

    def rehearsal() -> None:
        wp.launch(_count, 3, outputs=[rehearsed], device=cpu)
        thread = threading.Thread(
            target=lambda: wp.launch(_count, 3, outputs=[launched], device=cpu)
        )
        thread.start()
        thread.join()

    compile_kernels(rehearsal, cpu)
    assert rehearsed.numpy().tolist() == [0, 0, 0]
    assert launched.numpy().tolist() == [1, 1, 1]


REPLACED = """
import sys
import mujoco, mujoco_warp, warp as wp
from warp._src import context

def all_of_theirs() -> tuple:
    theirs = {}
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").partition(".")[0] in ("warp", "mujoco_warp"):
            theirs |= {
                (module.__name__, name): id(value)
                for name, value in vars(module).items()
                if callable(value) or isinstance(value, wp.Kernel)
            }
    kernels = {
        key: (id(value), value.module.name)
        for name, module in list(sys.modules.items())
        if name.startswith("mujoco_warp.")
        for key, value in vars(module).items()
        if isinstance(value, wp.Kernel)
    }
    core = context.runtime.core
    names = ("wp_cpu_launch_kernel", "wp_memcpy_h2h")
    runtime = [id(getattr(core, name)) for name in names]
    return theirs, kernels, runtime, context.runtime.get_clang_pch_dir.__func__

wp.config.log_level = wp.LOG_WARNING
wp.init()
wp.is_cuda_available = lambda: False
[getattr(context.runtime.core, name) for name in ("wp_cpu_launch_kernel", "wp_memcpy_h2h")]
before = all_of_theirs()
import comfree_warp as cfwarp
from comfree_warp.runtime.compilation import compile_kernels

mjm = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><geom type='plane' size='1 1 1'/><body pos='0 0 .09'><joint range='-1 1' "
    "limited='true' name='j'/><geom size='.1'/></body></worldbody>"
    "<sensor><jointlimitpos joint='j'/></sensor></mujoco>"
)
with wp.ScopedDevice("cpu"):
    m, d = cfwarp.put_model(mjm), cfwarp.make_data(mjm)
    compile_kernels(lambda: cfwarp.step(m, d), wp.get_device("cpu"))
    cfwarp.capture(lambda: cfwarp.step(m, d)).launch()
after = all_of_theirs()
changed = [name for name in before[0] if before[0][name] != after[0].get(name)]
print("changed:", *[".".join(name) for name in changed])
print("kernels:", *[key for key in before[1] if before[1][key] != after[1].get(key)])
print("runtime:", before[2:] == after[2:])
"""


def test_nothing_of_warp_and_mujoco_warp_is_replaced_for_good(tmp_path):
    lines = printed_lines(REPLACED, WARP_CACHE_PATH=str(tmp_path))
    assert lines[-3:] == ["changed:", "kernels:", "runtime: True"]


@wp.kernel(module="unique")
def _asked_for(out: wp.array[int]):
    out[wp.tid()] = 1


def test_a_kernel_whose_block_size_is_asked_for_is_compiled_with_the_others():
    """On a GPU, where Warp would compile it there and then."""
    sizes = []
    device = wp.get_device("cpu")
    report = compile_kernels(lambda: sizes.append(wp.get_suggested_block_size(_asked_for)), device)
    assert report.modules == 1
    assert sizes == [(1, 1)]


PARTS = """
import sys
import comfree_warp
import mujoco, mujoco_warp, warp as wp
from comfree_warp.runtime.compilation import compile_kernels

wp.is_cuda_available = lambda: False
for medium in sys.argv[1:]:
    density = {"vacuum": 0, "water": 1000}[medium]
    mjm = mujoco.MjModel.from_xml_string(
        f"<mujoco><option density='{density}'/><worldbody><body><joint stiffness='2' ref='1'/>"
        "<geom size='.1' pos='.3 0 0'/></body></worldbody></mujoco>"
    )
    mjd = mujoco.MjData(mjm)
    mjd.qpos[0], mjd.qvel[0] = 0.5, 3.0
    mujoco.mj_forward(mjm, mjd)
    m, d = mujoco_warp.put_model(mjm), mujoco_warp.put_data(mjm, mjd)
    d.qfrc_passive.zero_()
    names = set()
    compile_kernels(
        lambda: mujoco_warp.passive(m, d),
        wp.get_device("cpu"),
        lambda done, count, name: names.add(name),
    )
    comfree_warp.capture(lambda: mujoco_warp.passive(m, d)).launch()
    assert abs(d.qfrc_passive.numpy()[0, 0] / mjd.qfrc_passive[0] - 1) < 1e-5, medium
    of_passive = [name for name in names if name.startswith("mujoco_warp._src.passive")]
    print("compiled:", *("part" if ".used_" in name else "whole" for name in of_passive))
"""


def test_what_is_used_of_a_large_module_is_compiled_alone_until_another_call_uses_more(tmp_path):
    def compiled(*media: str) -> list[str]:
        lines = printed_lines(PARTS, *media, WARP_CACHE_PATH=str(tmp_path))
        return [line for line in lines if line.startswith("compiled:")]

    assert compiled("vacuum") == ["compiled: part"]
    assert compiled("vacuum", "water") == ["compiled:", "compiled: whole"]
    assert compiled("water", "vacuum") == ["compiled:", "compiled:"]


HEADERS = """
import os
import mujoco
from mjsim import engines
from warp._src import build

without, build_cpu = [], build.build_cpu

def watched(*args, **kwargs):
    without.append(not os.listdir(kwargs["pch_dir"]))
    build_cpu(*args, **kwargs)

build.build_cpu = watched
mjm = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
)
engines.make_simulation(mjm, nconmax=1, njmax=1)
print(len(without) > 5, sum(without))
"""


def test_one_of_all_threads_reads_the_headers(tmp_path):
    def reads() -> str:
        return printed_lines(HEADERS, WARP_CACHE_PATH=str(tmp_path))[-1]

    assert reads() == "True 1", "with an empty cache"
    assert reads() == "False 0", "with all that is needed"
    for module in tmp_path.glob("*/wp_*"):
        if "graph" not in module.name:
            shutil.rmtree(module)
    assert reads() == "True 1", "with what runs a graph alone"


def test_the_slowest_modules_are_the_first_to_be_compiled():
    names = ["one_kernel_a1b2", "mujoco_warp._src.smooth", f"{CONVEX_KEY}_c3d4", "two_kernels_e5f6"]
    variants = [(wp.Module(name, None), None) for name in names]
    ordered = [module.name for module, _ in sorted(variants, key=_slowest_first)]
    assert ordered == [names[2], names[1], names[0], names[3]]


def test_the_module_of_convex_pairs_is_known_by_its_name():
    kernel = _collide_convex(0, None, 1, 1, True, 0)
    assert kernel.module.name.startswith(CONVEX_KEY)


def test_the_collector_is_paused_within_its_context_alone():
    assert gc.isenabled(), "importing the package must leave it on"
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()

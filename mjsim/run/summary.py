"""The summary of a run: what it was, how fast it went and how it ended."""

from typing import Any, TypedDict


class RecordingSummary(TypedDict):
    """What was recorded.

    Attributes:
      path: of the file.
      states: in it.
      bytes: of it.
      problem: why the recording ended early, or None.
    """

    path: str
    states: int
    bytes: int
    problem: str | None


class Summary(TypedDict):
    """The summary of a run, as `headless.summarize` makes it and `--json` writes it.

    Attributes:
      name: the engine's whole name, with its law.
      engine: the engine.
      law: of comfree, else None.
      device: Warp's name of the device.
      model: the file, as it was given.
      nworld: number of worlds.
      nsteps: steps taken, per world.
      steps_per_second: steps of all worlds together, per second of wall time.
      realtime_factor: simulated seconds of one world per second of wall time.
      compile_seconds: wall time for compiling and loading kernels, s.
      run_seconds: wall time of the steps, s.
      contacts: of the last step, in all worlds.
      rows: constraint rows, likewise.
      state_sha256: of qpos and qvel of all worlds.
      diverged: number of worlds that have diverged.
      first_divergence: the fields of a `Divergence`, or None.
      overflow: a sentence for each buffer that was too small.
      grown: a line for each time that buffers grew.
      repairs: convex collisions that were done again.
      stopped_by: name of the signal that ended the run, or None.
      problems: what went wrong, in words.
      stream: the fields of `Counters`; None without streaming.
      recording: None without one.
      versions: of the packages that the numbers depend on.
    """

    name: str
    engine: str
    law: str | None
    device: str
    model: str
    nworld: int
    nsteps: int
    steps_per_second: float
    realtime_factor: float
    compile_seconds: float
    run_seconds: float
    contacts: int
    rows: int
    state_sha256: str
    diverged: int
    first_divergence: dict[str, Any] | None
    overflow: list[str]
    grown: list[str]
    repairs: int
    stopped_by: str | None
    problems: list[str]
    stream: dict[str, Any] | None
    recording: RecordingSummary | None
    versions: dict[str, str]

"""Runs in files: the model and its states, written while they happen, read piece by piece.

    with Recorder("run.mcap", mjm, {"engine": "mjc"}) as recorder:  # SettingError
        recorder.write(mjd, step)  # as often as wanted; a full disk ends the recording alone

    with Recording("run.mcap") as recording:  # RecordingError
        mjm = recording.model()  # RecordingError
        for recorded in recording.states(start=2.5):  # s
            apply_mjdata(mjd, recorded.state)
        print(recording.problem)  # None, or what is wrong with the file

Importing this loads MuJoCo and NumPy, and neither Warp nor OpenGL; MCAP and protobuf are loaded
when a file is opened.
"""

from mjsim.record.cursor import Cursor
from mjsim.record.format import RecordedState, RecordingError, missing_packages
from mjsim.record.reader import Recording
from mjsim.record.recorder import Recorder, RunsRecorder, check_path
from mjsim.state import apply_mjdata

__all__ = [
    "Cursor",
    "RecordedState",
    "Recorder",
    "Recording",
    "RecordingError",
    "RunsRecorder",
    "apply_mjdata",
    "check_path",
    "missing_packages",
]

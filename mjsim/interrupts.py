"""Ctrl-C and SIGTERM end a program with one word, at any moment: the first import of every program.

    from mjsim import interrupts

    if __name__ == "__main__":
        interrupts.install()

The process ends in the signal's handler itself. An exception would have to find its way out first:
raised in the middle of an import, in the start of a C extension or in a destructor, it becomes a
traceback or is lost. Where work has to be put in order, `stop_signals.StopSignals` or `Unwinding`
takes the place of this for as long. Next to nothing is imported here, not even `typing`, so that
the handlers are there 2 ms after the program has begun.
"""

import _thread
import atexit
import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MUJOCO_GL = os.environ.get("MUJOCO_GL")  # as the user has it: `install` may set it
_stderr = 2


def install() -> None:
    """Let the first SIGINT or SIGTERM print "interrupted" and end the process: status 130, 143.

    A signal that the program was started to ignore, as `nohup` and a shell's background jobs do,
    is still ignored.
    """
    global _stderr
    # A copy, since file descriptor 2 is another file while Warp looks for a driver.
    try:
        _stderr = os.dup(2)
    except OSError:  # started with stderr closed: there is nobody to tell
        _stderr = -1
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _end)
    # Else importing MuJoCo looks for GLFW in a Python of its own, which Ctrl-C on a terminal ends
    # with a traceback. What renders here asks for EGL or OSMesa by name, and the window for GLFW.
    os.environ.setdefault("MUJOCO_GL", "disable")
    # Registered first, so called last. All is done by then, and after it Python takes its handlers
    # away, while modules are still being torn down.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def end(status: int) -> None:
    """Print "interrupted" on stderr and end the process with this status, at once."""
    try:
        if os.isatty(_stderr):
            os.write(_stderr, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
        os.write(_stderr, b"interrupted\n")
    except OSError:
        pass
    os._exit(status)


def _end(signum: int, frame: object) -> None:
    end(128 + signum)


def end_at_next() -> None:
    """Let the next signal end the process, even while its main thread is in C code for long.

    To be called by the handler of the first one: Python calls handlers in the main thread, when
    that is in Python, but writes the signal's number to a file descriptor at once.
    """
    for signum in SIGNALS:
        signal.signal(signum, _end)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # Not threading.Thread, whose lock the code that was interrupted may hold.
    _thread.start_new_thread(_end_when_written, (reader,))


def _end_when_written(reader: int) -> None:
    while (signum := os.read(reader, 1)[0]) not in SIGNALS:
        pass
    end(128 + signum)


class Deferred:
    """Within this context signals wait for its end, also in programs that are started in it.

    For imports that start programs, whose tracebacks would be on our terminal.
    """

    def __enter__(self) -> "Deferred":
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


class _Handled:
    """A context in which both signals have another handler."""

    def __enter__(self) -> "_Handled":
        self._previous = {signum: signal.signal(signum, self._handle) for signum in SIGNALS}
        return self

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: object) -> None:
        raise NotImplementedError


class Closing(_Handled):
    """Within this context a signal ends the process with status 0, as closing a window would."""

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _handle(self, signum: int, frame: object) -> None:
        end(0)


class Unwinding(_Handled):
    """Within this context the first signal raises KeyboardInterrupt, the second ends the process.

    What was opened in the context is so closed, and then the process ends as ever. For code that
    starts other programs, and makes folders for the time it runs.
    """

    _received = 0

    def __exit__(self, *exception: object) -> None:
        if self._received:
            end(128 + self._received)
        self._restore()

    def _handle(self, signum: int, frame: object) -> None:
        self._received = signum
        end_at_next()
        raise KeyboardInterrupt

"""What a packet may be unpickled to: opcodes run by ourselves, and never by `pickle`.

What comes over a wire may come from anybody. Python's own unpickler, even with
`find_class` restricted, lets a packet set attributes on the classes that it is allowed to name
(BUILD), reserve gigabytes with nine bytes (a memo index) and hang in the hash of nested tuples.
Here a name is a token that only REDUCE understands, every length is checked against the bytes
that are there before anything is allocated, and what comes out is copied into plain values.
"""

import math
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from mjsim.errors import ProtocolError
from mjsim.text import kind_of, shown

MAX_OPCODES = 200_000  # a state has about 150, a model one of some four per asset
MAX_DEPTH = 16  # containers within containers; a state has two
MAX_ITEMS = 200_000  # values that come out of a packet, counted once per place they stand in
MAX_INT_BYTES = 16
MAX_NDIM = 32


def unpickle(payload: memoryview) -> Any:
    """The plain values and arrays that a pickle of protocol 2 to 5 holds.

    Raises:
      ProtocolError: it is no such pickle, or holds something else.
    """
    return plain_copy(_Machine(payload).run())


def plain_copy(value: object) -> Any:
    """A copy of a value in plain containers and contiguous arrays.

    Raises:
      ProtocolError: something in it is neither, or it is too large or too deep.
    """
    return _Plain().copy(value)


def _is(value: object, *allowed: object) -> bool:
    """Whether it is one of these, type and all; the == of an array would not say yes or no."""
    return any(type(value) is type(each) and value == each for each in allowed)


# --------------------------------------------------------------------------------- the machine


class _Name:
    """A name that a packet may mention: what REDUCE calls, or a class that an argument names."""

    def __init__(self, name: str, construct: Callable[[tuple], Any] | None = None):
        self.name, self.construct = name, construct


class _DType:
    """A dtype under construction: REDUCE makes it, BUILD sets its byte order."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype

    def build(self, state: object) -> None:
        # The version of the form, the byte order, then nothing of what structured dtypes have.
        form = (
            (3, 4),
            ("<", ">", "|", "="),
            (None,),
            (None,),
            (None,),
            (-1,),
            (-1,),
            (0,),
            (None,),
        )
        if (
            type(state) is not tuple
            or len(state) not in (8, 9)
            or not all(_is(item, *form[i]) for i, item in enumerate(state))
        ):
            raise ProtocolError(f"refused a dtype with the state {shown(state)}")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array under construction: `_reconstruct` makes it empty, BUILD fills it."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not _is(state[0], 1):
            raise ProtocolError(f"refused an array with the state {shown(state)}")
        _, shape, dtype, fortran, buffer = state
        self.array = _make_array(buffer, dtype, shape, "F" if fortran is True else "C")


class _Buffer:
    """A bytearray in a packet, good for nothing but an array."""

    def __init__(self, view: memoryview):
        self.view = view


_MARK = _Name("MARK")


def _make_array(buffer: object, dtype: object, shape: object, order: object) -> np.ndarray:
    if isinstance(buffer, _Buffer):
        buffer = buffer.view
    if not isinstance(buffer, (bytes, memoryview)) or not isinstance(dtype, _DType):
        raise ProtocolError(f"refused an array of {shown(dtype)} over a {type(buffer).__name__}")
    if not _is(order, "C", "F"):
        raise ProtocolError(f"refused an array in the order {shown(order)}")
    if not isinstance(shape, tuple) or len(shape) > MAX_NDIM:
        raise ProtocolError(f"refused an array of shape {shown(shape)}")
    if not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise ProtocolError(f"refused an array of shape {shown(shape)}")
    if math.prod(shape) * dtype.dtype.itemsize != len(buffer):
        raise ProtocolError(
            f"refused an array of shape {shown(shape)} and dtype {dtype.dtype} over "
            f"{len(buffer)} bytes: it takes {math.prod(shape) * dtype.dtype.itemsize}"
        )
    if dtype.dtype.kind == "b" and np.any(np.frombuffer(buffer, np.uint8) > 1):
        raise ProtocolError("refused an array of bool that holds neither 0 nor 1")
    try:
        flat = np.frombuffer(buffer, dtype.dtype) if len(buffer) else np.empty(0, dtype.dtype)
        # In the byte order of this machine, writable, and not holding on to the packet.
        return np.array(
            flat.reshape(shape, order="F" if order == "F" else "C"), dtype.dtype.newbyteorder("=")
        )
    except ValueError as error:
        raise ProtocolError(f"refused an array of shape {shown(shape)}: {error}") from None


def _dtype(arguments: tuple) -> _DType:
    text, rest = arguments[0] if arguments else None, arguments[1:]
    if not isinstance(text, str) or text[:1] not in tuple("biufc") or not text[1:].isascii():
        raise ProtocolError(f"refused the dtype {shown(text)}: kinds b, i, u, f and c only")
    plain = len(rest) == 2 and _is(rest[0], False, 0) and _is(rest[1], True, 1)
    if len(text) > 3 or not text[1:].isdigit() or not plain:
        raise ProtocolError(f"refused the dtype {shown(arguments)}")
    try:
        return _DType(np.dtype(text))
    except TypeError:
        raise ProtocolError(f"refused the dtype {shown(text)}: NumPy knows none") from None


def _frombuffer(arguments: tuple) -> np.ndarray:
    if len(arguments) != 4:
        raise ProtocolError(f"refused an array from {len(arguments)} arguments, not 4")
    return _make_array(*arguments)


def _reconstruct(arguments: tuple) -> _Array:
    # Whatever shape is asked for here, what counts is the one that BUILD brings with the data.
    if len(arguments) != 3 or arguments[0] is not _NDARRAY or not isinstance(arguments[1], tuple):
        raise ProtocolError(f"refused _reconstruct of {shown(arguments)}")
    return _Array()


def _encode(arguments: tuple) -> bytes:
    """Bytes as protocol 2 writes them: a string, and "latin1"."""
    if len(arguments) != 2 or type(arguments[0]) is not str or not _is(arguments[1], "latin1"):
        raise ProtocolError(f"refused _codecs.encode of {shown(arguments)}")
    try:
        return arguments[0].encode("latin1")
    except UnicodeEncodeError:
        raise ProtocolError("refused bytes beyond latin1") from None


def _empty_bytes(arguments: tuple) -> bytes:
    if arguments:
        raise ProtocolError(f"refused bytes of {shown(arguments)}")
    return b""


_NDARRAY = _Name("numpy.ndarray")
_NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name("numpy.dtype", _dtype),
    ("_codecs", "encode"): _Name("_codecs.encode", _encode),
    ("__builtin__", "bytes"): _Name("bytes", _empty_bytes),
} | {
    (f"numpy.{core}.{module}", function): _Name(f"numpy.{core}.{module}.{function}", construct)
    for core in ("_core", "core")  # as NumPy 2 and NumPy 1 spell it
    for module, function, construct in (
        ("numeric", "_frombuffer", _frombuffer),
        ("multiarray", "_reconstruct", _reconstruct),
    )
}

_OPCODE_NAMES = {
    value: name
    for name, value in vars(pickle).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
}


class _Machine:
    """Runs the opcodes of one payload. Raises `ProtocolError` for all that is not allowed."""

    def __init__(self, payload: memoryview):
        self._payload, self._at = payload, 0
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    def run(self) -> object:
        """The object that the payload holds, with arrays and names still as tokens."""
        payload, size = self._payload, len(self._payload)
        for _ in range(MAX_OPCODES):
            if self._at >= size:
                raise ProtocolError("refused a pickle that does not end")
            opcode = payload[self._at]
            self._at += 1
            handler, reader, counted = _OPCODES[opcode]
            if handler is None:
                return self._finish()
            if reader is None:
                handler(self)
                continue
            if self._at + reader.size > size:
                raise ProtocolError("refused a pickle that ends within an opcode")
            (argument,) = reader.unpack_from(payload, self._at)
            self._at += reader.size
            handler(self, self._take(argument) if counted else argument)
        raise ProtocolError(f"refused a pickle of more than {MAX_OPCODES} opcodes")

    def _finish(self) -> object:
        value = self._pop()
        if self._stack or self._at != len(self._payload):
            raise ProtocolError("refused a pickle with something left over at its end")
        return value

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._payload):
            raise ProtocolError(
                f"refused a pickle that declares {size} bytes where "
                f"{len(self._payload) - self._at} are left"
            )
        taken, self._at = self._payload[self._at : end], end
        return taken

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ProtocolError("refused a pickle that takes from an empty stack")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self._stack:
            item = self._stack.pop()
            if item is _MARK:
                items.reverse()
                return items
            items.append(item)
        raise ProtocolError("refused a pickle that looks for a mark that it has not set")

    def _container(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise ProtocolError(f"refused a pickle that fills a {kind.__name__} that is not there")
        return self._stack[-1]

    # Each of these is one opcode, or several that differ in the width of the argument.

    def _proto(self, version: int) -> None:
        if self._at != 2 or not 2 <= version <= 5:
            raise ProtocolError(f"refused pickle protocol {version}: 2 to 5 are understood")

    def _frame(self, size: int) -> None:
        if size > len(self._payload) - self._at:
            raise ProtocolError(f"refused a frame that declares {size} bytes, more than are left")

    def _long(self, data: memoryview) -> None:
        if len(data) > MAX_INT_BYTES:
            raise ProtocolError(f"refused an int of {len(data)} bytes: at most {MAX_INT_BYTES}")
        self._push(int.from_bytes(data, "little", signed=True))

    def _text(self, data: memoryview) -> None:
        try:
            self._push(str(data, "utf-8"))
        except UnicodeDecodeError as error:
            raise ProtocolError(f"refused text that is not UTF-8: {error.reason}") from None

    def _bytes(self, data: memoryview) -> None:
        self._push(bytes(data))

    def _bytearray(self, data: memoryview) -> None:
        self._push(_Buffer(data))

    def _tuple_of(self, size: int) -> None:
        self._push(tuple([self._pop() for _ in range(size)][::-1]))

    def _tuple(self) -> None:
        self._push(tuple(self._pop_to_mark()))

    def _append(self) -> None:
        value = self._pop()
        self._container(list).append(value)

    def _appends(self) -> None:
        values = self._pop_to_mark()
        self._container(list).extend(values)

    def _set(self, items: list[Any]) -> None:
        target = self._container(dict)
        if len(items) % 2:
            raise ProtocolError("refused a pickle with a key that has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only text: the hashes of numbers can be made to collide, those of tuples to hang.
            if type(key) is not str:
                raise ProtocolError(f"refused a dict with a key of type {type(key).__name__}")
            target[key] = value

    def _setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self._pop_to_mark())

    def _put(self, index: int) -> None:
        # Every pickler counts up from 0, so an index beyond is an attack on the memory.
        if index > len(self._memo):
            raise ProtocolError(f"refused the memo index {index}: {len(self._memo)} are in use")
        value = self._pop()
        self._push(value)
        if index == len(self._memo):
            self._memo.append(value)
        else:
            self._memo[index] = value

    def _memoize(self) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        if index >= len(self._memo):
            raise ProtocolError(f"refused the memo index {index}: {len(self._memo)} are in use")
        self._push(self._memo[index])

    def _global(self) -> None:
        lines = []
        for _ in range(2):
            rest = bytes(self._payload[self._at : self._at + 100])
            line, newline, _ = rest.partition(b"\n")
            if not newline:
                raise ProtocolError(f"refused the name {shown(line)}")
            self._at += len(line) + 1
            lines.append(line.decode("ascii", "backslashreplace"))
        self._name(*lines)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _name(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str or (module, name) not in _NAMES:
            raise ProtocolError(f"refused the name {shown(module)} {shown(name)}")
        self._push(_NAMES[module, name])

    def _reduce(self) -> None:
        arguments, called = self._pop(), self._pop()
        if type(called) is not _Name or called.construct is None or type(arguments) is not tuple:
            raise ProtocolError(f"refused a call of {_kind(called)}")
        self._push(called.construct(arguments))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, (_DType, _Array)):
            raise ProtocolError(f"refused to set the state of {_kind(target)}")
        target.build(state)
        self._push(target)


def _kind(value: object) -> str:
    return value.name if isinstance(value, _Name) else kind_of(value)


def _refuser(opcode: int) -> Callable[[_Machine], None]:
    name = _OPCODE_NAMES.get(bytes([opcode]), f"0x{opcode:02x}")

    def refuse(machine: _Machine) -> None:
        raise ProtocolError(f"refused the opcode {name}")

    return refuse


_U1, _U2, _U4, _U8 = (struct.Struct(f"<{size}") for size in "BHIQ")

# Opcodes without an argument; with a number; with a number of bytes, and then these.
_SIMPLE: dict[bytes, Callable[[_Machine], object]] = {
    pickle.MARK: lambda machine: machine._push(_MARK),
    pickle.POP: _Machine._pop,
    pickle.POP_MARK: _Machine._pop_to_mark,
    pickle.NONE: lambda machine: machine._push(None),
    pickle.NEWTRUE: lambda machine: machine._push(True),
    pickle.NEWFALSE: lambda machine: machine._push(False),
    pickle.EMPTY_DICT: lambda machine: machine._push({}),
    pickle.EMPTY_LIST: lambda machine: machine._push([]),
    pickle.EMPTY_TUPLE: lambda machine: machine._push(()),
    pickle.TUPLE: _Machine._tuple,
    pickle.TUPLE1: lambda machine: machine._tuple_of(1),
    pickle.TUPLE2: lambda machine: machine._tuple_of(2),
    pickle.TUPLE3: lambda machine: machine._tuple_of(3),
    pickle.APPEND: _Machine._append,
    pickle.APPENDS: _Machine._appends,
    pickle.SETITEM: _Machine._setitem,
    pickle.SETITEMS: _Machine._setitems,
    pickle.MEMOIZE: _Machine._memoize,
    pickle.GLOBAL: _Machine._global,
    pickle.STACK_GLOBAL: _Machine._stack_global,
    pickle.REDUCE: _Machine._reduce,
    pickle.BUILD: _Machine._build,
}
_NUMBERED: dict[bytes, tuple[Callable[..., None], struct.Struct]] = {
    pickle.PROTO: (_Machine._proto, _U1),
    pickle.FRAME: (_Machine._frame, _U8),
    pickle.BININT: (_Machine._push, struct.Struct("<i")),
    pickle.BININT1: (_Machine._push, _U1),
    pickle.BININT2: (_Machine._push, _U2),
    pickle.BINFLOAT: (_Machine._push, struct.Struct(">d")),
    pickle.BINPUT: (_Machine._put, _U1),
    pickle.LONG_BINPUT: (_Machine._put, _U4),
    pickle.BINGET: (_Machine._get, _U1),
    pickle.LONG_BINGET: (_Machine._get, _U4),
}
_COUNTED: dict[bytes, tuple[Callable[..., None], struct.Struct]] = {
    pickle.LONG1: (_Machine._long, _U1),
    pickle.SHORT_BINUNICODE: (_Machine._text, _U1),
    pickle.BINUNICODE: (_Machine._text, _U4),
    pickle.BINUNICODE8: (_Machine._text, _U8),
    pickle.SHORT_BINBYTES: (_Machine._bytes, _U1),
    pickle.BINBYTES: (_Machine._bytes, _U4),
    pickle.BINBYTES8: (_Machine._bytes, _U8),
    pickle.BYTEARRAY8: (_Machine._bytearray, _U8),
}

# For each byte: what runs it (None at the end), what reads its number, and whether that counts.
_OPCODES: list[tuple[Callable[..., object] | None, struct.Struct | None, bool]] = [
    (_refuser(opcode), None, False) for opcode in range(256)
]
for _opcode, _run in _SIMPLE.items():
    _OPCODES[_opcode[0]] = (_run, None, False)
for _opcode, (_run, _reader) in _NUMBERED.items():
    _OPCODES[_opcode[0]] = (_run, _reader, False)
for _opcode, (_run, _reader) in _COUNTED.items():
    _OPCODES[_opcode[0]] = (_run, _reader, True)
_OPCODES[pickle.STOP[0]] = (None, None, False)


class _Plain:
    """Copies a value into plain containers and contiguous arrays, or raises."""

    def __init__(self) -> None:
        self._count = 0

    def copy(self, value: object, depth: int = 0) -> Any:
        self._count += 1
        if self._count > MAX_ITEMS:
            raise ProtocolError(f"refused a packet of more than {MAX_ITEMS} values")
        if depth > MAX_DEPTH:
            raise ProtocolError(f"refused a packet nested deeper than {MAX_DEPTH}")
        if type(value) is dict:
            return {self._key(key): self.copy(item, depth + 1) for key, item in value.items()}
        if type(value) is list:
            return [self.copy(item, depth + 1) for item in value]
        if type(value) is tuple:
            return tuple([self.copy(item, depth + 1) for item in value])
        if type(value) is int and value.bit_length() >= 8 * MAX_INT_BYTES:
            raise ProtocolError(f"refused an int of {value.bit_length()} bits")
        if type(value) is _Array and value.array is not None:
            return value.array
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return np.asarray(value, order="C")
        if value is None or type(value) in (str, bytes, bool, int, float):
            return value
        raise ProtocolError(f"refused {_kind(value)} in a packet")

    def _key(self, key: object) -> str:
        if type(key) is not str:
            raise ProtocolError(f"refused a dict with a key of type {type(key).__name__}")
        return key

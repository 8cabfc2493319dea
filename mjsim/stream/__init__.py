"""Stream the state of a simulation over TCP to viewers that come and go, without waiting for them.

The sending half, in the thread of the simulation:

    with StreamServer(spec, host="127.0.0.1", port=7000, wait=0) as server:  # start()
        while running:
            mujoco.mj_step(mjm, mjd)
            if server.due():  # next to nothing; send_state asks the same
                server.send_state(mjd)
    # close(): every viewer gets the newest state and `close`

The receiving half:

    client = StreamClient.connect(host, port, token=token)  # OSError, ProtocolError
    for packet in client.drain(timeout=0.1):  # ConnectionError, ProtocolError
        if packet["kind"] in MODEL_KINDS:
            mjm = load_model(packet)  # ProtocolError
        elif packet["kind"] == "state":
            apply_mjdata(mjd, packet["state"])  # ProtocolError
        elif packet["kind"] == "close":
            ...
    client.close()

`packets.py` says what a packet is on the wire, README.md what each kind of it holds. Beyond the
keys that every server sends, a model packet has `run` (an id of the run), `assets`, `about` (what
runs, as a dict of texts) and `nworld`; a state packet has `run`, `step`, `sent` (Unix time in s at
which the state was taken), `world`, and where it is known `step_seconds` (what a step takes).

A viewer may send `{"kind": "world", "world": int}` to see another world; all viewers see the same.
Where the model packet has `asks`: "ready", it sends `{"kind": "ready"}` when the model has come, so
that the server knows that somebody reads.

With a token set, the server first sends `{"kind": "challenge", "algorithm": "hmac-sha256",
"nonce": bytes}`, and the viewer answers with `{"kind": "response", "digest": bytes}`: the
HMAC-SHA256 of the nonce with the UTF-8 text of the token as its key, 32 bytes.

Importing this loads MuJoCo and NumPy, and neither Warp nor OpenGL.
"""

from mjsim.choices import MODEL_MODES
from mjsim.errors import ProtocolError
from mjsim.state import State, apply_mjdata, pack_mjdata
from mjsim.stream.bundle import MODEL_KINDS, Model, load_model, model_packet
from mjsim.stream.client import StreamClient
from mjsim.stream.mailbox import Counters
from mjsim.stream.packets import DEFAULT_LIMIT, Packet, decode_payload, encode_packet
from mjsim.stream.server import StreamError, StreamServer
from mjsim.stream.sockets import recv_packet, send_packet

__all__ = [
    "DEFAULT_LIMIT",
    "MODEL_KINDS",
    "MODEL_MODES",
    "Counters",
    "Model",
    "Packet",
    "ProtocolError",
    "State",
    "StreamClient",
    "StreamError",
    "StreamServer",
    "apply_mjdata",
    "decode_payload",
    "encode_packet",
    "load_model",
    "model_packet",
    "pack_mjdata",
    "recv_packet",
    "send_packet",
]

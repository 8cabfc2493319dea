"""Stream the state of a simulation over TCP to viewers that come and go, without waiting for them.

The sending half, in the thread of the simulation:

    with StreamServer(model_path="scene.xml", host="127.0.0.1", port=7000) as server:  # start()
        while running:
            mujoco.mj_step(mjm, mjd)
            if server.due():  # next to nothing; send_state asks the same
                server.send_state(mjd)
    # stop_connection(): every viewer gets what is due to it and `close`

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

`protocol.py` says what the packets look like. Beyond the documented keys a model packet has `run`
(an id of the run), `assets`, `about` (what runs, as a dict of texts) and `nworld`; a state packet
has `run`, `step`, `sent` (Unix time in s at which the state was taken), `world`, and where it is
known `step_seconds` (what a step takes).

A viewer may send `{"kind": "world", "world": int}` to see another world; all viewers see the same.
Where the model packet has `asks`: "ready", it sends `{"kind": "ready"}` when the model has come, so
that the server knows that somebody reads.

With a token set, the server first sends `{"kind": "challenge", "algorithm": "hmac-sha256",
"nonce": bytes}`, and the viewer answers with `{"kind": "response", "digest": bytes}`: the
HMAC-SHA256 of the nonce with the UTF-8 text of the token as its key, 32 bytes.

One thread does all the I/O, whatever the number of viewers. The simulation leaves the newest
state in a slot; the thread encodes it once, and hands it to a viewer when that viewer's socket has
next to nothing left to send (TCP_NOTSENT_LOWAT), so that neither we nor the kernel hold a queue of
old states. Model and close packets have a queue of their own and are never dropped.
"""

from mjsim.choices import MODEL_MODES
from mjsim.stream.bundle import MODEL_KINDS, load_model, model_packet
from mjsim.stream.server import (
    StreamClient,
    StreamError,
    StreamServer,
    recv_packet,
    send_packet,
)
from mjsim.stream.unpickle import (
    DEFAULT_LIMIT,
    ProtocolError,
    apply_mjdata,
    decode_payload,
    encode_packet,
    pack_mjdata,
)

__all__ = [
    "DEFAULT_LIMIT",
    "MODEL_KINDS",
    "MODEL_MODES",
    "ProtocolError",
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

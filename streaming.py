"""The documented names of the stream for programs that run in this folder; see `mjsim.stream`."""

from mjsim.stream import DEFAULT_LIMIT as DEFAULT_LIMIT
from mjsim.stream import MODEL_KINDS as MODEL_KINDS
from mjsim.stream import MODEL_MODES as MODEL_MODES
from mjsim.stream import ProtocolError as ProtocolError
from mjsim.stream import StreamClient as StreamClient
from mjsim.stream import StreamError as StreamError
from mjsim.stream import StreamServer as StreamServer
from mjsim.stream import apply_mjdata as apply_mjdata
from mjsim.stream import decode_payload as decode_payload
from mjsim.stream import encode_packet as encode_packet
from mjsim.stream import load_model as load_model
from mjsim.stream import model_packet as model_packet
from mjsim.stream import pack_mjdata as pack_mjdata
from mjsim.stream import recv_packet as recv_packet
from mjsim.stream import send_packet as send_packet

"""How many threads share work of which there may be less than room, as contacts and rows.

A kernel strides over what there is:

    for conid in range(wp.tid(), wp.min(nacon_in[0], naconmax), nthread):
"""

from comfree_warp.types import Data


def nthread_for(d: Data, most: int) -> int:
    """Threads for up to `most` items: one each on a GPU.

    On the CPU one for all. Threads run one after the other there, and one with nothing to do clears
    its local vectors all the same: 5 to 20 ns, a quarter of what a contact costs.
    """
    return min(most, 1) if d.qpos.device.is_cpu else most

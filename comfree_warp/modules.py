"""Warp modules that are made while a program runs."""

import warp as wp


def name_by_content(module: wp.Module) -> None:
    """Give a module of the CPU a name that goes with what is in it, the same in every process.

    Warp finds what it loaded on a CPU by the module's name alone: of two with one name it runs the
    first for both.
    """
    module.name = module.get_module_identifier(block_dim=1).removeprefix("wp_")

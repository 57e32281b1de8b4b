"""Beginning with the weights of another learner."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from whatwhere.core import InputError

HEAD = "head"
"""The part of a module whose tensors have a row for each class."""


class Start(NamedTuple):
    """What a fitted learner knew.

    Attributes
    ----------
    state : mapping of str to Tensor
        Its weights and buffers, by name.
    classes : sequence
        What each row of its class layer stands for.
    """

    state: Mapping[str, Tensor]
    classes: Sequence[Any]


def begin(own: Mapping[str, Tensor], classes: Sequence[Any], start: Start) -> None:
    """Copy what `start` knew into the tensors of a fresh module, in place.

    The parts of a module are its children; the first word of a tensor's name says in which it is.
    A part that both have is copied whole. Of the class layer, `HEAD`, the rows of the classes that
    both know are; the others stay fresh. So does a part that only the new module has, and one that
    only the old one had is left out.

    Parameters
    ----------
    own : mapping of str to Tensor
        The state of the fresh module.
    classes : sequence
        What each row of its class layer stands for.
    start : Start

    Raises
    ------
    InputError
        If there is no part in common, or one is of another kind; nothing is copied then.
    """
    ours, theirs = (list(dict.fromkeys(map(part_of, state))) for state in (own, start.state))
    parts = [part for part in ours if part in theirs]
    if not parts:
        raise InputError(
            f"the weights to start from ({', '.join(theirs)}) have no part in common with these "
            f"({', '.join(ours)}); start from a model of this kind"
        )
    # The class layer last: where it does not fit, what is below it may tell why.
    parts.sort(key=lambda part: part == HEAD)
    both = {**own, **start.state}
    names = [name for part in parts for name in both if part_of(name) == part]
    for name in names:
        here, there = _shape(own.get(name)), _shape(start.state.get(name))
        rows = int(part_of(name) == HEAD)
        if here is None or there is None or here[rows:] != there[rows:]:
            one, other = ("missing" if shape is None else shape for shape in (there, here))
            raise InputError(
                f"the weights to start from are of another net: {name} is {one} there and {other} "
                "here; give the architecture and batch_norm, and images of the size, that they "
                "were trained with"
            )
    former = {label: row for row, label in enumerate(start.classes)}
    shared = [(row, former[label]) for row, label in enumerate(classes) if label in former]
    to, of = [row for row, _ in shared], [row for _, row in shared]
    with torch.no_grad():
        for name in names:
            value = start.state[name].to(own[name].device)
            if part_of(name) == HEAD:
                own[name][to] = value[of]
            else:
                own[name].copy_(value)


def part_of(name: str) -> str:
    """Return the part of a module that a tensor of this name is in."""
    return name.partition(".")[0]


def _shape(value: Tensor | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value.shape)

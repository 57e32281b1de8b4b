"""A second device that every machine has: its numbers lie in the memory of the host, marked as far.

What computes with far and near tensors at once is refused, as a GPU refuses it, and each copy from
one side to the other is counted, for there the host waits. The device has a random stream of its
own. So the code can be tried for a GPU without one; only kernels and speed are not.

Setting it up changes torch for the whole process: it is for processes that do nothing else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record

NAME = "far"
MOVES = ("_to_copy", "copy_")
SHAPED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero")
READ = "read on the host"


class Counter:
    """Counts what the host waits for while it is counting."""

    def __init__(self) -> None:
        self.counting = False
        self.found: list[str] = []

    def note(self, what: str) -> None:
        """Note what the host waits for."""
        if self.counting:
            self.found.append(what)


waits = Counter()


class Far(Tensor):
    """A tensor on the device; `host` holds its numbers."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> "Far":
        make: Any = Tensor._make_wrapper_subclass
        made = make(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=torch.device(NAME, 0),
        )
        made.host = host
        return made

    def __init__(self, host: Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:  # torch does not read a subclass, as it reads a GPU's tensor
        waits.note(READ)
        return on_host(self.detach()).tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return on_host(self.detach()).__reduce_ex__(protocol)  # files hold it as the host does


def on_host(each: Any) -> Any:
    """Return the numbers of a far tensor; of anything else, itself."""
    return each.host if isinstance(each, Far) else each


class Everywhere(TorchDispatchMode):
    """Sees what makes tensors, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on the host, and mark its result as far where it is."""
    name = func.overloadpacket.__name__
    tensors = [each for each in tree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    far = [each for each in tensors if isinstance(each, Far)]
    near = [each for each in tensors if not isinstance(each, Far)]
    asked = kwargs.get("device")
    is_far = bool(far) if asked is None else torch.device(asked).type == NAME
    if name == "copy_":
        is_far = isinstance(args[0], Far)
    if name in MOVES:
        if far and not is_far:
            waits.note(READ)
        # A single number travels with the call that uses it.
        elif is_far and any(each.ndim for each in near):
            waits.note("copied to the device")
    elif far and any(each.ndim for each in near):
        shapes = [tuple(each.shape) for each in near if each.ndim]
        raise RuntimeError(f"{func}: tensors of {shapes} are on the host, others on the device")
    masked = name.startswith("index") and any(
        isinstance(each, Far) and each.dtype == torch.bool for each in tree.tree_leaves(args[1:])
    )
    if far and (name == "_local_scalar_dense" or name in SHAPED_BY_VALUES or masked):
        waits.note(READ)

    given, options = tree.tree_map(on_host, args), tree.tree_map(on_host, kwargs)
    if asked is not None:
        options["device"] = torch.device("cpu")
    draws = is_far and torch.Tag.nondeterministic_seeded in func.tags
    with stream.in_use() if draws else nullcontext():
        found = func(*given, **options)
    if not is_far:
        return found
    found = tree.tree_map(lambda each: Far(each) if isinstance(each, Tensor) else each, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if far else found


class Stream:
    """The device's random stream."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(17)  # not the host's

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the host's generator draw from it."""
        kept = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(kept)


stream = Stream()


class Module:
    """What ``torch.far`` is: what torch asks of a device."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]

    @staticmethod
    def manual_seed(seed: int) -> None:
        stream.generator.manual_seed(seed)

    manual_seed_all = manual_seed

    @staticmethod
    def get_rng_state(device: Any = None) -> Tensor:
        return stream.generator.get_state()

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = None) -> None:
        stream.generator.set_state(state)


class Accelerator(CPUAccelerator):
    """Takes any device."""

    def setup_device(self, device: torch.device) -> None:
        """Do nothing."""


def set_up() -> None:
    """Give torch the device."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    # Parameters keep their identity when they are moved, as they do to a GPU.
    torch.__future__.set_swap_module_params_on_conversion(True)
    internal: Any = torch._C
    internal._set_only_lift_cpu_tensors(True)  # what torch.tensor makes is seen on its way there
    public: Any = torch
    generator = torch.Generator

    def made(device: Any = "cpu") -> torch.Generator:
        return generator()  # for torch has none for a device that is written in Python

    public.Generator = made


def fabric() -> Fabric:
    """Return a Fabric on the device."""
    device = torch.device(NAME, 0)
    return Fabric(strategy=SingleDeviceStrategy(device=device, accelerator=Accelerator()))


class Within:
    """A watcher that lets the counter count from the first step of each epoch to its last."""

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Do nothing."""

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Count until the last step begins."""
        waits.counting = place.step < n_steps

    def epoch(self, record: Record) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Count no more."""
        waits.counting = False

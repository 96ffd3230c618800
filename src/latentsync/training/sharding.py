"""Weights, gradients and optimizer spread over processes: FSDP2, through Lightning."""

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


class ShardedStrategy(ModelParallelStrategy):
    """Every process holds its share of the weights and sees its share of the batch.

    Checkpoints are of one file, as those of one process are, and interchangeable with them.
    """

    def __init__(self) -> None:
        super().__init__(
            data_parallel_size="auto", tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def setup_environment(self) -> None:
        # Lightning's "auto" is the number of nodes, for models that are split within one.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(net: nn.Module, mesh: DeviceMesh, *, smallest: int = 1_000_000) -> None:
    """Spread a network in place; blocks of `smallest` parameters and more are gathered one by one.

    A block here is the outermost module below `net` that is no list of modules, so that what is
    called at once is gathered at once.
    """
    for block in _blocks(net):
        if sum(value.numel() for value in block.parameters()) >= smallest:
            fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def _blocks(net: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in net.children():
        found += _blocks(child) if isinstance(child, nn.ModuleList) else [child]
    return found


def whole_state(net: nn.Module) -> dict[str, Tensor]:
    """All weights of a network that may be spread, on the CPU; every process must ask."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(net, options=options)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}

"""Sharded weights, gradients and optimizer state: FSDP2 through Lightning."""

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


class ShardedStrategy(ModelParallelStrategy):
    """Every process holds a shard of the weights and gets its share of the batch.

    Checkpoints are single files, interchangeable with those of unsharded runs.
    """

    def __init__(self) -> None:
        super().__init__(
            data_parallel_size="auto", tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def setup_environment(self) -> None:
        # Lightning's "auto" is the number of nodes, for models split within a node.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(net: nn.Module, mesh: DeviceMesh, *, smallest: int = 1_000_000) -> None:
    """Shard a network in place; blocks with at least `smallest` parameters are gathered separately.

    A block is an outermost submodule of `net` that is not a ModuleList, so that what is called as
    one unit is gathered as one.
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
    """All weights of a possibly sharded network, on the CPU; must be called in every process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(net, options=options)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}

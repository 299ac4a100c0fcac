"""Does a training step behind DistributedDataParallel give the gradients of the bare network, on gloo and on NCCL?

A group of one process: NCCL takes one process per GPU, so this is what a machine with a single one can show.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from qdml.distributed import Launch, Processes
from qdml.models.allconv import AllConv
from qdml.preprocess import NetworkInput


@pytest.fixture(
    params=[pytest.param("cpu", id="gloo"), pytest.param("cuda", id="nccl", marks=pytest.mark.gpu("torch"))]
)
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    device = torch.device(request.param)
    backend = {"cpu": "gloo", "cuda": "nccl"}[request.param]
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    # world=2: wrap() leaves DDP out for one process.
    yield Processes(Launch(rank=0, world=2, local_rank=0, local_world=1), device)
    dist.destroy_process_group()


def _gradients(
    model: torch.nn.Module, x: torch.Tensor, truth: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = model(NetworkInput(pattern=x, noise=torch.zeros_like(x[:, 0]), conditions=x[:, 0, :7]))
        loss = sum(torch.nn.functional.cross_entropy(head.float(), truth) for head in logits.values())
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


# Against float32. A product in bfloat16 (8 bits) is off by up to 0.4 %, a gradient of six layers by several times that.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)], ids=str)
def test_gradients(processes: Processes, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model = AllConv({"diameter": 17, "sigma": 4}, channels=1, n_q=1200, filters=32, kernels=[10, 5, 4, 3, 2])
    model = model.to(processes.device)
    x = torch.rand(64, 1, 1200, device=processes.device)
    truth = torch.arange(64, device=processes.device) % 4
    expected = _gradients(model, x, truth, torch.float32)
    got = _gradients(processes.wrap(model), x, truth, dtype)
    assert (got - expected).norm() <= tolerance * expected.norm()
    assert torch.isfinite(got).all()

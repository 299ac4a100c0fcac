"""Who moves which weight, how fast in which step, and that a saved state goes on bit by bit."""

from pathlib import Path

import pytest
import torch

from qdml.checkpoint import ModelFolder
from qdml.config import AdamConfig, MuonConfig
from qdml.optimizers import build_optimizers, learning_rate, set_progress

MUON = MuonConfig(
    name="muon",
    matrix_learning_rate=0.02,
    matrix_weight_decay=0.01,
    momentum=0.95,
    iterations=5,
    learning_rate=1e-3,
    weight_decay=0.01,
    schedule="cosine",
    warmup=10,
    clip=1.0,
    label_width=0.0,
)
ADAM = AdamConfig(
    name="adamw",
    learning_rate=1e-3,
    weight_decay=0.0,
    schedule="cosine",
    warmup=10,
    clip=None,
    label_width=0.0,
)


class Network(torch.nn.Module):
    """A matrix between hidden layers, one at the end, biases, and a fixed tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)
        self.fixed = torch.nn.Parameter(torch.ones(6), requires_grad=False)

    def matrices(self) -> list[torch.Tensor]:
        return [self.hidden.weight]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.hidden(x * self.fixed)))


def learn(network: Network, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
    for step in steps:
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        network(x).square().sum().backward()
        set_progress(optimizers, MUON, step, 40)
        for optimizer in optimizers:
            optimizer.step()


def test_every_weight_has_one_optimiser() -> None:
    network = Network()
    muon, rest = build_optimizers(MUON, network)
    names = {id(weight): name for name, weight in network.named_parameters()}
    moved = [[names[id(w)] for group in o.param_groups for w in group["params"]] for o in (muon, rest)]
    assert moved == [["hidden.weight"], ["hidden.bias", "head.weight", "head.bias"]]
    (only,) = build_optimizers(ADAM, network)
    assert len(only.param_groups[0]["params"]) == 4


def test_a_network_without_matrices() -> None:
    with pytest.raises(ValueError, match="optim=muon is for networks with matrices between hidden layers"):
        build_optimizers(MUON, torch.nn.Linear(2, 2))


def test_rates_warm_up_and_fall_to_zero_together() -> None:
    optimizers = build_optimizers(MUON, Network())
    assert learning_rate(MUON, 0, 110) == pytest.approx(1e-4)
    assert learning_rate(MUON, 10, 110) == pytest.approx(1e-3)
    assert learning_rate(MUON, 60, 110) == pytest.approx(5e-4)
    assert learning_rate(MUON, 109, 110) < 1e-6
    set_progress(optimizers, MUON, 60, 110)
    assert [o.param_groups[0]["lr"] for o in optimizers] == pytest.approx([0.01, 5e-4])


def test_muon_moves_a_matrix_by_an_orthogonal_one() -> None:
    """All singular values of the first update are about the learning rate, whatever those of the gradient are."""
    network = Network()
    muon = build_optimizers(MUON, network)[0]
    before = network.hidden.weight.detach().clone()
    network.hidden.weight.grad = torch.diag(torch.tensor([1.0, 1.0, 0.5, 0.2, 0.1, 0.1]))
    muon.step()
    update = network.hidden.weight.detach() - before * (1 - 0.02 * 0.01)
    # Five Newton-Schulz steps leave them between 0.6 and 1.3.
    assert torch.linalg.svdvals(update) == pytest.approx(0.02, rel=0.45)


def test_both_states_come_back_bit_by_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network()
    optimizers = build_optimizers(MUON, network)
    learn(network, optimizers, range(20))
    folder = ModelFolder(tmp_path)
    folder.save_state(network, optimizers, {"step": 20})
    learn(network, optimizers, range(20, 40))

    other = Network()
    others = build_optimizers(MUON, other)
    assert folder.load_state(other, others) == {"step": 20}
    learn(other, others, range(20, 40))
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)

"""The first loss or gradient that is not finite is found late, and named rightly."""

import pytest
import torch

from qdml.dataset import Rows
from qdml.distributed import join_processes
from qdml.finite import FiniteRecord


def rows_of(step: int, lane: int) -> Rows:
    """Dots whose diameter says where they are from."""
    n = torch.arange(4, dtype=torch.float64)
    return Rows(
        variant=torch.zeros(4, dtype=torch.int64),
        diameter=100 * step + 10 * lane + n,
        sigma=0.1 + 0 * n,
        strain=0.001 + 0 * n,
        b_scale=1 + 0 * n,
    )


def losses(**bad: float) -> torch.Tensor:
    """(2 lanes, 4 rows); bad entries as l0r2=nan."""
    values = torch.ones(2, 4)
    for where, value in bad.items():
        values[int(where[1]), int(where[3])] = value
    return values


def record(*entries: tuple[int, torch.Tensor, float]) -> FiniteRecord:
    kept = FiniteRecord([1, 5], steps=3, device=torch.device("cpu"))
    for step, values, norm in entries:
        kept.add(step, values, torch.tensor(norm))
    return kept


def test_finite_losses_pass_and_empty_the_record() -> None:
    kept = record((0, losses(), 1.0), (1, losses(), 2.0), (2, losses(), 3.0))
    assert kept.full
    with join_processes("cpu") as processes:
        kept.check(processes, rows_of)
        assert not kept.full
        kept.check(processes, rows_of)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_row_is_described(value: float) -> None:
    kept = record(
        (7, losses(), 1.0),
        (8, losses(l1r2=value, l1r3=value), float("nan")),
        (9, losses(l0r0=value), float("nan")),
    )
    with (
        join_processes("cpu") as processes,
        pytest.raises(
            ValueError,
            match="the loss of step 8 is not finite, first in lane 5 for the dot of variant 0, D = 852 nm, σ = 0.1, "
            "ε = 0.001, b_scale = 1",
        ),
    ):
        kept.check(processes, rows_of)


def test_a_gradient_alone() -> None:
    kept = record((7, losses(), 1.0), (8, losses(), float("inf")))
    with (
        join_processes("cpu") as processes,
        pytest.raises(ValueError, match="the gradient of step 8 is not finite, although the losses are"),
    ):
        kept.check(processes, rows_of)

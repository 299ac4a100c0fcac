"""Dual tensors and stages: derivatives against those of torch, and of inputs that share unknowns."""

import pytest
import torch
from torch.func import jvp

from qdml.augmentation.stages import Stages
from qdml.limits.duals import derivative
from qdml.limits.slopes import Slopes, Traced

X = torch.linspace(0.2, 1.7, 12, dtype=torch.float64).reshape(3, 4)
C = torch.linspace(0.5, -0.4, 12, dtype=torch.float64).reshape(3, 4)
FUNCTIONS = {
    "sums": lambda x: 2 - x + C - (x - C) + torch.add(x, x, alpha=3) + C.add(x, alpha=2) + x[:, :1],
    "products": lambda x: 3 * x * C * x @ C.T,
    "quotients": lambda x: 1 / x + x / C + C / x + x / x.sum(dim=1, keepdim=True),
    "powers": lambda x: x**-2 + x.square() + x.sqrt() + x**3,
    "functions": lambda x: x.exp() + x.log() + torch.log1p(x) + x.sin() + x.cos() + torch.erfc(x) + x.tan(),
    "softmax": lambda x: torch.softmax(3 * x, dim=1) * C,
    "limits": lambda x: x.clamp(min=0.5, max=1.5) + torch.maximum(x, C + 0.5) + torch.where(x > 1, x, C),
    "addcmul": lambda x: C.addcmul(x, C) + x.addcmul(C, x, value=-2) + x.addcmul(C, C),
    "joined": lambda x: torch.cat([x, C], dim=1)[:, :4] * torch.stack([C, x]).sum(dim=0),
    "shapes": lambda x: x.unflatten(1, (2, 2)).flatten(1) * C + x.expand(2, 3, 4).mean(dim=0),
    "pieces": lambda x: x.split(1, dim=1)[2] * x.index_select(1, torch.tensor([3, 0])) + x.mT[:1].mT[:, [0]],
    "places": lambda x: x.gather(1, x.round().long()) + (x - x.floor()) + torch.cumprod(x, dim=1).flip(1),
    "transforms": lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1) * 2, n=4, dim=1) * torch.zeros_like(x).add(x),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_torch(name: str) -> None:
    function, direction = FUNCTIONS[name], C + 1
    value, got = derivative(function, X, direction)
    wanted_value, wanted = jvp(function, (X,), (direction,))
    assert type(value) is type(got) is torch.Tensor
    assert torch.equal(value, wanted_value)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)


def scene(stage: Stages) -> tuple:
    """Three unknowns, of which `a` enters twice and `c` in the last stage."""
    first, second = stage(
        lambda a, b: (a["a"] * b["b"], a["a"].exp()), stage.unknown("a"), stage.unknown("b")
    )
    mixed = stage.linear(lambda x, y: x * y, first, second)
    return stage(lambda x, c: x.sum(dim=1, keepdim=True) * c["c"], mixed, stage.unknown("c", "absent"))


def test_slopes_of_stages_are_those_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn((5, n), generator=generator).double() for name, n in (("a", 2), ("b", 2), ("c", 3))
    }
    columns = {"b": range(2), "a": range(4, 6), "c": range(7, 10)}
    found = scene(Slopes(values, columns, {name: torch.ones_like(one) for name, one in values.items()}))
    assert isinstance(found, Traced)
    assert torch.equal(found.value, scene(Stages(values)))
    assert sorted(found.columns) == [0, 1, 4, 5, 7, 8, 9]
    for name, numbers in columns.items():
        for index, column in enumerate(numbers):
            along = torch.zeros_like(values[name])
            along[:, index] = 1
            wanted = jvp(lambda x, name=name: scene(Stages(values | {name: x})), (values[name],), (along,))[1]
            assert torch.allclose(found.slopes[found.columns.index(column)], wanted, rtol=1e-12)


def test_what_is_not_asked_for_has_no_slopes() -> None:
    stage = Slopes({"a": X, "b": C}, {"a": range(4)}, {"a": torch.ones_like(X)})
    assert stage.unknown("b") == {"b": C}
    assert torch.equal(stage(lambda values: values["b"] + 1, stage.unknown("b")), C + 1)

"""Steps of the search behind `refine`: amplitudes leave the pattern alone, bounds leave a step its promise."""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from analytic_recipe import WavyBackground, dots, prior

from qdml.limits.unknowns import values_of
from qdml.search import Search, World


def test_a_pattern_stays_where_amplitudes_move() -> None:
    generator, n = torch.Generator().manual_seed(5), 16
    # So many photons that a slope, which is right to first order, is not right enough.
    recipe = WavyBackground(1e7)
    main, setting, z_BL = dots(n, generator), recipe.setting(n), recipe.space.draw(n, generator)
    # Latents half as large as a prior says, as when the amplitude is too large.
    z_BL[:, recipe.space.names["background"]] *= 0.3
    observation = recipe.observe(recipe.expected(main, setting, z_BL), generator)
    theta = torch.cat([values_of(main), z_BL.double(), torch.zeros(n, 1, dtype=torch.float64)], dim=1)
    known = torch.ones(theta.shape[1], dtype=torch.float64)
    free = torch.ones(theta.shape[1], dtype=torch.bool)
    free[4 + recipe.space.names["waves"].start] = False
    world = World(recipe, observation, setting, torch.zeros(n, dtype=torch.int64), 0.0)
    search = Search(world, theta, known=known, free=free, prior=prior())
    before, amplitude = search.model.clone(), theta[:, -2].clone()
    search.derive(search.all)
    assert int(((search.theta[:, -2] - amplitude).abs() > 0.2).sum()) > n // 2
    off = (world.weight(before, search.all) * (search.model - before) ** 2).sum(dim=1)
    assert float(off.max()) < 0.1
    # Derivatives are those at the new place.
    index = torch.arange(3)
    again = world.slopes(search.theta[index], index)[:, search.columns]
    scale = again.abs().amax(dim=2, keepdim=True).clamp(min=1e-6)
    assert float(((search.slopes[index] - again) / scale).abs().max()) < 0.02


def test_a_step_that_would_pass_two_bounds_still_promises_something() -> None:
    # Two main parameters that compensate one another: 7.5 of both, but where one is held the other goes 0.006.
    matrix = torch.tensor([[[1.0, -0.999, 0.0], [-0.999, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    search = Search.__new__(Search)
    search.columns = torch.tensor([0, 2, 4])
    search.theta, search.model = (
        torch.zeros(1, 6, dtype=torch.float64),
        torch.zeros(1, 3, dtype=torch.float64),
    )
    search.rows = SimpleNamespace(y=torch.tensor([[0.01, 0.005, 0.0]], dtype=torch.float64))
    search.matrix, search.known = matrix, torch.zeros(6, dtype=torch.float64)
    search.damping, search.metric = (
        torch.full((1,), 1e-9, dtype=torch.float64),
        torch.ones(3, dtype=torch.float64),
    )
    search.high = torch.tensor([0.001, 5.0, torch.inf], dtype=torch.float64)
    search.low = -search.high
    step, promised, _, _, _ = search.step(
        torch.arange(1), torch.ones(1, 3, dtype=torch.float64), torch.eye(3)[None]
    )
    assert float(promised) > 0
    assert torch.allclose(step, torch.tensor([[0.001, 0.005999, 0.0]], dtype=torch.float64), atol=1e-6)

"""The posterior network: whitening by its formula, what it must be told, and a problem whose answer is known."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from runs import train_config

from qdml.densities import TARGETS, GaussianMixture
from qdml.losses import nuisance_loss, nuisance_scores, pattern_loss, scores
from qdml.models import build_model
from qdml.models.posterior import MixtureHead, Posterior
from qdml.models.whitening import InputMoments, Whitening
from qdml.network_config import PosteriorConfig, PosteriorConvolutionsConfig, PosteriorFlowConfig
from qdml.nuisance import Nuisance
from qdml.preprocess import NetworkInput

CONDITIONS = 2


def config(**changes: object) -> PosteriorConfig:
    values = {
        "name": "posterior", "input": "log_smooth", "components": 20, "width": 32, "blocks": 2, "mixture": 3,
        "mask": True, "conditions": True, "declared_noise": True, "nuisance": 0.05, "compress_beyond": 6.0,
    }  # fmt: skip
    return PosteriorConfig(**{**values, **changes})


def inputs(rows: int = 8, n_q: int = 70, seed: int = 0) -> NetworkInput:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, n_q)
    mask[::2, 50:] = 0
    return NetworkInput(
        pattern=torch.stack([torch.randn(rows, n_q, generator=generator) * mask, mask], dim=1),
        noise=0.3 * torch.rand(rows, n_q, generator=generator) * mask,
        conditions=torch.randn(rows, CONDITIONS, generator=generator),
    )


def fitted(**changes: object) -> Posterior:
    torch.manual_seed(0)
    model = build_model(config(**changes), None, 70, CONDITIONS)
    moments = InputMoments(70, CONDITIONS, len(TARGETS))
    moments.add(inputs(400, seed=1), torch.randn(400, 3) * torch.tensor([0.5, 0.7, 2e-3]))
    model.fit(moments)
    # The head starts at zero; anything else shows what it is connected to.
    torch.nn.init.normal_(model.head.dense.weight, std=0.1)
    return model


def test_moments_are_those_of_visible_points() -> None:
    x = inputs(300)
    targets = torch.randn(300, 3)
    moments = InputMoments(70, CONDITIONS, 3)
    moments.add(x.take(slice(0, 100)), targets[:100])
    moments.add(x.take(slice(100, 300)), targets[100:])
    y, mask = x.pattern[:, 0].double(), x.pattern[:, 1].double()
    mean = (y * mask).sum(dim=0) / mask.sum(dim=0)
    centred = (y - mean) * mask
    assert moments.count == 300
    assert torch.allclose(moments.mean, mean)
    assert torch.allclose(moments.covariance, centred.T @ centred / 300)
    assert torch.allclose(moments.noise_variance, x.noise.double().square().mean(dim=0))
    for which, values in ((2, x.conditions), (3, targets)):
        got = moments.mean_and_spread(which)
        assert torch.allclose(got[0], values.double().mean(dim=0))
        assert torch.allclose(got[1], values.double().std(dim=0, correction=0))


def test_components_have_unit_variance_at_every_noise() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 10)).Q * torch.logspace(0.5, -1.5, 10)
    whitening = Whitening(64, 10, declared_noise=True, compress_beyond=2.0)
    moments = InputMoments(64, 0, 0)

    def drawn(noise: float) -> NetworkInput:
        x = 1 + torch.randn(20_000, 10) @ basis.T + noise * torch.randn(20_000, 64)
        pattern = torch.stack([x, torch.ones_like(x)], dim=1)
        return NetworkInput(
            pattern=pattern, noise=torch.full_like(x, noise), conditions=torch.zeros(20_000, 0)
        )

    for noise in (0.02, 0.05):
        moments.add(drawn(noise), torch.zeros(20_000, 0))
    whitening.fit(moments)
    for noise in (0.001, 0.02, 0.05, 0.5):
        x = drawn(noise)
        # Without the compression.
        z = 2 * torch.sinh(whitening(x.pattern[:, 0], x.noise, x.pattern[:, 1]) / 2)
        assert torch.allclose(z.var(dim=0), torch.ones(10), rtol=0.05), noise


def test_components_are_sums_of_points_until_far_out() -> None:
    whitening = Whitening(4, 2, declared_noise=False, compress_beyond=6.0)
    with torch.no_grad():
        whitening.directions.copy_(torch.eye(4)[:, :2])

    def seen(a: float, b: float) -> torch.Tensor:
        x = torch.tensor([[a, b, 0.0, 0.0]])
        return whitening(x, torch.zeros_like(x), torch.ones_like(x))[0]

    # What cancels cancels, at every size that training has; asinh itself would leave 0.22 of it.
    a, b = seen(1.0, 2.0)
    assert abs(float(2 * a - b)) < 0.03
    # A pattern like none in training does not drive the network a thousand times as far out.
    assert 30 < float(seen(1000.0, 0.0)[0]) < 40


def test_compression_that_leaves_nothing() -> None:
    with pytest.raises(ValueError, match="network.compress_beyond must be > 0, got 0"):
        config(compress_beyond=0.0)


def test_more_components_than_points() -> None:
    with pytest.raises(ValueError, match="network.components must be <= 70, the points of a pattern, got 71"):
        build_model(config(components=71), None, 70, CONDITIONS)


def test_a_mask_that_is_not_in_the_input() -> None:
    with pytest.raises(ValueError, match="network.mask=true needs an input with a mask channel"):
        config(input="area")


def test_head_is_a_mixture_of_proper_densities() -> None:
    torch.manual_seed(0)
    head = MixtureHead(16, 4)
    start = head(torch.randn(5, 16))
    assert torch.equal(start.mean[0], start.mean[1]), "before training, every pattern gets the same answer"
    torch.nn.init.normal_(head.dense.weight)
    density = head(torch.randn(5, 16))
    assert density.mean.shape == (5, 4, 3)
    assert torch.equal(density.scale_tril, density.scale_tril.tril())
    assert (density.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    with torch.no_grad():
        head.centre.copy_(torch.tensor([1.0, 2.0, 3.0]))
        head.spread.copy_(torch.tensor([0.1, 10.0, 1e-3]))
    torch.manual_seed(1)
    features = torch.randn(5, 16)
    wide, points = head(features), torch.randn(5, 3)
    with torch.no_grad():
        head.centre.zero_()
        head.spread.fill_(1)
    unit = head(features).log_prob((points - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([0.1, 10.0, 1e-3]))
    # The scales multiply to 1e-3.
    assert torch.allclose(wide.log_prob(points), unit + 3 * torch.log(torch.tensor(10.0)), rtol=1e-4)


def flow_config() -> PosteriorFlowConfig:
    values = {name: getattr(config(), name) for name in ("input", "components", "width", "blocks", "mask")}
    told = {"conditions": True, "declared_noise": True, "nuisance": 0.05, "compress_beyond": 6.0}
    return PosteriorFlowConfig(name="posterior_flow", transforms=2, hidden=16, bins=6, **values, **told)


@pytest.mark.parametrize("name", ["posterior", "posterior_flow", "posterior_convolutions"])
def test_every_named_network_needs_no_classes(name: str) -> None:
    read = train_config("training=production", f"network={name}", "data.store=none")
    assert read.task == "posterior"
    model = build_model(read.network, None, 1049, CONDITIONS)
    weights = sum(weight.numel() for weight in model.parameters())
    # Of float32, in a package of at most 20 MB.
    assert 4 * weights < 18e6


def test_flow_samples_its_own_density() -> None:
    torch.manual_seed(0)
    model = build_model(flow_config(), None, 70, CONDITIONS)
    assert not list(model.buffers())
    with torch.no_grad():
        model.head.centre.copy_(torch.tensor([1.0, 2.0, 3.0]))
        model.head.spread.copy_(torch.tensor([0.1, 10.0, 1e-3]))
        density = model(inputs(2))
        drawn = density.sample(20_000, torch.Generator().manual_seed(1))
        mean, covariance = density.moments()
        spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        # Moments are those of 128 samples: 9 % of the spread; three times that.
        assert ((drawn.mean(dim=0) - mean).abs() < 0.27 * spread).all()
        assert torch.allclose(density.cdf(mean), torch.full((2, 3), 0.5), atol=0.2)
        stand_in = density.mixture()
        # Of the same mean and covariance; its log density is that of a kernel estimate, within a few tenths of a nat in
        # the mean.
        assert ((stand_in.moments()[0] - mean).abs() < 1e-3 * spread).all()
        ratio = stand_in.moments()[1].diagonal(dim1=-2, dim2=-1).sqrt() / spread
        assert torch.allclose(ratio, torch.ones(2, 3), atol=1e-3)
        for row in range(2):
            at = drawn[:200, row : row + 1]
            exact = torch.stack([density.log_prob(p.expand(2, 3))[row] for p in at])
            estimate = torch.stack([stand_in.log_prob(p.expand(2, 3))[row] for p in at])
            assert abs(float((exact - estimate).mean())) < 0.3
        # Σ p over a grid of the first target, the others integrated by their samples' box, is 1.
        axes = [torch.linspace(-6, 6, 61)] * 3
        unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 1, 3)
        points = (model.head.centre + model.head.spread * unit).expand(-1, 2, 3)
        volume = 0.2**3 * float(model.head.spread.prod())
        total = (density.log_prob(points).exp() * volume).sum(dim=0)
    assert torch.allclose(total, torch.ones(2), atol=0.02)


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (config, {"blocks": 0}, "network.blocks must be >= 1, got 0"),
        (config, {"mixture": 0}, "network.mixture must be >= 1, got 0"),
        (flow_config, {"bins": -1}, "network.bins must be >= 1, got -1"),
        (config, {"nuisance": -0.1}, "network.nuisance must be >= 0, got -0.1"),
    ],
)
def test_networks_that_cannot_be(make: Callable, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make(), **change)


def test_a_branch_of_convolutions_sees_the_pattern_and_the_mask() -> None:
    values = asdict(config()) | {"name": "posterior_convolutions", "filters": 8, "layers": 2}
    chosen = PosteriorConvolutionsConfig(**values)
    torch.manual_seed(0)
    model = build_model(chosen, None, 70, CONDITIONS)
    torch.nn.init.normal_(model.head.dense.weight, std=0.1)
    x = inputs()
    # The whitening is not fitted: its directions are 0, and the branch is all that sees the pattern.
    other = NetworkInput(pattern=x.pattern.roll(1, dims=2), noise=x.noise, conditions=x.conditions)
    assert not torch.equal(model(x).mean, model(other).mean)


@pytest.mark.parametrize("told", ["mask", "conditions", "declared_noise"])
def test_what_it_is_not_told_it_does_not_use(told: str) -> None:
    x = inputs()
    changed = {
        "mask": NetworkInput(
            pattern=torch.stack([x.pattern[:, 0], torch.ones(8, 70)], dim=1),
            noise=x.noise,
            conditions=x.conditions,
        ),
        "conditions": NetworkInput(pattern=x.pattern, noise=x.noise, conditions=x.conditions + 1),
        "declared_noise": NetworkInput(pattern=x.pattern, noise=2 * x.noise, conditions=x.conditions),
    }[told]
    for yes in (True, False):
        model = fitted(**{told: yes})
        with torch.no_grad():
            model.whitening.mean.zero_()  # where hidden points are 0 by themselves
            same = torch.equal(model(x).mean, model(changed).mean)
        assert same != yes


def test_matrices_are_those_of_hidden_layers() -> None:
    model = fitted()
    names = {name for name, one in model.named_parameters() if any(one is m for m in model.matrices())}
    assert names == {"embed.weight", *(f"blocks.{b}.{layer}.weight" for b in (0, 1) for layer in (1, 3))}


def test_every_weight_gets_a_gradient() -> None:
    model = fitted()
    density, guess = model.answer(inputs(64))
    ((-density.log_prob(torch.randn(64, 3) * 1e-3)).mean() + guess.log_b_scale.sum()).backward()
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.any() for weight in learned)
    assert not list(model.buffers()), "DistributedDataParallel would send them round before every step"


def test_a_guess_is_of_what_is_not_asked_for() -> None:
    torch.manual_seed(0)
    model = build_model(config(), None, 70, CONDITIONS, n_latents=4, n_variants=3)
    x = inputs(6)
    density, guess = model.answer(x)
    # Before it has learned anything: the prior's means; the density is that of the plain call.
    assert torch.equal(density.mean, model(x).mean)
    assert guess.z.shape == (6, 4)
    assert not guess.z.any()
    assert not guess.log_b_scale.any()
    assert torch.allclose(guess.log_variant.exp(), torch.full((6, 3), 1 / 3))
    both = Nuisance.cat([guess.take(slice(0, 2)), guess.take(slice(2, 6))]).to(torch.float64)
    assert len(both) == 6
    assert both.z.dtype == torch.float64


def test_a_guess_costs_what_it_is_off() -> None:
    guess = Nuisance(
        log_b_scale=torch.tensor([0.0, 0.3]),
        z=torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
        log_variant=torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log(),
    )
    rows = SimpleNamespace(
        variant=torch.tensor([0, 1]), b_scale=torch.tensor([1.0, 1.0], dtype=torch.float64)
    )
    z = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    expected = [-math.log(0.75) + 0.1 / 2 * 1, -math.log(0.5) + 0.1 / 2 * (4 + 1)]
    assert nuisance_loss(guess, rows, z, 0.1).tolist() == pytest.approx(expected, rel=1e-5)
    found = nuisance_scores(guess, rows, z)
    assert found["variant_accuracy"].tolist() == [1.0, 0.0]  # a tie goes to the first
    assert found["latents_explained"].tolist() == pytest.approx([0.5, -1.0])


def test_bfloat16_blurs_neither_whitening_nor_density() -> None:
    model, x = fitted(), inputs()
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        density = model(x)
    assert density.mean.dtype == density.scale_tril.dtype == torch.float32
    # Only the dense layers are rounded: to 2⁻⁹ each, of features of order 1.
    scale = exact.moments()[1].diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((density.moments()[0] - exact.moments()[0]).abs() < 0.05 * scale).all()


def test_it_compiles_as_one_graph() -> None:
    model, x, targets = fitted(), inputs(), torch.zeros(8, 3)

    def loss(given: NetworkInput) -> torch.Tensor:
        return -model(given).log_prob(targets)

    # The backend decides about kernels; whether anything has to be asked of the host is decided before it.
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), loss(x), rtol=1e-5)


def rows_of(targets_BT: torch.Tensor) -> SimpleNamespace:
    volume, sigma = targets_BT[:, 0].exp(), targets_BT[:, 1].exp()
    return SimpleNamespace(
        targets=lambda: targets_BT,
        volume_diameter=volume.double(),
        diameter=(volume / (1 + sigma**2) ** 3).double(),
        sigma=sigma.double(),
        strain=targets_BT[:, 2].double(),
    )


class LinearProblem:
    """x = A t + noise, t normal: the posterior is normal, and its entropy the same for every x."""

    spread = torch.tensor([0.4, 0.5, 3e-3])
    centre = torch.tensor([1.5, -2.0, 1e-3])
    noise = 0.3

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.design = torch.randn(70, 3) * torch.tensor([0.5, 0.2, 0.05])
        precision = self.design.T @ self.design / self.noise**2 + torch.eye(3)
        self.covariance = torch.linalg.inv(precision)
        self.entropy = 0.5 * torch.logdet(self.covariance) + self.spread.log().sum() + 1.5 * (
            1 + torch.log(torch.tensor(2 * torch.pi))
        )  # fmt: skip

    def draw(self, n: int, generator: torch.Generator) -> tuple[NetworkInput, torch.Tensor]:
        unit = torch.randn(n, 3, generator=generator)
        x = unit @ self.design.T + self.noise * torch.randn(n, 70, generator=generator)
        pattern = torch.stack([x, torch.ones_like(x)], dim=1)
        noise = torch.full_like(x, self.noise)
        made = NetworkInput(pattern=pattern, noise=noise, conditions=torch.zeros(n, CONDITIONS))
        return made, self.centre + self.spread * unit

    def exact(self, x: NetworkInput) -> GaussianMixture:
        mean = x.pattern[:, 0] @ self.design @ self.covariance / self.noise**2
        tril = torch.linalg.cholesky(self.covariance)
        return GaussianMixture(
            logits=torch.zeros(len(x), 1),
            mean=(self.centre + self.spread * mean)[:, None],
            scale_tril=(self.spread[:, None] * tril).expand(len(x), 1, 3, 3),
        )


def test_loss_of_the_exact_posterior_is_its_entropy_and_it_covers() -> None:
    problem = LinearProblem()
    x, targets = problem.draw(20_000, torch.Generator().manual_seed(0))
    rows = rows_of(targets)
    named = scores(problem.exact(x), rows, SimpleNamespace())
    # Standard deviation of the loss √(3/2) nats, of a frequency √(0.68·0.32): four times those over √20 000.
    assert float(named["nll"].mean()) == pytest.approx(float(problem.entropy), abs=0.035)
    for name in TARGETS:
        assert float(named[f"{name}_in_68"].mean()) == pytest.approx(0.6827, abs=0.013)
    volume = problem.exact(x).moments()[0][:, 0].exp()
    expected = (volume - targets[:, 0].exp()).abs().double()
    assert torch.allclose(named["volume_diameter_mae_nm"], expected, rtol=1e-4, atol=1e-5)
    wide = problem.exact(x)
    wide = GaussianMixture(logits=wide.logits, mean=wide.mean, scale_tril=2 * wide.scale_tril)
    assert float(pattern_loss(wide, rows, SimpleNamespace()).mean()) > float(problem.entropy) + 0.5


def test_a_trained_network_finds_the_exact_posterior() -> None:
    problem, generator = LinearProblem(), torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    model = build_model(config(components=8, width=32, blocks=1, mixture=2), None, 70, CONDITIONS)
    moments = InputMoments(70, CONDITIONS, 3)
    moments.add(*problem.draw(4096, generator))
    model.fit(moments)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=5e-3)
    steps = 500
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        x, targets = problem.draw(256, generator)
        optimizer.zero_grad()
        pattern_loss(model(x), rows_of(targets), SimpleNamespace()).mean().backward()
        optimizer.step()
    x, targets = problem.draw(20_000, generator)
    with torch.no_grad():
        density, exact = model(x), problem.exact(x)
        excess = (exact.log_prob(targets) - density.log_prob(targets)).mean()
        mean, covariance = density.moments()
    # The divergence of the exact posterior from the learned one, in nats.
    assert 0 < float(excess) < 0.1
    spread = problem.spread * problem.covariance.diagonal().sqrt()
    assert ((mean - exact.mean[:, 0]).square().mean(dim=0).sqrt() < 0.4 * spread).all()
    widths = covariance.diagonal(dim1=-2, dim2=-1).sqrt().mean(dim=0)
    assert torch.allclose(widths, spread, rtol=0.1)


def test_one_batch_can_be_learned_by_heart() -> None:
    model, x = fitted(width=64), inputs(16)
    torch.nn.init.zeros_(model.head.dense.weight)
    targets = torch.randn(16, 3) * torch.tensor([0.5, 0.7, 2e-3])
    start = float(-model(x).log_prob(targets).detach().mean())
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=3e-3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 300)
        optimizer.zero_grad()
        (-model(x).log_prob(targets)).mean().backward()
        # The densities become ever narrower, and the gradient of the means with them.
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    with torch.no_grad():
        # Three targets, each known five times better than at the start.
        assert float(-model(x).log_prob(targets).mean()) < start - 3 * math.log(5)

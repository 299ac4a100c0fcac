"""Networks of classes: the published architecture, its activation maps, heads by configuration."""

import pytest
import torch

from qdml.config import AllConvConfig, ClassConfig, ResidualMlpConfig
from qdml.models import build_model
from qdml.models.allconv import AllConv
from qdml.models.whitening import InputMoments
from qdml.preprocess import NetworkInput

CLASSES = ClassConfig(diameter_nm=tuple(2 + 0.5 * i for i in range(17)), sigma=(0.05, 0.1, 0.15, 0.2))
KERNELS = (10, 5, 4, 3, 2)


def allconv(**changes: object) -> AllConvConfig:
    values = {"name": "allconv", "input": "area", "heads": "separate", "filters": 32, "kernels": KERNELS}
    return AllConvConfig(**{**values, **changes})


def mlp(**changes: object) -> ResidualMlpConfig:
    sizes = {"components": 20, "width": 16, "blocks": 2, "compress_beyond": 6.0}
    values = {"name": "residual_mlp", "input": "log_smooth", "heads": "joint", **sizes}
    return ResidualMlpConfig(**{**values, **changes})


def given(pattern_BCQ: torch.Tensor) -> NetworkInput:
    x_BQ = pattern_BCQ[:, 0]
    return NetworkInput(pattern=pattern_BCQ, noise=torch.zeros_like(x_BQ), conditions=x_BQ[:, :0])


def moments_of(x_BQ: torch.Tensor) -> InputMoments:
    moments = InputMoments(x_BQ.shape[1], 0, 0)
    moments.add(given(x_BQ[:, None]), x_BQ[:, :0])
    return moments


def test_allconv_is_five_strided_convolutions_and_a_pool() -> None:
    model, x = build_model(allconv(), CLASSES, 5004, 0), torch.rand(3, 1, 5004)
    expected = x
    for layer, kernel in zip(model.layers, KERNELS, strict=True):
        channels = expected.shape[1]
        convolution = torch.nn.Conv1d(channels, 32, kernel, stride=kernel)
        # A window is flattened point by point, channels fastest.
        convolution.weight.data = layer.weight.data.view(32, kernel, channels).transpose(1, 2)
        convolution.bias.data = layer.bias.data
        expected = torch.relu(convolution(expected))
    features = model.features(x)
    assert torch.allclose(features.transpose(1, 2), expected, atol=1e-5)
    logits = model(given(x))
    assert torch.allclose(logits["sigma"], model.heads["sigma"](expected.mean(dim=2)), atol=1e-5)
    assert {name: one.shape for name, one in logits.items()} == {"diameter": (3, 17), "sigma": (3, 4)}


def test_the_activation_map_averages_to_the_logit() -> None:
    model, x = build_model(allconv(), CLASSES, 5004, 0), torch.rand(2, 1, 5004)
    for name, logits in model(given(x)).items():
        activation = model.activation_map(x, name)
        assert activation.shape == (2, logits.shape[1], 5004)
        whole = activation[..., : 4 * 1200]  # four whole windows
        assert torch.allclose(whole.mean(dim=2) + model.heads[name].bias, logits, atol=1e-5)
        assert (activation[..., 4800:] == 0).all()


@pytest.mark.parametrize("config", [allconv(heads="joint", input="log_smooth"), mlp()])
def test_a_joint_head(config) -> None:
    logits = build_model(config, CLASSES, 1300, 0)(given(torch.rand(2, 2, 1300)))
    assert {name: one.shape for name, one in logits.items()} == {"joint": (2, 68)}


@pytest.mark.parametrize("config", [allconv(), mlp(input="area"), mlp(heads="separate")])
def test_every_weight_gets_a_gradient(config) -> None:
    torch.manual_seed(0)
    model = build_model(config, CLASSES, 1300, 0)
    x = torch.rand(16, 1 if config.input == "area" else 2, 1300)
    if isinstance(config, ResidualMlpConfig):
        model.fit(moments_of(x[:, 0]))
    sum(one.logsumexp(dim=1).mean() for one in model(given(x)).values()).backward()
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.any() for weight in learned)


def test_whitening_gives_unit_variance_in_every_kept_direction() -> None:
    torch.manual_seed(0)
    # Directions whose standard deviations fall by a factor of 1000 over 40 points.
    x = torch.randn(4000, 40, dtype=torch.float64) * torch.logspace(0, -3, 40, dtype=torch.float64) + 3
    x = x @ torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    model = build_model(mlp(components=30, input="area"), CLASSES, 40, 0).double()
    model.fit(moments_of(x))
    # Without the compression.
    z = 6 * torch.sinh(model.whitening(x, torch.zeros_like(x), torch.ones_like(x)) / 6)
    assert torch.allclose(torch.cov(z.T), torch.eye(30, dtype=torch.float64), atol=1e-3)
    assert float((z.mean(dim=0)).abs().max()) < 1e-6
    model.fit(moments_of(torch.ones(100, 40, dtype=torch.float64) * torch.randn(100, 1)))
    assert torch.isfinite(model.whitening(x, torch.zeros_like(x), torch.ones_like(x))).all(), (
        "one direction only"
    )


def test_more_components_than_points() -> None:
    with pytest.raises(ValueError, match="network.components must be <= 40, the points of a pattern, got 41"):
        build_model(mlp(components=41), CLASSES, 40, 0)


def test_a_network_of_classes_needs_them() -> None:
    with pytest.raises(ValueError, match="network=allconv tells classes apart and needs them"):
        build_model(allconv(), None, 5004, 0)


def test_a_pattern_that_is_too_short() -> None:
    message = r"network.kernels \[10, 5, 4, 3, 2\] need at least 1200 points, the patterns have 874"
    with pytest.raises(ValueError, match=message):
        AllConv({"diameter": 2}, channels=1, n_q=874, filters=4, kernels=KERNELS)


def test_whitening_is_not_rounded_to_bfloat16() -> None:
    torch.manual_seed(0)
    # All that is to be seen lies in a direction of 10⁻⁸ of the variance.
    x = torch.randn(64, 1, 32) * torch.tensor([1.0] + [1e-4] * 31)
    model = build_model(mlp(components=32, input="area", blocks=1), CLASSES, 32, 0)
    model.fit(moments_of(x[:, 0]))
    seen = []
    model.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
    model(given(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(given(x))
    assert torch.allclose(seen[0], seen[1])

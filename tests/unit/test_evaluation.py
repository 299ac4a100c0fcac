"""The guess of a network and the ceiling of a stress set, against what they are defined as."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from qdml.asking import ask
from qdml.augmentation.recipe import Main
from qdml.densities import GaussianMixture
from qdml.evaluation.scores import score_guess
from qdml.nuisance import Nuisance
from qdml.observation import Observation
from qdml.stress.ceiling import share_right

N = 4000


def test_a_guess_explains_as_much_of_a_latent_as_is_known_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(N, 3, generator=generator)
    variant = torch.arange(N) % 2
    main = Main(
        log_volume_diameter=torch.zeros(N),
        sigma=torch.ones(N),
        strain=torch.zeros(N),
        variant=variant,
        b_scale=torch.exp(0.1 * z[:, 0]),
    )
    # Known of the three: 3/4, all, nothing. Shape: right for three of four, with the probability that was said.
    noise = torch.randn(N, generator=generator)
    known = torch.stack([0.75 * (z[:, 0] + noise / 3**0.5), z[:, 1], torch.zeros(N)], dim=1)
    said = torch.where(torch.arange(N) % 8 < 6, variant, 1 - variant)
    log_p = torch.full((N, 2), 0.25).scatter(1, said[:, None], 0.75).log()
    guess = Nuisance(log_b_scale=torch.log(main.b_scale) - 0.05 * noise, z=known, log_variant=log_p)
    scores = score_guess(guess, main, z, {"one": slice(0, 1), "two": slice(1, 3)})
    assert scores["variant_accuracy"] == 0.75
    assert scores["variant_log_loss"] == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25), rel=1e-6)
    # 4000 patterns know a variance to 2 %.
    assert scores["explained"] == {"one": pytest.approx(0.75, abs=0.02), "two": pytest.approx(0.5, abs=1e-6)}
    assert scores["latents_explained"] == pytest.approx((0.75 + 1 + 0) / 3, abs=0.01)
    assert scores["log_b_explained"] == pytest.approx(0.75, abs=0.02)
    one_b = replace(main, b_scale=torch.ones(N))
    assert score_guess(guess, one_b, z, {})["log_b_explained"] is None


def test_patterns_are_asked_in_batches() -> None:
    def answer(inputs: SimpleNamespace) -> tuple[GaussianMixture, Nuisance]:
        seen.append(len(inputs.pattern))
        mean = inputs.pattern[:, :1, :3]
        tril = torch.eye(3).expand(len(mean), 1, 3, 3)
        return (
            GaussianMixture(logits=torch.zeros(len(mean), 1), mean=mean, scale_tril=tril),
            Nuisance(log_b_scale=mean[:, 0, 0], z=mean[:, 0], log_variant=mean[:, 0, :1]),
        )

    seen: list[int] = []
    intensity = torch.rand(7, 20, generator=torch.Generator().manual_seed(0)) + 1
    observation = Observation(
        intensity=intensity,
        noise=0.1 * torch.ones(7, 20),
        mask=torch.ones(7, 20),
        conditions=torch.zeros(7, 7),
    )
    card = {"q": {"min": 1.0, "max": 3.0, "size": 20}, "input": "area"}
    density, guess = ask(SimpleNamespace(answer=answer), card, observation, batch=3)
    assert seen == [3, 3, 1] and len(density) == len(guess) == 7
    assert density.mean.dtype == torch.float64
    torch.testing.assert_close(guess.z, density.mean[:, 0])


def test_the_share_that_normal_errors_leave_in_their_class() -> None:
    classes = (2.0, 2.5, 3.0, 3.5)
    diameter = np.array([2.0, 2.5, 3.5, 3.0])
    error = np.array([0.25, 0.25, 0.125, 1e-6])
    found = share_right(error, 2 * error, diameter, classes)
    # Outermost classes are open at one side.
    one, both = ndtr(1), 2 * ndtr(1) - 1
    assert found["nearest"] == pytest.approx(np.mean([one, both, ndtr(2), 1]))
    assert found["volume"] == pytest.approx(np.mean([2 * ndtr(0.5) - 1, 2 * ndtr(0.5) - 1, both, 1]))

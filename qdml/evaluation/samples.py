"""Which dots a model is tried on: a split of its store, another store, or its own prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from hpc.store import Store
    from qdml.dataset import Rows

__all__ = ["check_grid", "check_range", "choose_samples", "prior_rows"]

# Ends of ranges are compared with this much room, relative to their width.
_ROOM = 1e-3


def check_grid(store: Store, card: Mapping[str, Any]) -> None:
    """Make sure that a store has the Q grid of a model.

    Raises:
        ValueError: it has another one.
    """
    from qdml.asking import model_grid

    grid, q = card["q"], store.q
    if q.size != grid["size"] or not np.allclose(
        q, model_grid(card), rtol=0, atol=1e-9 + 1e-6 * grid["step"]
    ):
        raise ValueError(
            f"the Q grid of {store.path} must be the model's: {grid['size']} points, {grid['min']:g} to "
            f"{grid['max']:g} Å⁻¹; got {q.size} points, {q[0]:g} to {q[-1]:g} Å⁻¹. Simulate with the q of the model"
        )


def check_range(store: Store, card: Mapping[str, Any], index: np.ndarray) -> None:
    """Make sure that a model has learned from dots like those of some samples.

    Raises:
        ValueError: a sample lies outside the ranges of the model's card.
    """
    prior, values = card["prior"], {name: v[index] for name, v in store.parameters.items()}
    if prior["mean"] == "volume":
        values["diameter"] = values["diameter"] * (1 + values["sigma"] ** 2) ** 3
    for name, key in (
        ("diameter", "diameter_nm"),
        ("sigma", "sigma"),
        ("strain", "strain"),
        ("b_scale", "b_scale"),
    ):
        low, high = prior[key]
        room = _ROOM * (high - low) + 1e-9
        outside = (values[name] < low - room) | (values[name] > high + room)
        if outside.any():
            worst = values[name][outside][0]
            raise ValueError(
                f"{int(outside.sum())} of {len(index)} samples of {store.path} lie outside what the model has learned "
                f"from: {key} is {low:g} to {high:g} there, one sample has {worst:g}. Evaluate on a store inside; a "
                "model of endless draws also on dots of its own ranges, with data.split=prior"
            )


def choose_samples(store: Store, card: Mapping[str, Any], split: str) -> np.ndarray:
    """Sample indices of a split.

    Args:
        store: the store to evaluate on.
        card: of the model.
        split: train, validation, test, or all.

    Raises:
        ValueError: the store's Q grid is not the model's; a split of a store that the model was not trained on, all of
            the one it was, or samples outside the model's range.
    """
    from qdml.checkpoint import training_config
    from qdml.dataset import fingerprint, split_samples

    check_grid(store, card)
    own = fingerprint(store) == card["store"]["fingerprint"]
    if split == "all":
        if own:
            raise ValueError(
                f"{store.path} holds the patterns that the model learned from; choose data.split=test"
            )
        index = np.arange(store.n_samples)
    else:
        if not own:
            raise ValueError(
                f"{store.path} is not the store that the model was trained on, so it has no {split} split; "
                "choose data.split=all"
            )
        config = training_config(card)
        data = config.data
        index = split_samples(store.n_samples, data.train, data.validation, config.seed)[split]
        if not len(index):
            raise ValueError(f"the model has learned from no sample of {store.path}; choose data.split=test")
    check_range(store, card, index)
    return index


def prior_rows(
    store: Store, card: Mapping[str, Any], n: int, generator: torch.Generator, device: torch.device
) -> Rows:
    """New dots from the prior that a model of endless draws was trained with.

    Args:
        store: whose basis makes their patterns: the one of the training.
        card: of the model.
        n: how many.
        generator: of the device.
        device: of the rows.

    Raises:
        ValueError: the model was trained on the samples of a store, or on another store.
    """
    from qdml.checkpoint import training_config
    from qdml.dataset import fingerprint
    from qdml.ensemble import DotDraws

    check_grid(store, card)
    data = training_config(card).data
    if data.name != "ensemble":
        raise ValueError(
            "data.split=prior needs a model of endless draws (data=ensemble); this one learned from the samples of a "
            "store: choose data.split=test"
        )
    if fingerprint(store) != card["store"]["fingerprint"]:
        raise ValueError(
            f"{store.path} is not the store that the model was trained on; data.split=prior draws from that one"
        )
    return DotDraws(data, store, device)(n, generator)

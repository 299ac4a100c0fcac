"""A model's folder: best weights, card, resumable state. Weights are safetensors, everything else is JSON.

    MODEL/model.safetensors        best weights
    MODEL/card.json                what it answers, for which dots, instruments and Q; how it was made; metrics
    MODEL/last/state.safetensors   weights and optimiser tensors of the last checkpoint; its scalars in the header
    MODEL/metrics.jsonl            one line per look at the validation split
    MODEL/learning_curve.png, MODEL/tensorboard/

Every file is written beside its place, flushed to disk and renamed, so that a killed run leaves the old one or the
new one. The state is one file for the same reason: weights and optimiser cannot be of different steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from qdml.config import TrainConfig, read_config

__all__ = [
    "CARD_VERSION",
    "ModelFolder",
    "begin_with",
    "check_initial",
    "load_model",
    "read_card",
    "training_config",
]

CARD_VERSION = 6

# What may differ between the parts of one training run: where it runs and where things lie.
_NOT_IDENTITY = (
    "output",
    "device.name",
    "data.store",
    "trainer.threads",
    "trainer.checkpoint_every",
    "trainer.check_every",
    "trainer.stop_after_minutes",
)


class ModelFolder:
    """The files of one model."""

    def __init__(self, path: str | Path) -> None:
        """Name the folder; nothing is created yet."""
        self.path = Path(path)
        self.metrics = self.path / "metrics.jsonl"
        self._state = self.path / "last" / "state.safetensors"

    def open(self, card: Mapping[str, Any]) -> str:
        """Start, continue or confirm the training that `card` describes (rank 0, once).

        Returns:
            "new", "resumed" or "finished".

        Raises:
            ValueError: the folder holds a model of another configuration or store.
        """
        if not (self.path / "card.json").is_file():
            self.write_card(card)
            return "new"
        existing = read_card(self.path)
        _refuse_other(self.path, existing, card)
        if existing["finished"]:
            return "finished"
        return "resumed" if self._state.is_file() else "new"

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Replace card.json."""
        _replace(self.path / "card.json", json.dumps(card, indent=2).encode())

    def save_best(self, model: torch.nn.Module) -> None:
        """Replace the best weights."""
        _replace(self.path / "model.safetensors", save(_on_cpu(model.state_dict())))

    def save_state(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        scalars: Mapping[str, Any],
    ) -> None:
        """Replace the resumable state: tensors, and JSON scalars in the header of the same file."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for number, optimizer in enumerate(optimizers):
            for index, entries in optimizer.state_dict()["state"].items():
                tensors.update({f"optimizer.{number}.{index}.{key}": entries[key] for key in entries})
        _replace(self._state, save(_on_cpu(tensors), metadata={"scalars": json.dumps(scalars)}))

    def load_state(
        self, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]
    ) -> dict[str, Any]:
        """Fill model and optimisers, return the scalars.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            tensors = load_file(self._state)
            with safe_open(self._state, framework="pt") as file:
                scalars = json.loads(file.metadata()["scalars"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self._state} is damaged ({error}); delete {self._state.parent} to train again from the start"
            ) from error
        prefix = "model."
        model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, index, name = key.split(".")
                states[int(number)].setdefault(int(index), {})[name] = value
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(
                {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        return dict(scalars)

    def keep_metrics(self, step: int) -> None:
        """Drop the lines after `step`: a resumed run writes them again."""
        if self.metrics.is_file():
            lines = self.metrics.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            _replace(self.metrics, "".join(f"{line}\n" for line in kept).encode())

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl."""
        return (
            [json.loads(line) for line in self.metrics.read_text().splitlines()]
            if self.metrics.is_file()
            else []
        )


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card of a model's folder.

    Raises:
        ValueError: there is none, it is damaged or of another version.
    """
    file = Path(folder) / "card.json"
    if not file.is_file():
        what = "has no card.json" if Path(folder).is_dir() else "does not exist"
        raise ValueError(
            f"{folder} is not a model: it {what}; give the folder that qd-train wrote (its `output`)"
        )
    try:
        card = json.loads(file.read_text())
        version = card["card_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); train the model again") from error
    if version != CARD_VERSION:
        raise ValueError(
            f"{file} has version {version}, this program reads {CARD_VERSION}; train the model again"
        )
    return dict(card)


def training_config(card: Mapping[str, Any]) -> TrainConfig:
    """The checked configuration that a model was trained with."""
    config = read_config(TrainConfig, card["training"])
    assert isinstance(config, TrainConfig)
    return config


def load_model(
    folder: str | Path, device: str | torch.device = "cpu"
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The best weights of a model.

    Args:
        folder: written by `qd-train`.
        device: where the network goes.

    Returns:
        the network in evaluation mode (float32), and its card.

    Raises:
        ValueError: no model there, or damaged weights.
    """
    from qdml.models import build_model

    card = read_card(folder)
    config = training_config(card)
    module = build_model(
        config.network,
        config.classes,
        card["q"]["size"],
        len(card["conditions"]),
        n_latents=len(card["latents"]),
        n_variants=len(card["variants"]),
    )
    file = Path(folder) / "model.safetensors"
    if not file.is_file():
        raise ValueError(f"{folder} has no weights yet; run its qd-train command until the first evaluation")
    try:
        module.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{file} is damaged or of another network ({error}); train the model again"
        ) from error
    module.closed_form = True  # type: ignore[assignment]  # of those that answer with densities
    return module.float().to(device).eval(), card


def check_initial(folder: str | Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a model that a training may begin with.

    Args:
        folder: of the other model.
        card: of the model that begins with it.

    Raises:
        ValueError: no model there, or one of another architecture, other points of Q or other conditions.
    """
    other = read_card(folder)
    q, other_q = ({name: round(value, 9) for name, value in one["q"].items()} for one in (card, other))
    for what, asked, there in (
        ("network", card["architecture"], other["architecture"]),
        ("points of Q", q, other_q),
        ("conditions", card["conditions"], other["conditions"]),
        ("classes", card["classes"], other["classes"]),
    ):
        if asked != there:
            raise ValueError(
                f"trainer.initial={folder} has another {what}: {there}, this run {asked}; begin with a model of the "
                "same, or with trainer.initial=null"
            )
    return other


def begin_with(folder: str | Path, module: torch.nn.Module, card: Mapping[str, Any]) -> None:
    """Fill a network with the weights of another model, of another world perhaps.

    What it guesses of latents and variants goes by their names: those that the other world does not have start from
    nothing known.

    Args:
        folder: of the other model.
        module: of the same architecture (`check_initial`).
        card: of the model that `module` will be.

    Raises:
        ValueError: no model there, or damaged weights.
    """
    other_module, other = load_model(folder)
    weights, mine = other_module.state_dict(), module.state_dict()
    labels, known = (["ln b", *one["latents"], *one["variants"]] for one in (card, other))
    place = {label: row for row, label in enumerate(known)}
    rows = [(row, place[label]) for row, label in enumerate(labels) if label in place]
    for name in weights:
        if not name.startswith("nuisance."):
            mine[name] = weights[name]
            continue
        mine[name] = torch.zeros_like(mine[name])
        to, origin = (torch.tensor(index) for index in zip(*rows, strict=True))
        mine[name][to] = weights[name][origin].to(mine[name])
    module.load_state_dict(mine)


def _on_cpu(tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}


def _refuse_other(path: Path, existing: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    old, new = _flatten(existing["training"]), _flatten(asked["training"])
    old["patterns of the store"], new["patterns of the store"] = (
        card["store"]["fingerprint"] for card in (existing, asked)
    )
    differing = [
        key
        for key in sorted(set(old) | set(new))
        if old.get(key) != new.get(key) and key not in _NOT_IDENTITY
    ]
    if differing:
        lines = "\n".join(
            f"  {key}: the model has {old.get(key)}, this run asks for {new.get(key)}" for key in differing
        )
        raise ValueError(
            f"{path} holds a model of another configuration:\n{lines}\n"
            "choose another output, delete the folder, or ask for what it was started with"
        )


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is, at any moment, the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)

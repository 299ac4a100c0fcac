"""The stress table of a model, set by set: in this process, or beside it in some of their own.

Sets have nothing to do with each other, and a fit uses one core: so many processes take so much less time, and go on
while this one does something else.
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from qdml.config import EvaluateConfig
    from qdml.stress.table import StressModel

__all__ = ["StressRun", "load_stress_model"]


class StressRun:
    """Rows of the table, as a context; with processes of their own they are begun at once."""

    def __init__(self, config: EvaluateConfig, names: Sequence[str], device: torch.device) -> None:
        """Begin.

        Args:
            config: model, store, and how many patterns of each set are fitted by how many processes.
            names: of the sets.
            device: of the model; processes of their own work on CPU cores.

        Raises:
            ValueError: processes of their own for a model on a GPU.
        """
        self._config, self._names, self._device = config, list(names), device
        self._rows: dict[str, Future[dict[str, Any]]] = {}
        self._pool: ProcessPoolExecutor | None = None
        if config.stress.processes and self._names:
            if device.type != "cpu":
                raise ValueError(
                    f"stress.processes must be 0 on {device.type}: processes of their own share CPU cores, not a GPU; "
                    f"got {config.stress.processes}"
                )
            # Threads do not survive a fork.
            self._pool = ProcessPoolExecutor(
                config.stress.processes, get_context("spawn"), initializer=_begin, initargs=(config,)
            )
            self._rows = {name: self._pool.submit(_row, name) for name in self._names}

    def rows(self, show: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """Name of each set -> its row.

        Args:
            show: called with a line when a set is done.

        Raises:
            ValueError: see `qdml.stress.table.try_set`; a stored set that is another one.
        """
        if self._pool is not None:
            return {name: future.result() for name, future in self._rows.items()}
        if not self._names:
            return {}
        model = load_stress_model(self._config, self._device)
        return {name: _try(model, self._config, name, show) for name in self._names}

    def __enter__(self) -> StressRun:
        return self

    def __exit__(self, *_: object) -> None:
        """End; what has not begun is left."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def load_stress_model(config: EvaluateConfig, device: torch.device) -> StressModel:
    """A model as the table takes it, with the world of its training where it is a posterior.

    Raises:
        ValueError: the model or the store cannot be used.
    """
    from hpc.store import open_store
    from qdml.checkpoint import load_model
    from qdml.evaluation.posterior import variant_chances, world_of
    from qdml.stress.table import StressModel

    module, card = load_model(config.model, device)
    store, recipe = open_store(config.data.store), None
    if card["task"] == "posterior":
        recipe = world_of(card, store, config.model, device)
    return StressModel(
        module=module,
        card=card,
        recipe=recipe,
        variants={} if recipe is None else variant_chances(card, store),
        device=device,
        batch=config.batch,
        seed=config.seed,
    )


def _try(
    model: StressModel, config: EvaluateConfig, name: str, show: Callable[[str], None]
) -> dict[str, Any]:
    from qdml.stress.files import open_set
    from qdml.stress.sets import load_stress
    from qdml.stress.table import try_set

    described = load_stress(name)
    content = open_set(name, described, config.stress.folder, show=show)
    fitted = config.stress.refine_patterns if config.refine else 0
    return try_set(model, described, content, refine_patterns=fitted, show=show)


# Of a process of its own: what all its sets are tried with.
_OWN: dict[str, Any] = {}


def _begin(config: EvaluateConfig) -> None:
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    _OWN.update(config=config, model=load_stress_model(config, torch.device("cpu")))


def _row(name: str) -> dict[str, Any]:
    return _try(_OWN["model"], _OWN["config"], name, logging.getLogger(__name__).info)

"""The compressed basis of a model in its folder: `MODEL/basis.safetensors`.

With it a model can be tried, refined and shipped without the store that it was trained from. Tensors are safetensors,
everything else is JSON in the header of the same file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from qdml.basis import DotBasis

__all__ = ["BASIS_FILE", "read_basis", "write_basis"]

BASIS_FILE = "basis.safetensors"


def write_basis(folder: str | Path, basis: DotBasis) -> None:
    """Put a basis into a model's folder; at any moment the file there is the old one or the new one."""
    from safetensors.torch import save

    tensors, content = basis.to_tensors()
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path = Path(folder) / BASIS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(save(on_cpu, metadata={"content": json.dumps(content)}))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_basis(folder: str | Path, device: torch.device) -> DotBasis:
    """The basis of a model.

    Args:
        folder: of the model.
        device: where rows will be.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    from qdml.basis import DotBasis

    path = Path(folder) / BASIS_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {BASIS_FILE}: it was trained without a basis of its dots; train with augment=instrument"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            content = json.loads(file.metadata()["content"])
        return DotBasis(tensors, content, device=device)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); train the model again") from error

"""Files of `conf/` that are read by name: liquids, instruments, radiations, ..."""

from __future__ import annotations

from typing import Any

__all__ = ["file_names", "read_named"]


def file_names(group: str) -> list[str]:
    """The names of `conf/<group>/*.yaml`, which ship with the package."""
    from importlib.resources import files

    folder = files("conf") / group
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else ()
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def read_named(group: str, name: str) -> Any:
    """The content of `conf/<group>/<name>.yaml`, the name in any case.

    Raises:
        ValueError: there is no such file; the message lists those there are.
    """
    from importlib.resources import files

    import yaml

    if not isinstance(name, str) or name.lower() not in file_names(group):
        raise ValueError(f"{group} must be one of {file_names(group)}, got {name!r}")
    text = (files("conf") / group / f"{name.lower()}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)

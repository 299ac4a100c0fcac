"""Hydra configuration: one YAML per command, one folder per choice; `experiment/` holds complete named runs."""

"""Simulation: parameter grid -> particles -> pair histograms -> I(Q) -> sharded zarr store."""

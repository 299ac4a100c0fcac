"""Liquids and containers around the dots: what they scatter, from the shape of the molecule and the density."""

from hpc.liquids.containers import container_names, container_profile
from hpc.liquids.liquid import Liquid, liquid_names, load_liquid
from hpc.liquids.terms import LiquidTerms, liquid_profile, liquid_terms
from hpc.liquids.variation import varied

__all__ = [
    "Liquid",
    "LiquidTerms",
    "container_names",
    "container_profile",
    "liquid_names",
    "liquid_profile",
    "liquid_terms",
    "load_liquid",
    "varied",
]

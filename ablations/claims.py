"""Claims on ablations, their verdicts and the default margin (from `analysis`)."""

from __future__ import annotations

from analysis.stats.ablation_claims import MARGIN, OPEN, ClaimVerdict, Expected

__all__ = ["MARGIN", "OPEN", "ClaimVerdict", "Expected"]

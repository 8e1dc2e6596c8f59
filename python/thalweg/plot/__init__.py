"""Figures: every function takes `ax`, returns the axes it drew on, and neither shows nor saves."""

from __future__ import annotations

from . import landscape as landscape

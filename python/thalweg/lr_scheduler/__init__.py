"""Schedules as torch LRSchedulers."""

from __future__ import annotations

from ._bound import ScheduleLR as ScheduleLR
from ._events import Event as Event

"""The web page and its API: `python -m latentsync.app`."""

from latentsync.app.api import KnownHosts, serve
from latentsync.app.engine import Engine
from latentsync.app.presets import Preset

__all__ = ["Engine", "KnownHosts", "Preset", "serve"]

"""A scripted model server: what the real clients are run against, without a model and without a network."""

from __future__ import annotations

from modelserver.script import Reply, Tool, Usage, bash, refuse, write
from modelserver.server import ModelServer, Served

__all__ = ["ModelServer", "Reply", "Served", "Tool", "Usage", "bash", "refuse", "write"]

"""What holds for every test: random examples are judged by what comes out, never by how long it took, and can be repeated."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("parallel-agents", deadline=None, print_blob=True)
settings.load_profile("parallel-agents")

#!/usr/bin/env -S python3 -S -I
"""Behaves as ``claude -p`` or ``codex exec --json`` do, without a model: it does the steps that it is told.

``fake_agent.py claude ARGUMENTS`` or ``fake_agent.py codex ARGUMENTS``. The steps, one a line, are in the variable
FAKE_AGENT; else in the JSON file that FAKE_AGENT_SCRIPT names, under the first of its words that the prompt has; else
they are the first lines of the prompt that begin with "@". A session that is gone on with does the steps that are left.

Steps that are calls of the model: ``say TEXT``, ``write PATH TEXT``, ``run COMMAND``, ``long BYTES``, ``stream SECONDS``,
``subagent MODEL TEXT``, ``deny TOOL``, ``hang``, ``die SIGNAL``, ``fail NAME`` (of FAILURES), ``limit SECONDS``.
Others: ``usage IN OUT READ WRITE`` (of the calls that follow), ``model NAME``, ``retry NAME``, ``sleep SECONDS``,
``daemon PATH``, ``garbage``, ``twice``, ``linger``, ``exit CODE``, ``stderr TEXT``, ``prompt PATH``, ``environ PATH``,
``arguments PATH``. ``once PATH STEP`` does a step where no such file is, and makes it; ``resumed STEP`` and ``fresh STEP``.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from fakeagent import main

main()

"""A run drawn and written for other tools: its course and what it waited for, as SVG, Chrome traces and OpenTelemetry spans."""

"""To and fro in a run: its events, its states, where to stop. The screen is the command line's."""

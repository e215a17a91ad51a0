"""Files: snapshots, worktrees, merging and the refs that hold them, through plain git commands."""

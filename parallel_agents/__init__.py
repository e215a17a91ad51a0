"""parallel-agents: runs several AI coding agents at once on one project and never loses anything they did."""

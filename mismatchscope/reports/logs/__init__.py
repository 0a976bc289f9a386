"""The parts of a page that only a log has: its trends, its groups, its responses as strips of tokens."""

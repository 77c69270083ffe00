"""Random faults against a real node with real neighbours: nothing lost, twice or stuck, and no hand needed."""

"""What was built once is found by what it was built from. Stores in tiers, verified on read."""

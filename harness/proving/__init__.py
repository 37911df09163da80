"""Which programs go through the proxy: asked of the programs, told by two logs."""

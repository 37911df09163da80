"""Cards that are divided: modes, slices, and their device nodes."""

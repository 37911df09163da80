"""What today's scripts left on a node, half done or whole: taken over once, and given back."""

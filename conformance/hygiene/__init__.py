"""What a finished image must not hold."""

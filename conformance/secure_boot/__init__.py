"""Secure Boot: the firmware enforces it, the kernel knows it, our certificate is in db."""

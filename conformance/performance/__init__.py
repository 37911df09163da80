"""Speed that a healthy card has: its link, and copies over it."""

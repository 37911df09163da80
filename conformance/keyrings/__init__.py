"""Package repositories: the pinned keys and no others vouch for what apt takes from them."""

"""The driver: loaded, of one release, and every card answers."""

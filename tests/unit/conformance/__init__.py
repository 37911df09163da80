"""The checks against hand-made nodes: good ones pass, and each sabotage kills exactly its check."""

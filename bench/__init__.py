"""The benchmark: what an Uplink costs beside the bare rings of the same card. ``python -m bench`` runs it."""

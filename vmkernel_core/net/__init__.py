"""Networking as the hypervisor sees it: uplinks."""

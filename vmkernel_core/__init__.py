"""The hypervisor's kernel services: memory, worlds, interrupts, PCI, platforms, uplinks."""
